"""Metrics and health of the daemon's process.

Alive: the loop makes progress, or the process waits for its state store, which no restart would bring back. Ready: the
store answers, and the daemon is a standby or sends its runs in time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric

import beatd
from beatd.beat.daemon_status import DaemonParts
from beatd.beat.term import Leadership
from beatd.clock import Clock
from beatd.exceptions import StoreError
from beatd.metrics.counters import DaemonCounters, EntryLimit
from beatd.metrics.families import family, gauge, text
from beatd.schedules import duration_text
from beatd.store.daemon_registry import LATE_MS, Status

HUNG_MS = 60_000
"""A loop without progress for longer than this hangs."""
_SHARED_S = 1.0
"""Time for which an answer of the store is used again."""


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
        self._outboxes: Sequence[int] | StoreError = ()
        self._asked_at: float | None = None

    def attach(self, parts: DaemonParts) -> None:
        """Tell of this daemon from now on."""
        self._parts = parts

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return text(self._families(), self._process)

    def unhealthy(self) -> Sequence[str]:
        """Return the reason if the loop hangs."""
        status = self._parts.status.status() if self._parts else None
        if status is None or (status.turned_ms_ago or 0) <= HUNG_MS:
            return ()
        return (f"the loop has made no progress for {duration_text(status.turned_ms_ago or 0)}",)

    def unready(self) -> Sequence[str]:
        """Return the reasons why this daemon could not send runs now."""
        if self._parts is None:
            return (self._waiting_for() or "the daemon starts",)
        return (*self.unhealthy(), *self._blocked(self._parts))

    def _blocked(self, parts: DaemonParts) -> Iterator[str]:
        outboxes = self._ask(parts)
        if isinstance(outboxes, StoreError):
            yield str(outboxes)
        status = parts.status.status()
        if max(status.problem_ms, status.late_ms) > LATE_MS:
            reason = status.problem or "see its log"
            yield f"runs are {duration_text(max(status.late_ms, status.problem_ms))} late: {reason}"
        if status.read_ms_ago is None:
            yield "the entries and pauses in the state store have not been read yet"

    def _families(self) -> Iterator[Metric]:
        yield family("beatd_build_info", [((beatd.__version__,), 1)])
        yield gauge("beatd_daemon_ready", int(not self.unready()))
        parts = self._parts
        outboxes = self._ask(parts) if parts else StoreError("not reached yet")
        yield gauge("beatd_store_up", int(not isinstance(outboxes, StoreError)))
        if parts is None:
            return
        yield from _status_families(parts.status.status())
        yield from _leadership_families(parts.leaderships)
        if not isinstance(outboxes, StoreError):
            led = {leadership.shard for leadership in parts.leaderships if leadership.term() is not None}
            lengths = [((str(shard),), length) for shard, length in enumerate(outboxes) if shard in led]
            yield family("beatd_outbox_length", lengths)
        yield from _counter_families(parts.counters, self._limit)

    def _ask(self, parts: DaemonParts) -> Sequence[int] | StoreError:
        """Return the lengths of the outboxes, at most a second old, or why the store does not say."""
        with self._lock:
            now = self._clock.monotonic()
            if self._asked_at is None or now - self._asked_at > _SHARED_S:
                try:
                    self._outboxes = parts.registry.outboxes(shards=len(parts.leaderships))
                except StoreError as error:
                    self._outboxes = error.with_traceback(None)
                self._asked_at = self._clock.monotonic()
            return self._outboxes


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
