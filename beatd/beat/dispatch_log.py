"""Dispatch log: counters and log events of runs that were sent, skipped, refused or held back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence

from beatd.beat.run_traces import RunTraces
from beatd.broker import OutgoingMessage
from beatd.exceptions import MessageError, StoreRefused
from beatd.message.protocol import TaskMessage
from beatd.metrics.counters import MISSED, REFUSED, SENT, DaemonCounters, Outcome
from beatd.model import Run
from beatd.planning.policies import Skip
from beatd.store.claims import Gap
from beatd.timestamps import iso_ms

log = logging.getLogger("beatd.beat.dispatcher")

ONE_BY_ONE = 10
"""Runs of a larger batch are logged as one line: a herd would spend more time on its log than on its messages."""


class DispatchLog:
    """Counts and logs the outcomes of dispatch. Written by the loop; :meth:`ran_since` is for any thread."""

    def __init__(self, counters: DaemonCounters | None = None, traces: RunTraces | None = None) -> None:
        self._traces = traces
        self._counters = counters or DaemonCounters()
        self._ran: list[str] = []
        self._noting = threading.Lock()

    def ran(self, names: Iterable[str]) -> None:
        """Note entries that have had a run just now, or may have had some before this leader loaded them."""
        with self._noting:
            self._ran += names

    def ran_since(self) -> Iterable[str]:
        """Return the entries that have had runs since this was asked before, the earliest first; one may come twice."""
        with self._noting:
            names, self._ran = self._ran, []
        return names

    def claimed(self, runs: Sequence[Run], now_ms: int) -> None:
        """Note runs that were just claimed, with their messages."""
        self.ran([run.entry.name for run in runs])
        if self._traces is not None:
            self._traces.claimed(runs, now_ms)

    def dispatched(self, runs: Sequence[Run], now_ms: int) -> None:
        """Log runs whose messages have just left."""
        if self._traces is not None:
            self._traces.published(runs, now_ms)
        self._counters.sent([run.entry.name for run in runs], [now_ms - run.fire_ms for run in runs])
        if not log.isEnabledFor(logging.INFO):
            return
        if len(runs) > ONE_BY_ONE:
            late_ms = now_ms - min(run.fire_ms for run in runs)
            extra = {"event": "runs_dispatched", "count": len(runs), "lateness_ms": late_ms}
            log.info("Dispatched %d runs", len(runs), extra=extra)
            return
        for run in runs:
            extra = _about(run) | {"event": "run_dispatched", "lateness_ms": now_ms - run.fire_ms}
            log.info("Dispatched %s (%s)", run.entry.name, run.entry.task, extra=extra)

    def left_over(self, count: int) -> None:
        """Log messages that have just left and were claimed in an earlier term, by another leader or this one."""
        self._counters.totals[SENT] += count
        extra = {"event": "leftovers_dispatched", "count": count}
        log.info("Dispatched %d runs that were claimed before and had not reached the broker", count, extra=extra)

    def expired_in_outbox(self, message: TaskMessage) -> None:
        """Log a claimed run whose message expired before the broker could be reached."""
        extra = _about_message(message) | {"event": "run_skipped", "reason": Skip.EXPIRED.value}
        self._counters.count(Outcome("skipped", Skip.EXPIRED.value), [str(extra["entry"])])
        log.info("Skipped %s: expired in the outbox", extra["entry"], extra=extra)

    def refused(self, messages: Sequence[OutgoingMessage], reason: str) -> None:
        """Log messages that the broker refuses for the same reason; they are dead letters now."""
        about = [_about_message(one.message) for one in messages]
        self._counters.count(REFUSED, [str(one["entry"]) for one in about])
        if len(messages) > ONE_BY_ONE:
            extra = {"event": "runs_refused", "count": len(messages), "reason": reason}
            text = "The broker does not take %d messages, now dead letters: %s. The first is %s"
            log.error(text, len(messages), reason, messages[0], extra=extra)
            return
        for message, ids in zip(messages, about, strict=True):
            extra = ids | {"event": "run_refused", "reason": reason}
            log.error("The broker does not take %s, now a dead letter: %s", message, reason, extra=extra)

    def corrupt(self, error: MessageError) -> None:
        """Log an element of the outbox that is no message; it is a dead letter now."""
        log.error("Found in the outbox, now a dead letter: %s", error, extra={"event": "outbox_corrupt"})

    def outbox_unreadable(self, error: StoreRefused) -> None:
        """Log that the outbox, left from a time with another broker, cannot be read."""
        extra = {"event": "outbox_unreadable"}
        log.error("%s; messages for a broker before this one stay in the outbox", error, extra=extra)

    def skipped(self, run: Run, reason: Skip) -> None:
        """Log a run that is not sent, with the reason."""
        self._counters.count(Outcome("skipped", reason.value), [run.entry.name])
        extra = _about(run) | {"event": "run_skipped", "reason": reason.value}
        log.info("Skipped %s: %s", run.entry.name, reason.value, extra=extra)

    def passed_over(self, gaps: Sequence[Gap]) -> None:
        """Log entries with missed runs that are not caught up. The runs are not counted: there may be many."""
        self._counters.count(MISSED, [gap.name for gap in gaps])
        if len(gaps) > ONE_BY_ONE:
            extra = {"event": "entries_missed_runs", "count": len(gaps), "reason": "missed"}
            log.info("%d entries missed runs that are not caught up", len(gaps), extra=extra)
            return
        for name, after_ms, before_ms, _ in gaps:
            span = {"after": iso_ms(after_ms), "before": iso_ms(before_ms)}
            extra = {"event": "runs_missed", "entry": name, "reason": "missed", **span}
            log.info("Runs of %s after %s and before %s are not caught up", name, *span.values(), extra=extra)

    def gaps_unwritten(self, error: StoreRefused) -> None:
        """Log that the store refuses to record missed runs."""
        text = "%s; missed runs are not recorded. If the clock proves to have been ahead, they are not caught up"
        log.error(text, error, extra={"event": "gaps_unwritten"})

    def claimed_before(self, runs: Sequence[Run]) -> None:
        """Log runs that had been claimed before: by another leader, or here in an attempt that seemed to fail."""
        for run in runs:
            log.debug("%s was claimed before", run.entry.name, extra=_about(run) | {"event": "run_claimed_before"})

    def unsendable(self, run: Run, error: MessageError) -> None:
        """Log a run for which no message can be made."""
        log.warning("%s cannot be sent: %s", run.entry.name, error, extra=_about(run) | {"event": "run_unsendable"})


def _about_message(message: TaskMessage) -> dict[str, object]:
    headers = message.headers
    return {"entry": headers.get("beatd-entry"), "run_id": headers.get("id"), "due_at": headers.get("beatd-due-at")}


def _about(run: Run) -> dict[str, object]:
    return {"entry": run.entry.name, "run_id": run.id, "due_at": iso_ms(run.due_ms)}
