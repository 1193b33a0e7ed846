"""Requests for runs by hand: trigger (send a run now) and backfill (send the runs of a past window).

A request waits in the store until a leader takes it up, which is told at once, and it is answered under a key of its
own. So whoever reaches the store can ask, from any machine and with any broker. Everything that a leader does for a
request is one step of the store: the messages, the memory that they were sent, how far the request has got, and the
answer. A leader that dies between two steps leaves the rest to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import redis

from beatd.model import Overlap
from beatd.store import history
from beatd.store.client import translate_errors
from beatd.store.daemon_commands import ASKED
from beatd.store.keys import Keys
from beatd.store.script import Script

KEPT_MS = 24 * 3_600_000
"""How long answers are kept, and the ids of runs that were sent by hand: a repeated request sends nothing twice."""

Reason = Literal["dispatched", "sent_before", "to_come", "blackout", "expired", "overlap", "unsendable"]
"""Why a run of a window is left out: the schedule sent it, or a request did; the schedule will; or as for any run."""


class Trigger(msgspec.Struct, frozen=True, kw_only=True, tag="trigger", tag_field="what", omit_defaults=True):
    """Send a run now. ``args`` and ``kwargs``, as JSON in kombu's way, replace those of the entry."""

    entry: str
    by: str = ""
    args: str | None = None
    kwargs: str | None = None
    queue: str | None = None


class Backfill(msgspec.Struct, frozen=True, kw_only=True, tag="backfill", tag_field="what", omit_defaults=True):
    """Send the runs that are due from ``from_ms`` on and before ``to_ms``.

    ``at_most`` so many, or the request is refused; ``force`` sends those again that were dispatched, under other ids.
    ``dry_run`` sends nothing. The rest says how far it has got.
    """

    entry: str
    by: str = ""
    from_ms: int
    to_ms: int
    overlap: Overlap | None = None
    rate: float
    at_most: int
    force: bool = False
    dry_run: bool = False
    total: int | None = None
    """Runs in the window; ``None`` until somebody has counted them."""
    cursor_ms: int = 0
    """The due time of the last run that was dealt with."""
    sent: int = 0
    left_out: dict[Reason, int] = {}


class PendingRequest(NamedTuple):
    """A request as it was found in the store; ``raw`` is by what a change is checked."""

    id: str
    request: Trigger | Backfill
    raw: bytes


class RequestReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reply to a request, so far."""

    state: Literal["done", "under_way", "refused"]
    entry: str
    what: Literal["trigger", "backfill"] = "trigger"
    message: str = ""
    """Why it was refused."""
    unknown: bool = False
    """It was refused because there is no such entry."""
    run_id: str = ""
    total: int = 0
    sent: int = 0
    left_out: dict[Reason, int] = {}
    dues_ms: list[int] = []
    """The first of the runs that would be sent, after a dry run."""


class RunMessage(NamedTuple):
    """A run on its way: its id, its message, and its cells of history."""

    run_id: str
    message: bytes
    cells: bytes


class Step(NamedTuple):
    """One step of a leader for a request. ``then``: the rest of the request; None: it is done."""

    answer: RequestReply
    then: Backfill | None = None
    messages: Sequence[RunMessage] = ()
    queue: str = ""
    running: str = ""
    word: str = ""


class Taken(NamedTuple):
    """Result of a step, and the rest of the request."""

    written: bool
    """False: the request is not what it was: withdrawn, or dealt with in an attempt that seemed to fail."""
    left: PendingRequest | None = None


class Withdrawal(NamedTuple):
    """Result of an attempt to take a request back. ``found``: there was something to take back."""

    found: bool
    answer: RequestReply | None = None
    """How far a leader had got with it."""


class Requests:
    """Both sides of requests: who asks, and the leader. Raises the errors of :class:`~beatd.store.claims.Claims`."""

    def __init__(self, client: redis.Redis, keys: Keys, *, shard: int = 0, keep: int = 20) -> None:
        self._client = client
        self._shard = keys.shard(shard)
        self._parts = keys.all_parts()
        self._keys = keys
        self._keep = keep * history.CELL
        self._ask = Script(client, "ask")
        self._fulfil = Script(client, "fulfil")

    def ask(self, request_id: str, request: Trigger | Backfill, *, good_for_ms: int) -> RequestReply | None:
        """Ask, unless it was asked before; returns the answer if there is one. To be repeated harmlessly."""
        part = self._keys.of(request.entry)
        keys = [part.requests, f"{part.answered}{request_id}"]
        args = [request_id, msgspec.json.encode(request), good_for_ms, self._keys.wake, ASKED]
        return _answer(self._ask(keys, args))

    def answer(self, request_id: str) -> RequestReply | None:
        """Return the reply to a request, or None."""
        with translate_errors(self._client):
            raws = self._client.mget([f"{part.answered}{request_id}" for part in self._parts])
        return _answer(next(filter(None, raws), None))

    def withdraw(self, request_id: str) -> Withdrawal:
        """Take a request back, or what is left of it."""
        with translate_errors(self._client):
            for part in self._parts:
                if self._client.hdel(part.requests, request_id):  # from now on no leader takes a step
                    with self._client.pipeline(transaction=False) as pipeline:
                        pipeline.get(f"{part.answered}{request_id}")
                        pipeline.delete(f"{part.answered}{request_id}")
                        return Withdrawal(True, _answer(pipeline.execute()[0]))
            return Withdrawal(False)

    def open(self) -> list[PendingRequest]:
        """The requests that wait. Those that nobody took up in time, and what is no request, are thrown away."""
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.hgetall(self._shard.requests)
            (seconds, micros), found = pipeline.execute()
            now_ms, waiting = seconds * 1000 + micros // 1000, []
            for request_id, raw in found.items():
                until, _, text = raw.partition(b" ")
                request = _request(text) if until.isdigit() and int(until) > now_ms else None
                if request is None:
                    self._client.hdel(self._shard.requests, request_id)
                else:
                    waiting.append(PendingRequest(request_id.decode(errors="replace"), request, raw))
        return waiting

    def step(self, pending: PendingRequest, step: Step, *, lease_value: str) -> Taken:
        """Take one step of the way to the request's end: all of it, or nothing."""
        entry, shard = pending.request.entry, self._shard
        then = msgspec.json.encode(step.then) if step.then else b""
        left = self._fulfil(
            [
                *(shard.lease, shard.requests, f"{shard.answered}{pending.id}", shard.running, shard.tally),
                *(f"{shard.history}{entry}", step.queue or shard.requests),  # without messages nothing is pushed
                *(f"{shard.sent}{message.run_id}" for message in step.messages),
            ],
            [
                *(lease_value, pending.id, pending.raw, then, msgspec.json.encode(step.answer), KEPT_MS, self._keep),
                *(entry, step.running, step.word),
                *(part for message in step.messages for part in (message.message, message.cells)),
            ],
        )
        return Taken(left is not None, PendingRequest(pending.id, step.then, left) if left and step.then else None)


def _answer(raw: Any) -> RequestReply | None:
    """Decode a reply; None if it cannot be read."""
    try:
        return None if raw is None else msgspec.json.decode(raw, type=RequestReply)
    except msgspec.MsgspecError:
        return None


def _request(raw: bytes) -> Trigger | Backfill | None:
    try:
        return msgspec.json.decode(raw, type=Trigger | Backfill)
    except msgspec.MsgspecError:
        return None
