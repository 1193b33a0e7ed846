"""Backfill: the runs of a past window, sent at a limited rate (a token bucket), so that regular runs are not delayed.

First they are counted; then each turn deals with some of them, in the order of their due times. How far it has got is
in the store, together with what was sent: the next leader goes on from there.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from msgspec import structs

from beatd.beat.manual_dispatch import ManualDispatcher, RunBatch
from beatd.beat.term import Term
from beatd.model import Entry, Overlap, Run, manual_run_id
from beatd.planning.timeline import hidden, timeline
from beatd.schedules import Schedule
from beatd.store import history
from beatd.store.entry_state import DispatchLookup, EntryPast
from beatd.store.run_requests import Backfill, PendingRequest, Reason, RequestReply, Step
from beatd.timestamps import iso_ms

log = logging.getLogger("beatd.beat.manual")

COUNTED, SENT = 2_000, 100
"""Runs counted, and sent, in one turn at most: each takes some milliseconds."""

WAIT_S = 0.2
"""Seconds between two checks whether the run before has ended, or the queue has room."""

SHOWN = 1_000
"""Runs that a dry run names."""


class BackfillJob:
    """One request for a window, in progress. It reads the store again when its entry has changed."""

    def __init__(
        self, pending: PendingRequest, request: Backfill, dispatcher: ManualDispatcher, dispatched: DispatchLookup
    ) -> None:
        self.pending = pending
        self.over = False
        self._request = request
        self._dispatcher = dispatcher
        self._dispatched = dispatched
        self._entry: Entry | None = None
        self._past = EntryPast()
        self._timeline: Schedule
        self._exhausted = False
        self._counted = 0
        self._counting: Iterator[int] = iter(())
        self._walk: Iterator[int] = iter(())
        self._ahead: deque[tuple[int, Reason | None]] = deque()
        self._shown: list[int] = []
        self._go_on_at = 0.0
        self._allowance, self._allowed_at = 1.0, dispatcher.clock.monotonic()

    def pause(self) -> float:
        """Seconds until there is something to do."""
        return self._go_on_at - self._dispatcher.clock.monotonic()

    def turn(self, term: Term, find_entry: Callable[[str], Entry | None]) -> None:
        """Take one step. Raises what :class:`~beatd.beat.manual_dispatch.ManualDispatcher` raises."""
        entry = find_entry(self._request.entry)
        if entry is None:
            self.over = True
            self._dispatcher.refuse(self.pending, f'there is no entry "{self._request.entry}"', term, unknown=True)
            return
        if entry is not self._entry:
            self._begin(entry)
        if self._request.total is None:
            self._count(entry, term)
        else:
            self._send_next(entry, term)

    def _begin(self, entry: Entry) -> None:
        self._entry, self._past = entry, self._dispatched.read_past(entry)
        self._timeline = timeline(entry, self._past.first_seen_ms)
        self._counted, self._counting = 0, self._dues(self._request.from_ms - 1)
        self._walk = self._dues(max(self._request.from_ms - 1, self._request.cursor_ms))
        self._exhausted = False
        self._ahead.clear()

    def _dues(self, after_ms: int) -> Iterator[int]:
        due_ms = self._timeline.next_after_ms(after_ms)
        while due_ms is not None and due_ms < self._request.to_ms:
            yield due_ms
            due_ms = self._timeline.next_after_ms(due_ms)

    def _count(self, entry: Entry, term: Term) -> None:
        request = self._request
        counted = sum(1 for _ in islice(self._counting, COUNTED))
        self._counted += counted
        if self._counted > request.at_most:
            self.over = True
            self._dispatcher.refuse(self.pending, f"the window holds more than {request.at_most:,} runs", term)
        elif counted < COUNTED:
            if not request.dry_run:
                self._log_begin(request)
            self._take(structs.replace(request, total=self._counted), [], entry, term)

    def _log_begin(self, request: Backfill) -> None:
        extra = {"event": "backfill_began", "entry": request.entry, "request": self.pending.id, "by": request.by}
        text, span = "Backfilling %s: %d runs from %s to %s", (iso_ms(request.from_ms), iso_ms(request.to_ms))
        log.info(text, request.entry, self._counted, *span, extra=extra | {"count": self._counted})

    def _send_next(self, entry: Entry, term: Term) -> None:
        """Send the next runs, as many as the rate allows; leave out those that have a reason to be left out."""
        if not self._ahead:
            self._look_ahead(entry)
        request, left_out = self._request, dict(self._request.left_out)
        most, busy = self._allowed(entry)
        cursor_ms, taken, sending = request.cursor_ms, 0, list[int]()
        while self._ahead:
            due_ms, reason = self._ahead[0]
            if reason is None:
                if taken == most:
                    break
                taken += 1
                reason = "overlap" if busy else None
            if reason is None:
                sending.append(due_ms)
            else:
                left_out[reason] = left_out.get(reason, 0) + 1
            cursor_ms = due_ms
            self._ahead.popleft()
        if cursor_ms > request.cursor_ms or self._is_done:
            self._allowance -= taken
            sent = request.sent + len(sending)
            changed = structs.replace(request, cursor_ms=cursor_ms, sent=sent, left_out=left_out)
            self._take(changed, sending, entry, term)

    def _allowed(self, entry: Entry) -> tuple[int, bool]:
        """Return how many runs may be handled now, and whether to skip them as the run before has not ended."""
        now, rate = self._dispatcher.clock.monotonic(), self._request.rate
        self._allowance = min(self._allowance + (now - self._allowed_at) * rate, max(rate / 10, 1.0))
        self._allowed_at = now
        if self._request.dry_run:
            return SENT, False
        if self._allowance < 1:
            self._go_on_at = now + (1 - self._allowance) / rate
            return 0, False
        room = self._dispatcher.room(entry)
        most = min(int(self._allowance), SENT if room is None else room, SENT)
        busy = self._overlap(entry) != "allow" and self._dispatcher.is_unfinished(entry)
        if most == 0 or (busy and self._overlap(entry) == "queue_one"):
            self._go_on_at = now + WAIT_S
            return 0, False
        return (most if self._overlap(entry) == "allow" else 1), busy

    def _overlap(self, entry: Entry) -> Overlap:
        return self._request.overlap or entry.policies.overlap

    @property
    def _is_done(self) -> bool:
        return self._exhausted and not self._ahead

    def _look_ahead(self, entry: Entry) -> None:
        """The next runs of the window, each with the reason to leave it out, if there is one."""
        dues = list(islice(self._walk, SENT))
        self._exhausted = len(dues) < SENT
        is_in_force, now_ms = entry.policies.enabled, self._dispatcher.clock.now_ms()
        reasons: list[Reason | None] = ["blackout" if hidden(entry, due_ms) else None for due_ms in dues]
        by_due = [self._past.reason(due_ms, comes=is_in_force or due_ms > now_ms, now_ms=now_ms) for due_ms in dues]
        for more in (self._dispatched.reasons(entry.name, dues), by_due):
            reasons = [first or second for first, second in zip(reasons, more, strict=True)]
        if self._request.force:
            reasons = [None if reason in ("dispatched", "sent_before") else reason for reason in reasons]
        self._ahead.extend(zip(dues, reasons, strict=True))

    def _take(self, request: Backfill, dues: list[int], entry: Entry, term: Term) -> None:
        """Take a step: send the runs of ``dues``, and note how far it has got."""
        self._request, now_ms = request, self._dispatcher.clock.now_ms()
        if request.dry_run:
            self._shown += dues[: SHOWN - len(self._shown)]
            if not self._is_done:
                return
        runs = [] if request.dry_run else [self._run(entry, due_ms, now_ms) for due_ms in dues]
        cells = [history.by_hand(history.BACKFILLED, run.due_ms, now_ms, run.own_id) for run in runs]
        load = RunBatch([], "")
        if runs:
            minds = self._overlap(entry) != "allow"
            load = self._dispatcher.load(list(zip(runs, cells, strict=True)), now_ms, minds_overlap=minds)
        step = Step(self._answer(), None if self._is_done else request, *load, "backfilled")
        left = self._dispatcher.send(self.pending, step, runs, term, now_ms)
        if left is None:
            self.end()
        else:
            self.pending = left

    def _run(self, entry: Entry, due_ms: int, now_ms: int) -> Run:
        own_id = manual_run_id(entry.name, f"{self.pending.id}:{due_ms}") if self._request.force else None
        return Run(entry, due_ms, now_ms, self._timeline, own_id)

    def _answer(self) -> RequestReply:
        request = self._request
        return RequestReply(
            state="done" if self._is_done else "under_way",
            entry=request.entry,
            what="backfill",
            total=request.total or 0,
            sent=request.sent,
            left_out=request.left_out,
            dues_ms=self._shown,
        )

    def end(self) -> None:
        """Log the end: it is done, or the rest was withdrawn."""
        self.over, request = True, self._request
        if not request.dry_run:
            event = "backfill_done" if self._is_done else "backfill_withdrawn"
            how = "done" if self._is_done else "withdrawn"
            extra = {"event": event, "entry": request.entry, "request": self.pending.id}
            text = "Backfill of %s %s: %d of %d runs sent"
            log.info(text, request.entry, how, request.sent, request.total, extra=extra | {"count": request.sent})
