"""How runs leave: each is judged, rendered, and claimed together with its message."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from beatd.beat.elector import Term
from beatd.beat.messages import Messages, expires_at_ms
from beatd.beat.outlet import Outlet
from beatd.clock import Clock, iso_ms
from beatd.exceptions import MessageError
from beatd.model import Run
from beatd.store.claims import Claim, Claims

log = logging.getLogger("beatd.beat.dispatcher")

LOGGED_ONE_BY_ONE = 10
"""Runs of a larger batch are logged as one line: a herd would spend more time on its log than on its messages."""


class Judged(NamedTuple):
    """A run and what becomes of it: sent, or skipped for a reason."""

    run: Run
    claim: Claim
    skipped: str | None


class Dispatcher:
    """Claims runs and pushes their messages, in one step of the store for a whole batch."""

    def __init__(self, claims: Claims, messages: Messages, outlet: Outlet, clock: Clock) -> None:
        self._claims = claims
        self._messages = messages
        self._outlet = outlet
        self._clock = clock
        self.totals: Counter[str] = Counter()
        """Runs so far by what became of them: ``dispatched``, ``claimed_before``, ``expired``, …"""

    def dispatch(self, runs: Sequence[Run], term: Term) -> None:
        """Send what is to be sent.

        Raises a :class:`~beatd.exceptions.StoreError` or :class:`~beatd.exceptions.BrokerError`; the same runs may then
        be dispatched again: what was claimed already is left out.
        """
        now_ms = self._clock.now_ms()
        judged = [self._judge(run, now_ms) for run in runs]
        before = self._claims.claim([one.claim for one in judged], lease_value=term.lease_value)
        self._report(judged, before)
        self._outlet.flush(term)

    def _judge(self, run: Run, now_ms: int) -> Judged:
        entry, due_ms, _ = run
        expires_ms = expires_at_ms(run)
        if expires_ms is not None and expires_ms <= now_ms:
            return Judged(run, Claim(entry.name, due_ms, None, b""), "expired")
        try:
            rendered = self._messages.render(run, expires_ms)
        except MessageError as error:
            log.warning("%s cannot be sent: %s", entry.name, error, extra={"event": "unsendable", "entry": entry.name})
            return Judged(run, Claim(entry.name, due_ms, None, b""), "unsendable")
        key = self._outlet.list_key(self._messages.queue_of(entry), entry.options.priority)
        return Judged(run, Claim(entry.name, due_ms, key, rendered), None)

    def _report(self, judged: Sequence[Judged], before: frozenset[int]) -> None:
        dispatched: list[Run] = []
        for number, one in enumerate(judged):
            if number in before:
                self.totals["claimed_before"] += 1
            elif one.skipped is not None:
                self.totals[one.skipped] += 1
                self._log_skipped(one.run, one.skipped)
            else:
                dispatched.append(one.run)
        if dispatched:
            self.totals["dispatched"] += len(dispatched)
            self._log_dispatched(dispatched)

    def _log_dispatched(self, runs: Sequence[Run]) -> None:
        now_ms = self._clock.now_ms()
        if len(runs) > LOGGED_ONE_BY_ONE:
            late_ms = now_ms - min(run.fire_ms for run in runs)
            extra = {"event": "runs_dispatched", "count": len(runs), "lateness_ms": late_ms}
            log.info("Dispatched %d runs, the first due %d ms ago", len(runs), late_ms, extra=extra)
            return
        for run in runs:
            extra = {
                "event": "run_dispatched",
                "entry": run.entry.name,
                "task": run.entry.task,
                "run_id": run.id,
                "due_at": iso_ms(run.due_ms),
                "lateness_ms": now_ms - run.fire_ms,
            }
            log.info("Dispatched %s (%s)", run.entry.name, run.entry.task, extra=extra)

    def _log_skipped(self, run: Run, reason: str) -> None:
        extra = {"event": "run_skipped", "entry": run.entry.name, "due_at": iso_ms(run.due_ms), "reason": reason}
        log.info("Skipped %s: %s", run.entry.name, reason, extra=extra)
