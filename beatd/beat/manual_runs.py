"""Manual runs: runs that people ask for (triggers, backfills), sent between the regular runs of a shard.

They do not move last due: the regular schedule is unaffected. Each step for a request is one step of the store, so that
a leader that dies leaves the rest of it to the next, and nothing is sent twice.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import structs

from beatd.beat.backfill import BackfillJob
from beatd.beat.manual_dispatch import ManualDispatcher
from beatd.beat.term import Term
from beatd.clock import Backoff
from beatd.exceptions import (
    BrokerError,
    BrokerRefused,
    MessageError,
    StoreError,
    StoreRefused,
    StoreRolledBack,
    StoreUnavailable,
    TermLost,
)
from beatd.message import json_codec
from beatd.model import Entry, Run, manual_run_id
from beatd.planning.timeline import timeline
from beatd.store import history
from beatd.store.entry_state import DispatchLookup
from beatd.store.run_requests import PendingRequest, RequestReply, Step, Trigger

log = logging.getLogger("beatd.beat.manual")

LOOK_S = 5.0
"""Seconds between two looks for requests without a notification."""

AT_ONCE = 50
"""Triggers carried out in one turn: each takes about a millisecond, and regular runs are not to wait for more."""

FindEntry = Callable[[str], Entry | None]
"""Function from a name to the entry in force, None if there is none."""


class ManualRuns:
    """The requests for one shard's entries, while this daemon leads it. ``owns`` is true for their names."""

    def __init__(
        self, dispatcher: ManualDispatcher, dispatched: DispatchLookup, *, owns: Callable[[str], bool]
    ) -> None:
        self._dispatcher = dispatcher
        self._dispatched = dispatched
        self._owns = owns
        self._term = 0
        self._look_at = 0.0
        self._backoff = Backoff(LOOK_S, LOOK_S)
        self._triggers: deque[tuple[PendingRequest, Trigger]] = deque()
        self._jobs: deque[BackfillJob] = deque()

    def look_at_next_turn(self) -> None:
        """Look for requests at the next turn. May be called from any thread."""
        self._look_at = 0.0

    def turn(self, term: Term, find_entry: FindEntry) -> float:
        """Send requested runs, some at a time; returns the seconds until there is more to do.

        Raises what ends a turn of the beat: a term that is over, a store or broker that is away. Then what was under
        way is looked up again.
        """
        now = self._dispatcher.clock.monotonic()
        try:
            if term.token != self._term:
                self._forget(term.token)
            if now >= self._look_at:
                self._look_at = now + LOOK_S
                self._look()
                self._backoff.succeeded()
            self._trigger_some(term, find_entry)
            self._step_backfill(term, find_entry)
        except StoreRefused as error:  # a key of another type, say: no reason to keep regular runs waiting
            self._forget(term.token)
            self._look_at = now + LOOK_S
            self._backoff.failed()
            text = "%s; runs that are asked for wait"
            log.log(self._backoff.level, text, error, extra={"event": "requests_unreadable"})
        except (StoreError, BrokerError):
            self._forget(0)
            raise
        if self._triggers:
            return 0.0
        pauses = [job.pause() for job in self._jobs]
        return max(min([*pauses, self._look_at - self._dispatcher.clock.monotonic()]), 0.0)

    def _forget(self, token: int) -> None:
        """Drop what is known of requests: another leader may have handled them meanwhile."""
        self._term, self._look_at = token, 0.0
        self._triggers.clear()
        self._jobs.clear()

    def _look(self) -> None:
        """Read the requests that wait."""
        requests = self._dispatcher.requests.open()
        pending = {request.id: request for request in requests if self._owns(request.request.entry)}
        jobs = {job.pending.id: job for job in self._jobs}
        for request_id in jobs.keys() - pending.keys():
            jobs.pop(request_id).end()
        self._triggers.clear()
        for request_id, request in pending.items():
            if isinstance(request.request, Trigger):
                self._triggers.append((request, request.request))
            elif request_id not in jobs:
                jobs[request_id] = BackfillJob(request, request.request, self._dispatcher, self._dispatched)
        self._jobs = deque(jobs.values())

    def _trigger_some(self, term: Term, find_entry: FindEntry) -> None:
        for _ in range(min(len(self._triggers), AT_ONCE)):
            pending, request = self._triggers.popleft()
            with self._isolated(pending, term):
                self._trigger(pending, request, term, find_entry)

    def _step_backfill(self, term: Term, find_entry: FindEntry) -> None:
        """Take one step of the first backfill in line that has something to do; it goes to the end of the line."""
        job = next((job for job in self._jobs if job.pause() <= 0), None)
        if job is not None:
            self._jobs.remove(job)
            with self._isolated(job.pending, term):
                job.turn(term, find_entry)
                if not job.over:
                    self._jobs.append(job)

    @contextmanager
    def _isolated(self, pending: PendingRequest, term: Term) -> Iterator[None]:
        """Refuse a request that raises: it stops neither other requests nor regular runs."""
        try:
            yield
        except (MessageError, StoreRefused, BrokerRefused) as error:
            self._dispatcher.refuse(pending, str(error), term)
        except (TermLost, StoreUnavailable, StoreRolledBack, BrokerError):
            raise
        except Exception:
            log.exception("Request %s failed", pending.id, extra={"event": "request_failed", "request": pending.id})
            self._dispatcher.refuse(pending, "the daemon failed at it; its log says why", term)

    def _trigger(self, pending: PendingRequest, request: Trigger, term: Term, find_entry: FindEntry) -> None:
        entry = find_entry(request.entry)
        if entry is None:
            self._dispatcher.refuse(pending, f'there is no entry "{request.entry}"', term, unknown=True)
            return
        now_ms, run_id = self._dispatcher.clock.now_ms(), manual_run_id(entry.name, pending.id)
        run = Run(_changed(entry, request), now_ms, now_ms, timeline(entry, now_ms), run_id)
        cells = history.by_hand(history.TRIGGERED, now_ms, now_ms, run_id)
        load = self._dispatcher.load([(run, cells)], now_ms, minds_overlap=entry.policies.overlap != "allow")
        extra = {
            "event": "run_triggered",
            "entry": entry.name,
            "run_id": run_id,
            "request": pending.id,
            "by": request.by,
        }
        log.info("%s is triggered%s", entry.name, f" by {request.by}" if request.by else "", extra=extra)
        answer = RequestReply(state="done", entry=entry.name, run_id=run_id, total=1, sent=1)
        step = Step(answer, None, load.messages, load.queue, load.running, "triggered")
        self._dispatcher.send(pending, step, [run], term, now_ms)


def _changed(entry: Entry, request: Trigger) -> Entry:
    """Return the entry with the arguments of the request in place of its own."""
    options = entry.options
    if request.queue is not None:
        options = structs.replace(options, queue=request.queue, exchange=None, routing_key=None)
    return structs.replace(
        entry,
        args=entry.args if request.args is None else tuple(json_codec.loads(request.args.encode())),
        kwargs=entry.kwargs if request.kwargs is None else json_codec.loads(request.kwargs.encode()),
        options=options,
    )
