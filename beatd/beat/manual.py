"""Runs that people ask for, sent between the regular ones of a shard: at once, or a past window at its own pace.

They do not move last due: the schedule does not notice them. Each step for a request is one step of the store, so that
a leader that dies leaves the rest of it to the next, and nothing is sent twice.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from msgspec import structs

from beatd import wire
from beatd.beat.backfilling import Filling
from beatd.beat.courier import Courier
from beatd.beat.seat import Term
from beatd.exceptions import BrokerError, MessageError, StoreError, StoreRefused, StoreUnavailable, TermLost
from beatd.model import Entry, Run, manual_run_id
from beatd.store import records
from beatd.store.dispatched import Dispatched
from beatd.store.requests import Answer, Asked, Backfill, Step, Trigger
from beatd.timeline import timeline

log = logging.getLogger("beatd.beat.manual")

LOOK_S = 1.0
"""Seconds between two looks for requests, when nobody rings."""

InForce = Callable[[str], Entry | None]
"""The entry of a name, as it is in force."""


class Manual:
    """The requests for one shard's entries, while this daemon leads it. ``owns`` tells which entries these are."""

    def __init__(self, courier: Courier, dispatched: Dispatched, *, owns: Callable[[str], bool]) -> None:
        self._courier = courier
        self._dispatched = dispatched
        self._owns = owns
        self._look_at = 0.0
        self._fillings: deque[Filling] = deque()

    def ring(self) -> None:
        """There is a request: look at the next turn. May be called from any thread."""
        self._look_at = 0.0

    def turn(self, term: Term, entry: InForce) -> float:
        """Send what was asked for, or some of it; returns the seconds until there is more to do.

        Raises a :class:`~beatd.exceptions.StoreError`, or what the outlet raises; then what was under way is looked up
        again.
        """
        now = self._courier.clock.monotonic()
        try:
            if now >= self._look_at:
                self._look_at = now + LOOK_S
                self._look(term, entry)
            self._fill(term, entry)
        except (StoreError, BrokerError):
            self._fillings.clear()
            self._look_at = 0.0
            raise
        pauses = [filling.pause() for filling in self._fillings]
        return max(min([*pauses, self._look_at - self._courier.clock.monotonic()]), 0.0)

    def _look(self, term: Term, entry: InForce) -> None:
        """See what is asked for now: triggers are carried out, windows put in line."""
        asked = {one.id: one for one in self._courier.requests.open() if self._owns(one.request.entry)}
        known = {filling.asked.id: filling for filling in self._fillings}
        self._fillings = deque(filling for name, filling in known.items() if name in asked)
        for name in known.keys() - asked.keys():
            known[name].end()
        for one in asked.values():
            if isinstance(one.request, Backfill):
                if one.id not in known:
                    self._fillings.append(Filling(one, self._courier, self._dispatched))
            else:
                self._careful(one, lambda one=one: self._trigger(one, one.request, term, entry), term)  # type: ignore[misc]

    def _fill(self, term: Term, entry: InForce) -> None:
        """One step for the first window in line that has something to do; it goes to the end."""
        for filling in list(self._fillings):
            if filling.pause() <= 0:
                self._fillings.remove(filling)
                if self._careful(filling.asked, lambda: filling.turn(term, entry), term) and not filling.over:  # noqa: B023
                    self._fillings.append(filling)
                return

    def _careful(self, asked: Asked, work: Callable[[], None], term: Term) -> bool:
        """Work for a request. Whatever is wrong with that one stops neither the others nor regular runs."""
        try:
            work()
        except (TermLost, StoreUnavailable, BrokerError):
            raise
        except (MessageError, StoreRefused) as error:
            self._courier.refuse(asked, str(error), term)
        except Exception:
            log.exception("Request %s failed", asked.id, extra={"event": "request_failed", "request": asked.id})
            self._courier.refuse(asked, "the daemon failed at it; its log says why", term)
        else:
            return True
        return False

    def _trigger(self, asked: Asked, request: Trigger, term: Term, entry: InForce) -> None:
        known = entry(request.entry)
        if known is None:
            self._courier.refuse(asked, f'there is no entry "{request.entry}"', term, unknown=True)
            return
        now_ms, run_id = self._courier.clock.now_ms(), manual_run_id(known.name, asked.id)
        run = Run(_changed(known, request), now_ms, now_ms, timeline(known, now_ms), run_id)
        cells = records.by_hand(records.TRIGGERED, now_ms, now_ms, run_id)
        load = self._courier.load([(run, cells)], now_ms, minds_overlap=known.policies.overlap != "allow")
        extra = {"event": "run_triggered", "entry": known.name, "run_id": run_id, "request": asked.id, "by": request.by}
        log.info("%s is triggered%s", known.name, f" by {request.by}" if request.by else "", extra=extra)
        answer = Answer(state="done", entry=known.name, run_id=run_id, total=1, sent=1)
        step = Step(answer, None, load.parcels, load.queue, load.running, "triggered")
        self._courier.send(asked, step, [run], term, now_ms)


def _changed(entry: Entry, request: Trigger) -> Entry:
    """The entry with what the request has in its place."""
    options = entry.options
    if request.queue is not None:
        options = structs.replace(options, queue=request.queue, exchange=None, routing_key=None)
    return structs.replace(
        entry,
        args=entry.args if request.args is None else tuple(wire.loads(request.args.encode())),
        kwargs=entry.kwargs if request.kwargs is None else wire.loads(request.kwargs.encode()),
        options=options,
    )
