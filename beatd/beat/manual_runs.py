"""Runs that people ask for, sent between the regular ones of a shard: at once, or a past window at its own pace.

They do not move last due: the schedule does not notice them. Each step for a request is one step of the store, so that
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
"""Seconds between two looks for requests, when nobody rings."""

AT_ONCE = 50
"""Triggers carried out in one turn: each takes about a millisecond, and regular runs are not to wait for more."""

InForce = Callable[[str], Entry | None]
"""The entry of a name, as it is in force."""


class ManualRuns:
    """The requests for one shard's entries, while this daemon leads it. ``owns`` tells which entries these are."""

    def __init__(self, courier: ManualDispatcher, dispatched: DispatchLookup, *, owns: Callable[[str], bool]) -> None:
        self._courier = courier
        self._dispatched = dispatched
        self._owns = owns
        self._term = 0
        self._look_at = 0.0
        self._triggers: deque[tuple[PendingRequest, Trigger]] = deque()
        self._fillings: deque[BackfillJob] = deque()

    def ring(self) -> None:
        """There is a request: look at the next turn. May be called from any thread."""
        self._look_at = 0.0

    def turn(self, term: Term, entry: InForce) -> float:
        """Send what was asked for, or some of it; returns the seconds until there is more to do.

        Raises what ends a turn of the beat: a term that is over, a store or broker that is away. Then what was under
        way is looked up again.
        """
        now = self._courier.clock.monotonic()
        try:
            if term.token != self._term:
                self._forget(term.token)
            if now >= self._look_at:
                self._look_at = now + LOOK_S
                self._look()
            self._trigger_some(term, entry)
            self._fill(term, entry)
        except StoreRefused as error:  # a key of another type, say: no reason to keep regular runs waiting
            self._forget(term.token)
            self._look_at = now + LOOK_S
            log.warning("%s; runs that are asked for wait", error, extra={"event": "requests_unreadable"})
        except (StoreError, BrokerError):
            self._forget(0)
            raise
        if self._triggers:
            return 0.0
        pauses = [filling.pause() for filling in self._fillings]
        return max(min([*pauses, self._look_at - self._courier.clock.monotonic()]), 0.0)

    def _forget(self, token: int) -> None:
        """Drop what is known of requests: another leader may have handled them meanwhile."""
        self._term, self._look_at = token, 0.0
        self._triggers.clear()
        self._fillings.clear()

    def _look(self) -> None:
        """See what is asked for now."""
        asked = {one.id: one for one in self._courier.requests.open() if self._owns(one.request.entry)}
        known = {filling.asked.id: filling for filling in self._fillings}
        for name in known.keys() - asked.keys():
            known.pop(name).end()
        self._triggers.clear()
        for name, one in asked.items():
            if isinstance(one.request, Trigger):
                self._triggers.append((one, one.request))
            elif name not in known:
                known[name] = BackfillJob(one, one.request, self._courier, self._dispatched)
        self._fillings = deque(known.values())

    def _trigger_some(self, term: Term, entry: InForce) -> None:
        for _ in range(min(len(self._triggers), AT_ONCE)):
            asked, request = self._triggers.popleft()
            with self._guarding(asked, term):
                self._trigger(asked, request, term, entry)

    def _fill(self, term: Term, entry: InForce) -> None:
        """One step for the first window in line that has something to do; it goes to the end."""
        filling = next((filling for filling in self._fillings if filling.pause() <= 0), None)
        if filling is not None:
            self._fillings.remove(filling)
            with self._guarding(filling.asked, term):
                filling.turn(term, entry)
                if not filling.over:
                    self._fillings.append(filling)

    @contextmanager
    def _guarding(self, asked: PendingRequest, term: Term) -> Iterator[None]:
        """Whatever is wrong with one request stops neither the others nor regular runs: it is refused."""
        try:
            yield
        except (MessageError, StoreRefused, BrokerRefused) as error:
            self._courier.refuse(asked, str(error), term)
        except (TermLost, StoreUnavailable, StoreRolledBack, BrokerError):
            raise
        except Exception:
            log.exception("Request %s failed", asked.id, extra={"event": "request_failed", "request": asked.id})
            self._courier.refuse(asked, "the daemon failed at it; its log says why", term)

    def _trigger(self, asked: PendingRequest, request: Trigger, term: Term, entry: InForce) -> None:
        known = entry(request.entry)
        if known is None:
            self._courier.refuse(asked, f'there is no entry "{request.entry}"', term, unknown=True)
            return
        now_ms, run_id = self._courier.clock.now_ms(), manual_run_id(known.name, asked.id)
        run = Run(_changed(known, request), now_ms, now_ms, timeline(known, now_ms), run_id)
        cells = history.by_hand(history.TRIGGERED, now_ms, now_ms, run_id)
        load = self._courier.load([(run, cells)], now_ms, minds_overlap=known.policies.overlap != "allow")
        extra = {"event": "run_triggered", "entry": known.name, "run_id": run_id, "request": asked.id, "by": request.by}
        log.info("%s is triggered%s", known.name, f" by {request.by}" if request.by else "", extra=extra)
        answer = RequestReply(state="done", entry=known.name, run_id=run_id, total=1, sent=1)
        step = Step(answer, None, load.messages, load.queue, load.running, "triggered")
        self._courier.send(asked, step, [run], term, now_ms)


def _changed(entry: Entry, request: Trigger) -> Entry:
    """The entry with what the request has in its place."""
    options = entry.options
    if request.queue is not None:
        options = structs.replace(options, queue=request.queue, exchange=None, routing_key=None)
    return structs.replace(
        entry,
        args=entry.args if request.args is None else tuple(json_codec.loads(request.args.encode())),
        kwargs=entry.kwargs if request.kwargs is None else json_codec.loads(request.kwargs.encode()),
        options=options,
    )
