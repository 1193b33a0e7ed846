"""Metrics of the installation: ``/metrics`` of the status page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from prometheus_client.core import Metric

import beatd
from beatd.clock import Clock
from beatd.exceptions import StoreError
from beatd.metrics.counters import EntryLimit
from beatd.metrics.families import (
    CONTENT_TYPE,
    ENTRIES_NAMED,
    LateEntries,
    family,
    gauge,
    outcome_families,
    problem_family,
    text,
)
from beatd.planning.problems import Problem, store_problem
from beatd.store.outcomes import Summary
from beatd.timestamps import to_ms
from beatd.web.documents import file_problems
from beatd.web.entries import EntryListing
from beatd.web.store_view import StoreView

__all__ = ["CONTENT_TYPE", "PageEndpoint", "families", "outcome_families", "text", "without_store"]

BY_ENTRY = EntryLimit(1_000)
"""With more entries, only the sum of their runs is exported: each label value is a time series for ever."""


def families(
    status: Mapping[str, Any], names: Sequence[str], runs: Sequence[int], limit: EntryLimit = BY_ENTRY
) -> Iterator[Metric]:
    """The metrics of the installation. ``status`` as ``beatd status --json`` has it; ``runs`` of each of the names."""
    daemons = [daemon for daemon in status["daemons"] if daemon["alive"]]
    shards, runtime = status["shards"], status["runtime"]
    yield gauge("beatd_store_up", 1)
    yield gauge("beatd_store_down_seconds", 0)
    yield from _daemon_families(daemons)
    yield gauge("beatd_held_back_entries", status["held_back_count"])
    yield family("beatd_entry_held_back", [((held["entry"],), 1) for held in status["held_back"][:ENTRIES_NAMED]])
    yield gauge("beatd_daemons", len(daemons))
    yield gauge("beatd_shards", len(shards))
    yield gauge("beatd_config_mismatch", int(not status["same_schedule"]))
    yield family("beatd_outbox_length", [((str(shard["shard"]),), shard["outbox"]) for shard in shards])
    yield gauge("beatd_entries", len(names))
    yield gauge("beatd_runtime_entries", runtime["entries"])
    yield gauge("beatd_paused_entries", runtime["pauses"])
    if names and limit.allows(len(names)):
        yield family("beatd_runs_total", [((name,), count) for name, count in zip(names, runs, strict=True)])
    else:
        yield gauge("beatd_runs_total", sum(runs))


def _undelivered(status: Mapping[str, Any]) -> dict[str, int]:
    """Since when (ms) targets get no notifications."""
    return {one["target"]: to_ms(datetime.fromisoformat(one["since"])) for one in status["undelivered"]}


def _daemon_families(daemons: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    turned = [
        ((daemon["id"],), (daemon["turned_ms_ago"] + daemon["seen_ms_ago"]) / 1000)
        for daemon in daemons
        if daemon["turned_ms_ago"] is not None
    ]
    offsets = [
        ((daemon["id"],), daemon["clock_offset_ms"] / 1000)
        for daemon in daemons
        if daemon["clock_offset_ms"] is not None
    ]
    yield family("beatd_late_seconds", [((daemon["id"],), daemon["late_ms"] / 1000) for daemon in daemons])
    yield family("beatd_leading_shards", [((daemon["id"],), len(daemon["shards"])) for daemon in daemons])
    yield family("beatd_config_broken", [((daemon["id"],), int(daemon["config"] == "broken")) for daemon in daemons])
    yield family("beatd_last_turn_seconds", turned)
    yield family("beatd_clock_offset_seconds", offsets)


def ended_by_entry(names: Sequence[str], summaries: Mapping[str, Summary]) -> Iterator[Metric]:
    """Ended attempts by outcome and entry."""
    known = {name: summaries[name] for name in names if name in summaries}
    ends = [((word, name), count) for name, one in known.items() for word, count in one.counts.items()]
    yield family("beatd_run_outcomes_total", ends)
    successes = [((name,), one.last_success_ms / 1000) for name, one in known.items() if one.last_success_ms]
    yield family("beatd_entry_last_success_timestamp_seconds", successes)


def ended_in_all(totals: Mapping[str, int]) -> Metric:
    """Ended attempts by outcome: for schedules with more entries than are exported one by one."""
    return family("beatd_run_outcomes_total", [((word,), count) for word, count in sorted(totals.items())])


def without_store(entries: int, away_s: float, problem: Problem) -> Iterator[Metric]:
    """The metrics while the state store cannot be asked, for so many seconds by now."""
    yield problem_family([problem.kind])
    yield gauge("beatd_store_up", 0)
    yield gauge("beatd_store_down_seconds", away_s)
    yield gauge("beatd_entries", entries)


class PageEndpoint:
    """The endpoint of the page's process: an :class:`~beatd.metrics.server.Endpoint`."""

    def __init__(self, schedule: EntryListing, store: StoreView, clock: Clock) -> None:
        self._clock = clock
        self._schedule = schedule
        self._store = store

    def metrics(self) -> bytes:
        """Return the metrics of the installation in Prometheus' text format."""
        version = family("beatd_build_info", [((beatd.__version__,), 1)])
        return text([version, *self._families()])

    def unhealthy(self) -> Sequence[str]:
        """Return nothing: a process that answers is alive."""
        return ()

    def unready(self) -> Sequence[str]:
        """Return the reason why pages cannot be shown."""
        try:
            self._store.status()
        except StoreError as error:
            return (str(error),)
        return ()

    def _ended(self, names: Sequence[str], limit: EntryLimit) -> Iterable[Metric]:
        if limit.allows(len(names)):
            return ended_by_entry(names, self._store.summaries())
        return [ended_in_all(self._store.totals(frozenset(names)))]

    def _families(self) -> list[Metric]:
        try:
            mirror = self._store.mirror()
            self._schedule.overlay(mirror.tables, mirror.pauses)
            names = [entry.name for entry in self._schedule.listing.entries]
            limit = EntryLimit.parse(self._schedule.metric_entries)
            status, now_ms = self._store.status(), self._clock.now_ms()
            late = LateEntries(self._store.overdue(), self._store.too_long(), _undelivered(status))
            failures = {one["entry"]: one["failures"] for one in status["failing"]}
            troubles = outcome_families(failures, late, now_ms, status["failing_count"])
            outcomes = [*troubles, *self._ended(names, limit)]
            sizes = self._store.sizes()
            found = [one["kind"] for one in status["problem_details"]]
            found += [one.kind for one in file_problems(self._schedule, status)]
            waiting = [
                problem_family(found),
                gauge("beatd_dead_letters", sizes.dead_letters),
                gauge("beatd_notifications_waiting", sizes.notices),
            ]
            return [*families(status, names, self._store.runs(names), limit), *outcomes, *waiting]
        except StoreError as error:
            number, away_s = len(self._schedule.listing.entries), self._store.outage.away_s
            return list(without_store(number, away_s, store_problem(error)))
