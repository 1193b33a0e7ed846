"""Dispatch: each due run is decided, rendered, and claimed together with its message."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from itertools import tee
from typing import NamedTuple

import msgspec
from msgspec import structs

from beatd.beat.delivery import Delivery
from beatd.beat.dispatch_log import DispatchLog
from beatd.beat.heap import DueRuns
from beatd.beat.held import Held
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.run_traces import RunTraces
from beatd.beat.term import Term
from beatd.clock import Clock
from beatd.exceptions import BrokerRefused, MessageError, StoreRefused
from beatd.metrics.counters import DaemonCounters
from beatd.model import Entry, Run
from beatd.planning.policies import HOLD, Decision, Facts, Skip, decide, decide_ahead, expires_at_ms, runtime_ms
from beatd.store import history
from beatd.store.claims import DROPPED, Claim, Claimed, Claims, Gap, Refusal
from beatd.store.entry_state import Running

log = logging.getLogger("beatd.beat.dispatcher")

BATCH = 500
"""Runs claimed in one call of the store: keeps it busy for less than 10 ms."""

FIRST_BATCH = 50
"""Runs in the first batch of a herd; each batch after it has twice as many, up to :data:`BATCH`. So the first messages
leave at once, and the store does not wait for work."""

AHEAD_BYTES = 32 << 20
"""Messages that are kept rendered ahead of their runs."""

BATCH_BYTES = 8 << 20
"""Bytes of messages in one call: some megabytes still take less time than the timeout of a connection."""

UNEXPLAINED = 16
"""Single runs in a row that the store refuses without a reason, after which the refusal concerns not the runs but the
store."""

PASSED_OVER_KEPT = 100_000
"""Entries whose missed runs are remembered as logged."""

UNSENDABLE = Decision(skip=Skip.UNSENDABLE)


class PreparedRun(msgspec.Struct, frozen=True, gc=False):
    """A run, the decision for it, and its claim. ``claim`` is ``None`` if it waits, or if its entry is held back."""

    run: Run
    decision: Decision
    claim: Claim | None = None


class Rendered(NamedTuple):
    """The message of a coming run, rendered ahead of time."""

    run: Run
    expires_ms: int | None
    message: bytes
    decision: Decision | None
    """What is decided for it, if that asks for no facts; see :func:`~beatd.planning.policies.decide_ahead`."""


class Dispatcher:
    """Claims runs and pushes their messages, in one step of the store for each batch."""

    def __init__(
        self,
        claims: Claims,
        messages: MessageBuilder,
        delivery: Delivery,
        running: Running,
        clock: Clock,
        *,
        held: Held | None = None,
        counters: DaemonCounters | None = None,
        traces: RunTraces | None = None,
    ) -> None:
        self.held = held if held is not None else Held()
        """The entries that are held back."""
        self._claims = claims
        self._messages = messages
        self._delivery = delivery
        self._running = running
        self._clock = clock
        self._cells = history.Cells()
        self._list_keys: dict[int, str] = {}
        """Keys of lists by the identity of options, as looked up since a dispatch began."""
        self._ahead: dict[str, Rendered] = {}
        """Messages of runs of one coming instant, by entry."""
        self._ahead_for = self._ahead_bytes = 0
        self._passed_over: dict[str, int] = {}
        self._counters = counters or DaemonCounters()
        self.report = DispatchLog(self._counters, traces)
        """Log of runs, manual ones included; it counts them, too."""

    def prepare(self, run: Run) -> None:
        """Render the message of a coming run, and decide what can be decided ahead of time: a herd waits for less.

        Messages of one instant are kept at a time, of :data:`AHEAD_BYTES` at most; of further runs the values of the
        entry are made ready.
        """
        if run.fire_ms != self._ahead_for:
            self._ahead.clear()
            self._ahead_for, self._ahead_bytes = run.fire_ms, 0
        with contextlib.suppress(Exception):  # logged when it is due
            if self._ahead_bytes >= AHEAD_BYTES or self._messages.begins_traces:
                self._messages.make_ready(run.entry)
                return
            expires_ms = expires_at_ms(run)
            message = self._messages.render(run, expires_ms)
            decision = None if self._messages.address_of(run.entry).exchange else decide_ahead(run)
            self._ahead[run.entry.name] = Rendered(run, expires_ms, message, decision)
            self._ahead_bytes += len(message)

    def forget(self, names: Collection[str]) -> None:
        """Forget what is kept of entries that have left the schedule."""
        self._messages.forget(names)
        for name in names:
            self._ahead.pop(name, None)
            self._passed_over.pop(name, None)

    def pass_over(self, gaps: Sequence[Gap], term: Term) -> None:
        """Record and log what catch-up leaves out, before the first run after it is claimed.

        A gap grows while nothing can be claimed after it: that is not logged again.
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

    def dispatch(self, runs: DueRuns, term: Term, *, until: float) -> Iterator[Sequence[Decision]]:
        """Send what is to be sent; yields the decisions for the runs of each batch, when the store has it.

        No batch is prepared after ``until`` (monotonic seconds) but the first: the runs that are left are due again.

        1. Fetch the facts that policies ask about. 2. Prepare the runs in batches: decide, render the message, make the
        claim. 3. Claim each batch: one step of the store, which works on it while the next one is prepared. 4. Settle
        it: log what was sent, hold back the entries of what was refused or cannot be sent. If the store refuses a batch
        as a whole: 5. Claim in parts.

        Raises a :class:`~beatd.exceptions.StoreError` or :class:`~beatd.exceptions.BrokerError` that concerns all runs
        that are left; the same runs may then be dispatched again: what was claimed already is left out.
        """
        started = self._clock.monotonic()
        facts = self._facts(runs)
        to_claim, unsettled = tee(self._batches(runs, facts, until))  # `unsettled` keeps those under way
        results = self._claims.claim(map(_claims_of, to_claim), lease_value=term.lease_value)
        try:
            for claimed, batch in zip(results, unsettled, strict=True):
                yield _decisions(batch, self._settle(batch, claimed))
        except StoreRefused:
            self._claims.verify_term(lease_value=term.lease_value)  # which says so if it refuses all of them
            yield from self._claim_in_parts(unsettled, term)
        self._counters.claims.observe(self._clock.monotonic() - started)

    def _batches(self, runs: Iterable[Run], facts: Facts, until: float) -> Iterator[list[PreparedRun]]:
        """Prepare the runs in batches that keep the store busy for moments only."""
        batch: list[PreparedRun] = []
        now_ms, size, most = self._clock.now_ms(), 0, FIRST_BATCH
        self._list_keys.clear()
        for run in runs:
            prepared = self._prepare_run(run, facts, now_ms)
            batch.append(prepared)
            size += len(prepared.claim.message) if prepared.claim is not None else 0
            if prepared.claim is not None and prepared.decision.passed_ms is not None:
                batch.append(_dropped(run, prepared.decision.passed_ms, now_ms))
            if len(batch) >= most or size >= BATCH_BYTES:
                yield batch
                if self._clock.monotonic() >= until:
                    return
                batch, now_ms, size, most = [], self._clock.now_ms(), 0, min(2 * most, BATCH)
        if batch:
            yield batch

    def _prepare_run(self, run: Run, facts: Facts, now_ms: int) -> PreparedRun:
        """Decide about a run and make its claim; if that fails, its entry is held back."""
        try:
            ahead = self._ahead.pop(run.entry.name, None)
            if ahead is None or not _is_same_run(ahead.run, run):
                return self._decide(run, facts, now_ms)
            decision, expires_ms = ahead.decision, ahead.expires_ms
            if decision is None or facts.depths or (expires_ms is not None and expires_ms <= facts.now_ms):
                return self._decide(run, facts, now_ms, ahead)
            return self._prepared(run, decision, ahead.message, now_ms)
        except Exception as error:  # noqa: BLE001 - whatever an entry raises concerns that entry only
            self.held.hold(run.entry.name, error, now_ms, by_run=True)
            return PreparedRun(run, HOLD)

    def _decide(self, run: Run, facts: Facts, now_ms: int, ahead: Rendered | None = None) -> PreparedRun:
        if facts.failed and (error := facts.failed.get(run.entry.name)):
            raise error
        queue = self._messages.queue_of(run.entry)
        decision = decide(run, queue, facts)
        if decision.retry_ms is not None:
            return PreparedRun(run, decision)
        if decision.skip is not None:
            return PreparedRun(run, decision, _skip_claim(run, decision.skip, now_ms))
        minds_overlap = run.entry.policies.overlap != "allow"
        running = f"{run.id} {facts.now_ms + runtime_ms(run.entry)}" if minds_overlap else ""
        try:
            if ahead is not None and ahead.expires_ms == decision.expires_ms:
                message = ahead.message
            else:
                message = self._messages.render(run, decision.expires_ms)
            prepared = self._prepared(run, decision, message, now_ms, running)
        except MessageError as error:
            self.report.unsendable(run, error)
            return PreparedRun(run, UNSENDABLE, _skip_claim(run, Skip.UNSENDABLE, now_ms))
        if queue in facts.depths:
            facts.depths[queue] += 1
        return prepared

    def _prepared(self, run: Run, decision: Decision, message: bytes, now_ms: int, running: str = "") -> PreparedRun:
        """A run that is sent, with the claim that pushes its message."""
        entry = run.entry
        options = entry.options
        key = self._list_keys.get(id(options))
        if key is None:
            key = self._delivery.list_key(self._messages.address_of(entry), options.priority)
            self._list_keys[id(options)] = key
        cell = self._cells.sent(run.due_ms, run.fire_ms, now_ms)
        return PreparedRun(run, decision, Claim(entry.name, run.due_ms, key, message, running, cell))

    def _settle(self, batch: Sequence[PreparedRun], claimed: Claimed) -> dict[str, Decision]:
        """Take over the result of a batch: log and count its runs, and hold back the entries of those refused.

        Returns the decisions that the result has changed, by entry.
        """
        now_ms = self._clock.now_ms()
        changed: dict[str, Decision] = {}
        claims = taken = [prepared for prepared in batch if prepared.claim is not None]
        refused = frozenset[int]()
        for refusal in claimed.refusals:
            refused |= frozenset(refusal.numbers)
            for number in refusal.numbers:
                name = claims[number].run.entry.name
                changed[name] = HOLD
                self.held.hold_for(name, refusal.reason, now_ms, cause=refusal.key)
        if claimed.left_out or refused:
            before = [claims[number].run for number in claimed.left_out - refused]
            self.report.claimed_before(before)
            prepared_for = {prepared.run.entry.name: prepared.decision for prepared in reversed(batch)}
            for run in before:
                decision = prepared_for[run.entry.name]
                changed[run.entry.name] = structs.replace(decision, claimed_before=True, passed_ms=None)
            left_out = claimed.left_out | refused
            taken = [prepared for number, prepared in enumerate(claims) if number not in left_out]
        if sent := [prepared.run for prepared in taken if prepared.decision.skip is None]:
            self.report.claimed(sent, now_ms)
            self._delivery.claimed(sent, self.report, now_ms)
        for prepared in taken:
            if prepared.decision.skip is not None:
                self.report.skipped(prepared.run, prepared.decision.skip)
        if len(self.held):
            names = (prepared.run.entry.name for number, prepared in enumerate(claims) if number not in refused)
            self.held.succeeded(names, now_ms)
        return changed

    def _claim_in_parts(self, batches: Iterable[list[PreparedRun]], term: Term) -> Iterator[Sequence[Decision]]:
        """The store refuses a batch, gives no reason for one run, and does not refuse everything: find out which.

        A batch that is refused is halved; what was claimed before is left out when it is claimed again.
        """
        in_a_row = 0
        for batch in batches:
            changed: dict[str, Decision] = {}
            parts = [batch]
            while parts:
                part = parts.pop()
                try:
                    for claimed in self._claims.claim([_claims_of(part)], lease_value=term.lease_value):
                        changed |= self._settle(part, claimed)
                    in_a_row = 0
                except StoreRefused as error:
                    if halves := _halves(part):
                        parts += halves
                        continue
                    in_a_row += 1
                    if in_a_row == UNEXPLAINED:
                        raise
                    refusal = Refusal(str(error), "", range(len(_claims_of(part))))
                    changed |= self._settle(part, Claimed(frozenset(), [refusal]))
            yield _decisions(batch, changed)

    def flush(self, term: Term, *, more_comes: bool = False) -> bool:
        """Bring to the broker what was claimed and is not there: by us, or by a leader before us.

        With ``more_comes`` only if it is enough for a batch: whoever says so flushes again when nothing more comes.
        Returns whether all of it is there now; raises a :class:`~beatd.exceptions.StoreError` or
        :class:`~beatd.exceptions.BrokerError`.
        """
        return self._delivery.flush(term, self.report, more_comes=more_comes)

    def _facts(self, runs: DueRuns) -> Facts:
        """Fetch the facts that policies ask about, once for all of the runs; none for most schedules."""
        now_ms = self._clock.now_ms()
        asking: dict[str, Run] = {}  # the runs whose policies ask for unfinished ones
        runtimes: dict[str, int] = {}
        depths: dict[str, int] = {}
        failed: dict[str, Exception] = {}
        unfinished: Container[str] = ()
        for number, entry in enumerate(runs.entries):
            try:
                policies = entry.policies
                if policies.overlap != "allow":
                    runtimes[entry.name], asking[entry.name] = runtime_ms(entry), runs[number]
                if policies.max_queue_depth is not None:
                    self._ask_depth(entry, depths)
            except (BrokerRefused, AttributeError, TypeError, ValueError) as error:  # or an entry that is none
                failed[entry.name] = error
        try:
            found = self._running.unfinished(runtimes, now_ms=now_ms) if runtimes else {}
            # a run that was claimed, and the answer lost, does not wait for itself
            unfinished = {name for name, one in found.items() if one.run_id != asking[name].id}
        except StoreRefused as error:
            failed.update(dict.fromkeys(runtimes, error))
        return Facts(now_ms, unfinished, depths, failed)

    def _ask_depth(self, entry: Entry, depths: dict[str, int]) -> None:
        queue = self._messages.queue_of(entry)
        if queue not in depths:
            depths[queue] = self._delivery.depth(queue)


def _is_same_run(one: Run, other: Run) -> bool:
    """True for the same run of the very same entry: an equal one may have true where that has 1."""
    return one.entry is other.entry and one == other


def _claims_of(batch: Sequence[PreparedRun]) -> list[Claim]:
    return [prepared.claim for prepared in batch if prepared.claim is not None]


def _decisions(batch: Sequence[PreparedRun], changed: Mapping[str, Decision]) -> list[Decision]:
    """The decisions for the runs of a batch, each once, though one that drops others has two claims."""
    of_runs = [one for one in batch if one.claim is None or one.claim.running != DROPPED]
    if not changed:
        return [one.decision for one in of_runs]
    return [changed.get(one.run.entry.name, one.decision) for one in of_runs]


def _halves(batch: Sequence[PreparedRun]) -> list[list[PreparedRun]]:
    """The batch in two parts, the second one first, with all claims of an entry in one; empty if it has one entry."""
    names = list(dict.fromkeys(claim.name for claim in _claims_of(batch)))
    if len(names) < 2:
        return []
    second = frozenset(names[len(names) // 2 :])
    parts: tuple[list[PreparedRun], list[PreparedRun]] = [], []
    for prepared in batch:
        parts[prepared.run.entry.name not in second].append(prepared)
    return [*parts]


def _skip_claim(run: Run, skip: Skip, now_ms: int) -> Claim:
    """The claim of a run that is not sent: it moves last due, and notes the reason in the history."""
    cell = history.skipped(skip.value, run.due_ms, run.fire_ms, now_ms)
    return Claim(run.entry.name, run.due_ms, record=cell)


def _dropped(run: Run, passed_ms: int, now_ms: int) -> PreparedRun:
    """The last of the runs that are dropped with a run that had waited for long: its claim covers all of them.

    If that run was claimed before, they did not come due while it waited, and are not dropped.
    """
    last = structs.replace(run, due_ms=passed_ms, fire_ms=passed_ms)
    claim = structs.replace(_skip_claim(last, Skip.OVERLAP, now_ms), running=DROPPED)
    return PreparedRun(last, Decision(skip=Skip.OVERLAP), claim)
