"""Dispatch of manual runs: their messages, their list, and the log of them. One dispatcher for all of a shard."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import structs

from beatd.beat.delivery import Delivery
from beatd.beat.dispatch_log import DispatchLog
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Term
from beatd.clock import Clock
from beatd.exceptions import MessageError
from beatd.model import Entry, Run
from beatd.planning.policies import manual_expires_at_ms, runtime_ms
from beatd.store.entry_state import Running
from beatd.store.run_requests import Backfill, PendingRequest, RequestReply, Requests, RunMessage, Step
from beatd.timestamps import from_ms

log = logging.getLogger("beatd.beat.manual")


class RunBatch(NamedTuple):
    """Runs of one entry that are ready to be pushed to one list. ``running`` is what overlaps are judged by."""

    messages: list[RunMessage]
    queue: str
    running: str = ""


class ManualDispatcher:
    """Renders the messages of manual runs, sends them with a step of their request, and logs that."""

    def __init__(
        self,
        requests: Requests,
        messages: MessageBuilder,
        delivery: Delivery,
        running: Running,
        *,
        report: DispatchLog,
        clock: Clock,
    ) -> None:
        self.requests = requests
        self.clock = clock
        self._messages = messages
        self._delivery = delivery
        self._running = running
        self._report = report

    def load(self, runs: Sequence[tuple[Run, bytes]], now_ms: int, *, minds_overlap: bool) -> RunBatch:
        """The messages of runs of one entry, each given with its cells of history.

        Raises :class:`~beatd.exceptions.MessageError` if none can be made, or would be expired.
        """
        entry = runs[0][0].entry
        expires_ms = manual_expires_at_ms(runs[0][0])
        if expires_ms is not None and expires_ms <= now_ms:
            raise MessageError(f"its messages expire at {from_ms(expires_ms).isoformat()}, which is past")
        messages = [RunMessage(run.id, self._messages.render(run, expires_ms), cells) for run, cells in runs]
        queue = self._delivery.list_key(self._messages.address_of(entry), entry.options.priority)
        running = f"{runs[-1][0].id} {now_ms + runtime_ms(entry)}" if minds_overlap else ""
        return RunBatch(messages, queue, running)

    def send(
        self, pending: PendingRequest, step: Step, runs: Sequence[Run], term: Term, now_ms: int
    ) -> PendingRequest | None:
        """Take a step of a request and log what was sent; returns the rest of the request."""
        written, left = self.requests.step(pending, step, lease_value=term.lease_value)
        if written and runs:
            self._report.claimed(runs, now_ms)
            self._delivery.claimed(runs, self._report, now_ms)
        return left

    def refuse(self, pending: PendingRequest, why: str, term: Term, *, unknown: bool = False) -> None:
        """Answer a request that is refused, or not carried out to its end."""
        request = pending.request
        answer = RequestReply(state="refused", entry=request.entry, message=why, unknown=unknown)
        if isinstance(request, Backfill):
            total, left_out = request.total or 0, request.left_out
            answer = structs.replace(answer, what="backfill", total=total, sent=request.sent, left_out=left_out)
        self.requests.step(pending, Step(answer), lease_value=term.lease_value)
        extra = {"event": "request_refused", "entry": request.entry, "request": pending.id, "reason": why}
        log.warning("Refused a request for %s: %s", request.entry, why, extra=extra)

    def is_unfinished(self, entry: Entry) -> bool:
        """True while the last run of an entry has not ended."""
        return bool(self._running.unfinished({entry.name: runtime_ms(entry)}, now_ms=self.clock.now_ms()))

    def room(self, entry: Entry) -> int | None:
        """Return how many more messages its queue may take; ``None``: no limit."""
        most = entry.policies.max_queue_depth
        return None if most is None else max(most - self._delivery.depth(self._messages.queue_of(entry)), 0)
