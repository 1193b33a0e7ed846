"""Metrics and health of the daemon's process.

Alive: the loop makes progress, or the process waits for its state store, which no restart would bring back. Ready: the
store answers, and the daemon is a standby or sends its runs in time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric

import beatd
from beatd.beat.daemon_status import DaemonParts
from beatd.beat.problems import blocked_runs, fault_text, is_blocked
from beatd.beat.term import Leadership
from beatd.clock import Clock
from beatd.exceptions import StoreError
from beatd.metrics.counters import DaemonCounters, EntryLimit
from beatd.metrics.families import LateEntries, family, gauge, outcome_families, problem_family, text
from beatd.planning.problems import Problem, store_problem
from beatd.store.daemon_registry import Sizes, Status
from beatd.timestamps import span_text

HUNG_MS = 60_000
"""A loop without progress for longer than this hangs."""
_SHARED_S, _SUCCESSES_S = 1.0, 5.0
"""Time for which answers of the store are used again: sizes, and outcomes of entries."""


class DaemonMetrics:
    """The endpoint of a daemon: an :class:`~beatd.metrics.server.Endpoint`."""

    def __init__(self, entries: str, clock: Clock, waiting_for: Callable[[], str]) -> None:
        """``waiting_for`` is the reason why there is no daemon yet."""
        self._limit = EntryLimit.parse(entries)
        self._clock = clock
        self._waiting_for = waiting_for
        self._parts: DaemonParts | None = None
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        self._lock = threading.Lock()
        self._sizes: Sizes | StoreError = Sizes([], 0, 0)
        self._successes: dict[str, int] = {}
        self._successes_at: float | None = None
        self._outcomes: list[Metric] = []
        self._outcomes_at: float | None = None
        self._asked_at: float | None = None
        self._began_at = clock.monotonic()

    def attach(self, parts: DaemonParts) -> None:
        """Serve the metrics of this daemon from now on."""
        self._parts = parts

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return text(self._families(), self._process)

    def unhealthy(self) -> Sequence[str]:
        """Return the reason if the loop hangs."""
        status = self._parts.status.status() if self._parts else None
        if status is None or (status.turned_ms_ago or 0) <= HUNG_MS:
            return ()
        return (f"the loop has made no progress for {span_text(status.turned_ms_ago or 0)}",)

    def unready(self) -> Sequence[str]:
        """Return the reasons why this daemon could not send runs now."""
        if self._parts is None:
            return (self._waiting_for() or "the daemon starts",)
        return (*self.unhealthy(), *self._blocked(self._parts))

    def _blocked(self, parts: DaemonParts) -> Iterator[str]:
        sizes, away_s, status = self._ask(parts), parts.store_away_s(), parts.status.status()
        fault = blocked_runs(status) if is_blocked(status) else None
        error = sizes if isinstance(sizes, StoreError) or fault else parts.store_error()
        if isinstance(error, StoreError):
            yield f"{error}, for {span_text(int(away_s * 1000))}" if away_s >= 1 else str(error)
        if fault is not None:
            yield fault_text(fault, self._clock.now_ms() - (fault.lasting_ms or 0))
        if status.read_ms_ago is None:
            yield "the entries and pauses in the state store have not been read yet"

    def _families(self) -> Iterator[Metric]:
        yield family("beatd_build_info", [((beatd.__version__,), 1)])
        yield gauge("beatd_daemon_ready", int(not self.unready()))
        parts = self._parts
        sizes = self._ask(parts) if parts else StoreError("not reached yet")
        yield gauge("beatd_store_up", int(not isinstance(sizes, StoreError)))
        yield gauge("beatd_store_down_seconds", parts.store_away_s() if parts else self._waited_s())
        if parts is None:
            return
        status = parts.status.status()
        yield problem_family(one.kind for one in _problems(parts, sizes))
        yield from _status_families(status)
        if (offset_ms := parts.clock_offset_ms()) is not None:
            yield family("beatd_clock_offset_seconds", [((status.id,), offset_ms / 1000)])
        yield gauge("beatd_daemon_config_faults", parts.counters.faults + status.faults)
        yield from _leadership_families(parts.leaderships)
        if not isinstance(sizes, StoreError):
            led = {leadership.shard for leadership in parts.leaderships if leadership.term() is not None}
            lengths = [((str(shard),), length) for shard, length in enumerate(sizes.outboxes) if shard in led]
            yield family("beatd_outbox_length", lengths)
            yield gauge("beatd_dead_letters", sizes.dead_letters)
            yield gauge("beatd_notifications_waiting", sizes.notices)
            yield from self._outcome_families(parts)
        yield from _counter_families(parts.counters, self._limit)
        yield from self._entry_families(parts)

    def _outcome_families(self, parts: DaemonParts) -> Iterable[Metric]:
        """The entries that fail or are late, and targets without notifications, as the leader of shard 0 tells them:
        some seconds old at most; none where a key is not beatd's."""
        if parts.leaderships[0].term() is None:
            return ()
        with self._lock:
            now, now_ms = self._clock.monotonic(), self._clock.now_ms()
            if self._outcomes_at is None or now - self._outcomes_at > _SUCCESSES_S:
                self._outcomes = []
                with suppress(StoreError):
                    parts.check_nodes()
                    self._outcomes = [*outcome_families(*_outcomes(parts, now_ms), now_ms)]
                self._outcomes_at = self._clock.monotonic()
            return self._outcomes

    def _waited_s(self) -> float:
        """Seconds for which the start has been waiting for the store."""
        return self._clock.monotonic() - self._began_at if self._waiting_for() else 0.0

    def _entry_families(self, parts: DaemonParts) -> Iterator[Metric]:
        """The next due and last success of entries that this daemon leads, as many as the setting allows."""
        if self._limit.most == 0:
            return
        shards = {name: shard for shard in parts.shards for name in shard.led()}
        names = parts.counters.most_runs(self._limit, shards)
        dues = ((name, shards[name].next_fire_ms(name)) for name in names)
        next_dues = [((name,), due_ms / 1000) for name, due_ms in dues if due_ms is not None]
        yield family("beatd_entry_next_due_timestamp_seconds", next_dues)
        successes = [((name,), ms / 1000) for name, ms in self._last_successes(parts, names).items()]
        yield family("beatd_entry_last_success_timestamp_seconds", successes)

    def _last_successes(self, parts: DaemonParts, names: Sequence[str]) -> dict[str, int]:
        """Return when runs last succeeded, some seconds old at most; none while the store is away."""
        with self._lock:
            now = self._clock.monotonic()
            if self._successes_at is None or now - self._successes_at > _SUCCESSES_S:
                try:
                    parts.check_nodes()
                    found = parts.outcomes.summaries(names) if names else {}
                except StoreError:
                    found = {}
                self._successes = {name: one.last_success_ms for name, one in found.items() if one.last_success_ms}
                self._successes_at = self._clock.monotonic()
            return self._successes

    def _ask(self, parts: DaemonParts) -> Sizes | StoreError:
        """Return the sizes of what waits in the store, at most a second old, or why the store does not say."""
        with self._lock:
            now = self._clock.monotonic()
            if self._asked_at is None or now - self._asked_at > _SHARED_S:
                try:
                    self._sizes = parts.registry.sizes(shards=len(parts.leaderships))
                except StoreError as error:
                    self._sizes = error.with_traceback(None)
                self._asked_at = self._clock.monotonic()
            return self._sizes


def _outcomes(parts: DaemonParts, now_ms: int) -> tuple[dict[str, int], LateEntries]:
    failing, unreached = parts.outcomes.failing(), parts.undelivered.read()
    undelivered = {name: one.since_ms for name, one in unreached.items() if one.is_problem(now_ms)}
    late = LateEntries(parts.outcomes.overdue(), parts.outcomes.too_long(), undelivered)
    return {name: one.failures for name, one in failing.items()}, late


def _problems(parts: DaemonParts, sizes: Sizes | StoreError) -> Sequence[Problem]:
    """The problems of the fleet at the last heartbeat; without the store, that it is away, or takes no writes."""
    error = _store_error(parts, sizes)
    return parts.problems() if error is None else [store_problem(error)]


def _store_error(parts: DaemonParts, sizes: Sizes | StoreError) -> StoreError | None:
    """Why the store cannot be used: a replica, and one that refuses scripts, can be read all the same."""
    return sizes if isinstance(sizes, StoreError) else parts.store_error()


def _status_families(status: Status) -> Iterator[Metric]:
    me = (status.id,)
    yield family("beatd_late_seconds", [(me, status.late_ms / 1000)])
    yield gauge("beatd_held_back_entries", status.held)
    yield family("beatd_config_broken", [(me, int(status.config == "broken"))])
    if status.turned_ms_ago is not None:
        yield family("beatd_last_turn_seconds", [(me, status.turned_ms_ago / 1000)])
    yield gauge("beatd_entries", status.entries + status.runtime)
    yield gauge("beatd_runtime_entries", status.runtime)
    yield gauge("beatd_paused_entries", status.paused)


def _leadership_families(leaderships: Sequence[Leadership]) -> Iterator[Metric]:
    terms = {leadership.shard: leadership.term() for leadership in leaderships}
    yield family("beatd_daemon_leading", [((str(shard),), int(term is not None)) for shard, term in terms.items()])
    yield family("beatd_daemon_term", [((str(shard),), term.token) for shard, term in terms.items() if term])


def _counter_families(counters: DaemonCounters, limit: EntryLimit) -> Iterator[Metric]:
    totals: Mapping[tuple[str, str], int] = {("sent", ""): 0} | counters.totals.copy()
    yield family("beatd_daemon_runs_total", [(tuple(outcome), count) for outcome, count in totals.items()])
    entries = [((name, *outcome), count) for name, outcome, count in counters.by_entry(limit)]
    yield family("beatd_daemon_entry_runs_total", entries)
    yield family("beatd_daemon_lateness_seconds", [((), counters.lateness)])
    yield family("beatd_daemon_claim_seconds", [((), counters.claims)])
    yield family("beatd_daemon_reloads_total", [((outcome,), n) for outcome, n in counters.reloads.copy().items()])
    yield family("beatd_daemon_notifications_total", [(key, n) for key, n in counters.notices.copy().items()])
