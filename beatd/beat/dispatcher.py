"""How runs leave: each is judged, rendered, and claimed together with its message."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from beatd.beat.heap import SENT, SKIPPED, Outcome
from beatd.beat.messages import Messages
from beatd.beat.outlet import Outlet
from beatd.beat.report import Report
from beatd.beat.seat import Term
from beatd.beat.verdict import Facts, Skip, judge, runtime_ms
from beatd.clock import Clock
from beatd.exceptions import MessageError
from beatd.model import Entry, Run
from beatd.schedules import latest_ms
from beatd.store import records
from beatd.store.claims import Claim, Claims, Gap
from beatd.store.running import Running

log = logging.getLogger("beatd.beat.dispatcher")

BATCH = 500
"""Runs claimed in one call of the store: keeps it busy for less than 10 ms."""

WAIT_MS = 500
"""How long a run that waits for the one before it is left alone before it is looked at again."""


class Judged(NamedTuple):
    """A run, what becomes of it, and its claim."""

    run: Run
    outcome: Outcome
    claim: Claim
    skip: Skip | None = None


class Dispatcher:
    """Claims runs and pushes their messages, in one step of the store for each batch."""

    def __init__(self, claims: Claims, messages: Messages, outlet: Outlet, running: Running, clock: Clock) -> None:
        self._claims = claims
        self._messages = messages
        self._outlet = outlet
        self._running = running
        self._clock = clock
        self._cells = records.Cells()
        self.report = Report()
        """What is said of runs, those that are asked for by hand among them."""

    @property
    def totals(self) -> Counter[str]:
        """Runs so far by what became of them: ``dispatched``, ``claimed_before``, or the reason of a skip."""
        return self.report.totals

    def prepare(self, entry: Entry) -> None:
        """Do ahead of time what :meth:`dispatch` would have to do first."""
        with contextlib.suppress(MessageError):  # said when its run is due
            self._messages.prepare(entry)

    def pass_over(self, gaps: Sequence[Gap], term: Term) -> None:
        """Note and say what catch-up leaves out, before the first run after it is claimed."""
        if gaps:
            self._claims.pass_over(gaps, lease_value=term.lease_value)
            self.report.passed_over(gaps)

    def dispatch(self, runs: Sequence[Run], term: Term) -> list[Outcome]:
        """Send what is to be sent; returns what became of each run.

        Raises a :class:`~beatd.exceptions.StoreError` or :class:`~beatd.exceptions.BrokerError`; the same runs may then
        be dispatched again: what was claimed already is left out.
        """
        facts = self._facts(runs)
        outcomes: list[Outcome] = []
        under_way: deque[list[Judged]] = deque()

        def batches() -> Iterator[list[Claim]]:
            for start in range(0, len(runs), BATCH):
                now_ms = self._clock.now_ms()
                judged = [self._judge(run, facts, now_ms) for run in runs[start : start + BATCH]]
                outcomes.extend([one.outcome for one in judged])
                under_way.append(_to_be_claimed(judged, now_ms))
                yield [one.claim for one in under_way[-1]]

        for left_out in self._claims.claim(batches(), lease_value=term.lease_value):
            self._say(under_way.popleft(), left_out)
        return outcomes

    def flush(self, term: Term, *, more_comes: bool = False) -> bool:
        """Bring to the broker what was claimed and is not there: by us, or by a leader before us.

        With ``more_comes`` only if it is enough for a batch: whoever says so flushes again when nothing more comes.
        Returns whether all of it is there now; raises a :class:`~beatd.exceptions.StoreError` or
        :class:`~beatd.exceptions.BrokerError`.
        """
        return self._outlet.flush(term, self.report, more_comes=more_comes)

    def _facts(self, runs: Sequence[Run]) -> Facts:
        """What policies ask about, fetched once for all of the runs; nothing for most schedules."""
        now_ms = self._clock.now_ms()
        minding = {run.entry.name: runtime_ms(run.entry) for run in runs if run.entry.policies.overlap != "allow"}
        unfinished = self._running.unfinished(minding, now_ms=now_ms) if minding else frozenset()
        bounded = {self._messages.queue_of(run.entry) for run in runs if run.entry.policies.max_queue_depth is not None}
        return Facts(now_ms, unfinished, {queue: self._outlet.depth(queue) for queue in bounded})

    def _judge(self, run: Run, facts: Facts, now_ms: int) -> Judged:
        """What becomes of the run; ``now_ms`` is when that is done."""
        entry, due_ms = run.entry, run.due_ms
        queue = self._messages.queue_of(entry)
        expires_ms, skip, wait = judge(run, queue, facts)
        if wait:
            return Judged(run, Outcome(sent=False, again_ms=facts.now_ms + WAIT_MS), Claim(entry.name, due_ms))
        if skip is None:
            try:
                message = self._messages.render(run, expires_ms)
                key = self._outlet.list_key(self._messages.address_of(entry), entry.options.priority)
            except MessageError as error:
                self.report.unsendable(run, error)
                skip = Skip.UNSENDABLE
        if skip is not None:
            return Judged(run, SKIPPED, _left_out(run, skip, now_ms), skip)
        record = self._cells.sent(due_ms, run.fire_ms, now_ms)
        if queue in facts.depths:
            facts.depths[queue] += 1
        if entry.policies.overlap == "allow":
            return Judged(run, SENT, Claim(entry.name, due_ms, key, message, "", record))
        until_ms = facts.now_ms + runtime_ms(entry)
        claim = Claim(entry.name, due_ms, key, message, f"{run.id} {until_ms}", record)
        return Judged(run, _outcome_after_waiting(run, facts.now_ms), claim)

    def _say(self, judged: Sequence[Judged], left_out: frozenset[int]) -> None:
        self.report.claimed_before([judged[number].run for number in left_out])
        claimed = [one for number, one in enumerate(judged) if number not in left_out]
        if sent := [one.run for one in claimed if one.skip is None]:
            self._outlet.claimed(sent, self.report, self._clock.now_ms())
        for one in claimed:
            if one.skip is not None:
                self.report.skipped(one.run, one.skip)


def _outcome_after_waiting(run: Run, now_ms: int) -> Outcome:
    """Sent; and if it had waited for so long that others came due meanwhile, those are dropped: one waits, not many."""
    if run.entry.policies.overlap != "queue_one":
        return SENT
    passed_ms = latest_ms(run.timeline, after_ms=run.due_ms, until_ms=now_ms)
    return SENT if passed_ms is None else Outcome(sent=True, passed_ms=passed_ms)


def _left_out(run: Run, skip: Skip, now_ms: int) -> Claim:
    record = records.skipped(skip.value, run.due_ms, run.fire_ms, now_ms)
    return Claim(run.entry.name, run.due_ms, record=record)


def _to_be_claimed(judged: Iterable[Judged], now_ms: int) -> list[Judged]:
    """All but those that wait; after each the last of the runs that are dropped with it, whose claim covers all."""
    claimed: list[Judged] = []
    for one in judged:
        if one.outcome.again_ms is not None:
            continue
        claimed.append(one)
        if (passed_ms := one.outcome.passed_ms) is not None:
            run = one.run._replace(due_ms=passed_ms, fire_ms=passed_ms)
            claimed.append(Judged(run, SKIPPED, _left_out(run, Skip.OVERLAP, now_ms), Skip.OVERLAP))
    return claimed
