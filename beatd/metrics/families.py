"""Metric families: the names, types, labels and help texts of everything that a beatd process exposes.

``beatd_daemon_*`` and ``beatd_worker_*`` describe the process that is asked. All others describe the installation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol, cast

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

ENTRIES_NAMED = 100
"""Entries with a problem that have a sample of their own, for each kind of problem."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Definition(NamedTuple):
    """Type, help text and labels of a metric."""

    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


class Buckets(Protocol):
    """A histogram as :func:`family` reads it."""

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Return ``(upper bound, count so far)`` pairs, the last with ``+Inf``, and the sum of all values."""


_INSTALLATION = {
    "beatd_store_up": Definition("gauge", "1 while the state store answers."),
    "beatd_store_down_seconds": Definition(
        "gauge", "Seconds since the state store stopped answering, as far as the process knows; 0 while it answers."
    ),
    "beatd_problems": Definition(
        "gauge", "Problems by kind, as beatd status has them; of a daemon those of the fleet.", ("kind",)
    ),
    "beatd_late_seconds": Definition("gauge", "Lateness of the oldest run that a daemon has not sent.", ("daemon",)),
    "beatd_held_back_entries": Definition("gauge", "Entries that are held back."),
    "beatd_entry_held_back": Definition("gauge", "1 for each entry that is held back, at most 100.", ("entry",)),
    "beatd_daemons": Definition("gauge", "Daemons that are alive."),
    "beatd_shards": Definition("gauge", "Number of shards."),
    "beatd_leading_shards": Definition(
        "gauge", "Shards that a daemon leads; the sum is beatd_shards when all is well.", ("daemon",)
    ),
    "beatd_config_mismatch": Definition("gauge", "1 when daemons differ in their schedule."),
    "beatd_config_broken": Definition("gauge", "1 when a daemon's files have errors.", ("daemon",)),
    "beatd_last_turn_seconds": Definition("gauge", "Seconds since a daemon's loop last made progress.", ("daemon",)),
    "beatd_clock_offset_seconds": Definition(
        "gauge", "How far a daemon's clock is ahead of the state store's.", ("daemon",)
    ),
    "beatd_outbox_length": Definition("gauge", "Messages that the broker has not confirmed yet.", ("shard",)),
    "beatd_entries": Definition("gauge", "Entries in force."),
    "beatd_runtime_entries": Definition("gauge", "Entries in the state store."),
    "beatd_paused_entries": Definition("gauge", "Entries that are paused."),
    "beatd_failing_entries": Definition("gauge", "Entries whose last run failed."),
    "beatd_overdue_entries": Definition("gauge", "Entries of which a run is overdue."),
    "beatd_too_long_entries": Definition("gauge", "Entries of which a run takes too long."),
    "beatd_entry_too_long_seconds": Definition(
        "gauge", "How long a run of the entry has been taking too long, at most 100 entries.", ("entry",)
    ),
    "beatd_entry_failures": Definition(
        "gauge", "Failures in a row of entries whose last run failed, at most 100 entries.", ("entry",)
    ),
    "beatd_entry_overdue_seconds": Definition(
        "gauge", "How long a run of the entry has been overdue, at most 100 entries.", ("entry",)
    ),
    "beatd_entry_last_success_timestamp_seconds": Definition(
        "gauge", "When a run of the entry last succeeded.", ("entry",)
    ),
    "beatd_entry_next_due_timestamp_seconds": Definition(
        "gauge", "When the next run of the entry is to leave, as its leader has it.", ("entry",)
    ),
    "beatd_dead_letters": Definition("gauge", "Messages that could not be run or delivered."),
    "beatd_notifications_waiting": Definition("gauge", "Notifications and pings that wait in the outbox."),
    "beatd_notifications_undelivered_seconds": Definition(
        "gauge", "Time since a target, or a host of pings, was last known to get notifications.", ("target",)
    ),
    "beatd_run_outcomes_total": Definition("counter", "Attempts that have ended.", ("outcome", "entry")),
    "beatd_runs_total": Definition("counter", "Runs that were sent, by schedule or by hand.", ("entry",)),
    "beatd_queue_length": Definition("gauge", "Messages that wait in a queue.", ("queue",)),
    "beatd_queue_oldest_message_seconds": Definition(
        "gauge", "Time since the run of the oldest message of a queue was due, on Redis.", ("queue",)
    ),
    "beatd_broker_up": Definition("gauge", "1 while the broker answers."),
}
_DAEMON = {
    "beatd_daemon_ready": Definition("gauge", "1 when /readyz of this daemon answers 200."),
    "beatd_daemon_leading": Definition("gauge", "1 for each shard that this daemon leads.", ("shard",)),
    "beatd_daemon_term": Definition("gauge", "Term of a shard that this daemon leads.", ("shard",)),
    "beatd_daemon_runs_total": Definition("counter", "Runs by outcome, since the start.", ("outcome", "reason")),
    "beatd_daemon_entry_runs_total": Definition(
        "counter", "Runs by entry and outcome, since the start.", ("entry", "outcome", "reason")
    ),
    "beatd_daemon_lateness_seconds": Definition("histogram", "Time from when a run was to leave until it left."),
    "beatd_daemon_claim_seconds": Definition("histogram", "Time to decide, render and claim the runs of one turn."),
    "beatd_daemon_reloads_total": Definition("counter", "Attempts to read the files again.", ("outcome",)),
    "beatd_daemon_config_faults": Definition("gauge", "Errors of the files and of runtime entries."),
    "beatd_daemon_notifications_total": Definition(
        "counter", "Attempts to send notifications and pings, since the start.", ("target", "outcome")
    ),
}
_WORKER = {
    "beatd_worker_ready": Definition("gauge", "1 when /readyz of this worker answers 200."),
    "beatd_worker_tasks_total": Definition("counter", "Tasks by state, since the start.", ("task", "state")),
    "beatd_worker_task_seconds": Definition("histogram", "Run time of tasks.", ("task",)),
    "beatd_worker_pool_size": Definition("gauge", "Tasks that can run at the same time."),
    "beatd_worker_pool_busy": Definition("gauge", "Tasks that run now."),
    "beatd_worker_prefetched": Definition("gauge", "Messages that were taken and do not run yet."),
    "beatd_worker_longest_running_seconds": Definition("gauge", "Time that the oldest running task has taken so far."),
}
_ALL = {"beatd_build_info": Definition("gauge", "Version of this process; always 1.", ("version",))}

FAMILIES: Mapping[str, Definition] = {**_ALL, **_INSTALLATION, **_DAEMON, **_WORKER}

_MAKERS: Mapping[str, Callable[..., Any]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}

Samples = Sequence[tuple[tuple[str, ...], float | Buckets]]


def family(name: str, samples: Samples) -> Metric:
    """Make a metric of :data:`FAMILIES`. A sample is the values of its labels, and its value."""
    kind, text, labels = FAMILIES[name]
    maker = _MAKERS[kind]
    metric = maker(name, text, labels=labels)
    for values, value in samples:
        if isinstance(value, (int, float)):
            metric.add_metric(values, value)
        else:
            metric.add_metric(values, *value.cumulative())
    return cast(Metric, metric)


def gauge(name: str, value: float) -> Metric:
    """Make a metric without labels."""
    return family(name, [((), value)])


def problem_family(kinds: Iterable[str]) -> Metric:
    """Make the metric of the problems of these kinds."""
    return family("beatd_problems", [((kind,), count) for kind, count in sorted(Counter(kinds).items())])


class LateEntries(NamedTuple):
    """Since when (ms) entries are overdue, run for too long, and targets get no notifications."""

    overdue: Mapping[str, int]
    too_long: Mapping[str, int]
    undelivered: Mapping[str, int]


def outcome_families(
    failures: Mapping[str, int], late: LateEntries, now_ms: int, failing: int | None = None
) -> Iterator[Metric]:
    """Make the metrics of entries that fail or are late. ``failing``: how many, if ``failures`` has not all."""

    def lasting(since: Mapping[str, int]) -> Samples:
        first = islice(since.items(), ENTRIES_NAMED)
        return [((name,), max(now_ms - since_ms, 0) / 1000) for name, since_ms in first]

    yield gauge("beatd_failing_entries", len(failures) if failing is None else failing)
    yield gauge("beatd_overdue_entries", len(late.overdue))
    yield gauge("beatd_too_long_entries", len(late.too_long))
    yield family("beatd_entry_failures", [((name,), count) for name, count in islice(failures.items(), ENTRIES_NAMED)])
    yield family("beatd_entry_overdue_seconds", lasting(late.overdue))
    yield family("beatd_entry_too_long_seconds", lasting(late.too_long))
    yield family("beatd_notifications_undelivered_seconds", lasting(late.undelivered))


class _Collector:
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def text(metrics: Iterable[Metric], registry: CollectorRegistry | None = None) -> bytes:
    """Return the metrics in Prometheus' text format, those of ``registry`` after them."""
    ours = CollectorRegistry(auto_describe=False)
    ours.register(_Collector([metric for metric in metrics if metric.samples]))
    return generate_latest(ours) + (generate_latest(registry) if registry is not None else b"")
