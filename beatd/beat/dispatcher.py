"""Dispatch: each due run is decided, rendered, and claimed together with its message."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from beatd.beat.delivery import Delivery
from beatd.beat.dispatch_log import DispatchLog
from beatd.beat.heap import HELD, SENT, SKIPPED, Outcome
from beatd.beat.held import Held
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Term
from beatd.clock import Clock
from beatd.exceptions import BrokerRefused, MessageError, StoreRefused
from beatd.metrics.counters import DaemonCounters
from beatd.model import Entry, Run
from beatd.planning.policies import Facts, Skip, decide, runtime_ms
from beatd.schedules import latest_ms
from beatd.store import history
from beatd.store.claims import Claim, Claimed, Claims, Gap, Refusal
from beatd.store.entry_state import Running

log = logging.getLogger("beatd.beat.dispatcher")

BATCH = 500
"""Runs claimed in one call of the store: keeps it busy for less than 10 ms."""

BATCH_BYTES = 8 << 20
"""And of their messages: a call of some megabytes still takes less time than a connection may be silent."""

UNEXPLAINED = 16
"""Runs that the store refuses one by one, without a reason of its own and with none that it takes between: then it is
not the runs."""

PASSED_OVER_KEPT = 100_000
"""Entries of which is known what was said of their missed runs."""

WAIT_MS = 500
"""How long a run that waits for the one before it is left alone before it is looked at again."""


class Judged(NamedTuple):
    """A run, what becomes of it, and its claim."""

    run: Run
    outcome: Outcome
    claim: Claim
    skip: Skip | None = None
    number: int = 0
    """Its place among the runs that are dispatched."""


class Dispatcher:
    """Claims runs and pushes their messages, in one step of the store for each batch."""

    def __init__(
        self,
        claims: Claims,
        messages: MessageBuilder,
        outlet: Delivery,
        running: Running,
        clock: Clock,
        *,
        held: Held | None = None,
        counters: DaemonCounters | None = None,
    ) -> None:
        self.held = held if held is not None else Held()
        """The entries that failed, and wait to be tried again."""
        self._claims = claims
        self._messages = messages
        self._outlet = outlet
        self._running = running
        self._clock = clock
        self._cells = history.Cells()
        self._passed_over: dict[str, int] = {}
        self._counters = counters or DaemonCounters()
        self.report = DispatchLog(self._counters)
        """What is said of runs, those that are asked for by hand among them."""

    @property
    def totals(self) -> Counter[str]:
        """Runs so far by what became of them: ``dispatched``, ``claimed_before``, or the reason of a skip."""
        return self.report.totals

    def prepare(self, entry: Entry) -> None:
        """Do ahead of time what :meth:`dispatch` would have to do first."""
        with contextlib.suppress(Exception):  # said when its run is due
            self._messages.prepare(entry)

    def pass_over(self, gaps: Sequence[Gap], term: Term) -> None:
        """Note and say what catch-up leaves out, before the first run after it is claimed.

        A gap grows while nothing can be claimed after it: that is not said again.
        """
        if gaps:
            try:
                self._claims.pass_over(gaps, lease_value=term.lease_value)
            except StoreRefused as error:  # for a clock that was ahead, and for people: no run waits for it
                self.report.gaps_unwritten(error)
            self.report.passed_over([gap for gap in gaps if self._passed_over.get(gap.name) != gap.after_ms])
            if len(self._passed_over) > PASSED_OVER_KEPT:
                self._passed_over.clear()
            self._passed_over |= {gap.name: gap.after_ms for gap in gaps}

    def dispatch(self, runs: Sequence[Run], term: Term) -> list[Outcome]:
        """Send what is to be sent; returns what became of each run. One that cannot be sent holds its entry back.

        Raises a :class:`~beatd.exceptions.StoreError` or :class:`~beatd.exceptions.BrokerError` that concerns all of
        them; the same runs may then be dispatched again: what was claimed already is left out.
        """
        started = self._clock.monotonic()
        facts = self._facts(runs)
        outcomes: list[Outcome] = []
        under_way: deque[list[Judged]] = deque()

        def batches() -> Iterator[list[Claim]]:
            for batch in self._batches(runs, facts, outcomes):
                under_way.append(batch)
                yield [one.claim for one in batch]

        try:
            for claimed in self._claims.claim(batches(), lease_value=term.lease_value):
                self._say(under_way.popleft(), claimed, outcomes)
        except StoreRefused:
            self._claims.look_back(lease_value=term.lease_value)  # which says so if it refuses all of them
            self._claim_in_parts([*under_way, *self._batches(runs, facts, outcomes)], term, outcomes)
        self._counters.claims.observe(self._clock.monotonic() - started)
        return outcomes

    def _batches(self, runs: Sequence[Run], facts: Facts, outcomes: list[Outcome]) -> Iterator[list[Judged]]:
        """Yield the claims of runs that have no outcome yet, in batches that keep the store busy for moments;
        the outcome of each run, if nothing is refused, goes to ``outcomes``."""
        while len(outcomes) < len(runs):
            batch: list[Judged] = []
            now_ms, left, spare = self._clock.now_ms(), BATCH, BATCH_BYTES
            for number in range(len(outcomes), len(runs)):
                one = self._judged(runs[number], number, facts, now_ms)
                outcomes.append(one.outcome)
                if not (one.outcome.held or one.outcome.again_ms is not None):
                    batch.append(one)
                    if one.outcome.passed_ms is not None:
                        batch.append(_dropped(one, one.outcome.passed_ms, now_ms))
                left, spare = left - 1, spare - len(one.claim.message)
                if left == 0 or spare <= 0:
                    break
            yield batch

    def _judged(self, run: Run, number: int, facts: Facts, now_ms: int) -> Judged:
        """Decide about a run; if that fails, its entry is held back."""
        try:
            return self._judge(run, number, facts, now_ms)
        except Exception as error:  # noqa: BLE001 - whatever an entry raises concerns that entry only
            self.held.hold(run.entry.name, error, now_ms, by_run=True)
            return Judged(run, HELD, Claim(run.entry.name, run.due_ms), None, number)

    def _claim_in_parts(self, batches: list[list[Judged]], term: Term, outcomes: list[Outcome]) -> None:
        """The store refuses a batch, gives no reason for one run, and does not refuse everything: find out which.

        A batch that is refused is halved; what was claimed before is left out when it is claimed again.
        """
        parts, in_a_row = batches[::-1], 0
        while parts:
            part = parts.pop()
            try:
                for claimed in self._claims.claim([[one.claim for one in part]], lease_value=term.lease_value):
                    self._say(part, claimed, outcomes)
                in_a_row = 0
            except StoreRefused as refused:
                names = list(dict.fromkeys(one.claim.name for one in part))
                if len(names) > 1:
                    first = frozenset(names[: len(names) // 2])
                    parts.append([one for one in part if one.claim.name not in first])
                    parts.append([one for one in part if one.claim.name in first])
                    continue
                in_a_row += 1
                if in_a_row == UNEXPLAINED:
                    raise
                self._hold(part, Refusal(str(refused), "", range(len(part))), outcomes)

    def flush(self, term: Term, *, more_comes: bool = False) -> bool:
        """Bring to the broker what was claimed and is not there: by us, or by a leader before us.

        With ``more_comes`` only if it is enough for a batch: whoever says so flushes again when nothing more comes.
        Returns whether all of it is there now; raises a :class:`~beatd.exceptions.StoreError` or
        :class:`~beatd.exceptions.BrokerError`.
        """
        return self._outlet.flush(term, self.report, more_comes=more_comes)

    def _facts(self, runs: Sequence[Run]) -> Facts:
        """Fetch the facts that policies ask about, once for all of the runs; none for most schedules."""
        now_ms = self._clock.now_ms()
        minding: dict[str, int] = {}
        depths: dict[str, int] = {}
        failed: dict[str, Exception] = {}
        unfinished: frozenset[str] = frozenset()
        for run in runs:
            try:
                if run.entry.policies.overlap != "allow":
                    minding[run.entry.name] = runtime_ms(run.entry)
                if run.entry.policies.max_queue_depth is not None:
                    self._ask_depth(run.entry, depths)
            except (BrokerRefused, AttributeError, TypeError, ValueError) as error:  # or an entry that is none
                failed[run.entry.name] = error
        try:
            unfinished = self._running.unfinished(minding, now_ms=now_ms) if minding else unfinished
        except StoreRefused as error:
            failed.update(dict.fromkeys(minding, error))
        return Facts(now_ms, unfinished, depths, failed)

    def _ask_depth(self, entry: Entry, depths: dict[str, int]) -> None:
        queue = self._messages.queue_of(entry)
        if queue not in depths:
            depths[queue] = self._outlet.depth(queue)

    def _judge(self, run: Run, number: int, facts: Facts, now_ms: int) -> Judged:
        """Decide about a run at ``now_ms``: send it, skip it, or let it wait."""
        entry, due_ms = run.entry, run.due_ms
        if facts.failed and (error := facts.failed.get(entry.name)):
            raise error
        queue = self._messages.queue_of(entry)
        expires_ms, skip, wait = decide(run, queue, facts)
        if wait:
            outcome = Outcome(sent=False, again_ms=facts.now_ms + WAIT_MS)
            return Judged(run, outcome, Claim(entry.name, due_ms), None, number)
        if skip is None:
            try:
                message = self._messages.render(run, expires_ms)
                key = self._outlet.list_key(self._messages.address_of(entry), entry.options.priority)
            except MessageError as error:
                self.report.unsendable(run, error)
                skip = Skip.UNSENDABLE
        if skip is not None:
            return Judged(run, SKIPPED, _left_out(run, skip, now_ms), skip, number)
        record = self._cells.sent(due_ms, run.fire_ms, now_ms)
        if queue in facts.depths:
            facts.depths[queue] += 1
        if entry.policies.overlap == "allow":
            return Judged(run, SENT, Claim(entry.name, due_ms, key, message, "", record), None, number)
        until_ms = facts.now_ms + runtime_ms(entry)
        claim = Claim(entry.name, due_ms, key, message, f"{run.id} {until_ms}", record)
        return Judged(run, _outcome_after_waiting(run, facts.now_ms), claim, None, number)

    def _say(self, judged: Sequence[Judged], claimed: Claimed, outcomes: list[Outcome]) -> None:
        left_out, refused = claimed.left_out, frozenset[int]()
        for refusal in claimed.refusals:
            refused |= frozenset(refusal.numbers)
            self._hold(judged, refusal, outcomes)
        self.report.claimed_before([judged[number].run for number in left_out - refused])
        taken = [one for number, one in enumerate(judged) if number not in left_out and number not in refused]
        now_ms = self._clock.now_ms()
        if sent := [one.run for one in taken if one.skip is None]:
            self._outlet.claimed(sent, self.report, now_ms)
        for one in taken:
            if one.skip is not None:
                self.report.skipped(one.run, one.skip)
        if len(self.held):
            self.held.succeeded((one.claim.name for n, one in enumerate(judged) if n not in refused), now_ms)

    def _hold(self, judged: Sequence[Judged], refusal: Refusal, outcomes: list[Outcome]) -> None:
        """Hold back the entries of runs that the store refuses."""
        now_ms = self._clock.now_ms()
        for one in (judged[number] for number in refusal.numbers):
            outcomes[one.number] = HELD
            self.held.hold_for(one.claim.name, refusal.reason, now_ms, cause=refusal.key)


def _outcome_after_waiting(run: Run, now_ms: int) -> Outcome:
    """Sent; and if it had waited for so long that others came due meanwhile, those are dropped: one waits, not many."""
    if run.entry.policies.overlap != "queue_one":
        return SENT
    passed_ms = latest_ms(run.timeline, after_ms=run.due_ms, until_ms=now_ms)
    return SENT if passed_ms is None else Outcome(sent=True, passed_ms=passed_ms)


def _left_out(run: Run, skip: Skip, now_ms: int) -> Claim:
    record = history.skipped(skip.value, run.due_ms, run.fire_ms, now_ms)
    return Claim(run.entry.name, run.due_ms, record=record)


def _dropped(one: Judged, passed_ms: int, now_ms: int) -> Judged:
    """The last of the runs that are dropped with a run that had waited for long: its claim covers all of them."""
    run = one.run._replace(due_ms=passed_ms, fire_ms=passed_ms)
    return Judged(run, SKIPPED, _left_out(run, Skip.OVERLAP, now_ms), Skip.OVERLAP, one.number)
