"""Events for monitors: heartbeats, and, when asked for, what becomes of each task.

Celery's events in Celery's form, so that ``celery events`` and Flower show a bundled worker as one of theirs. The
promise: heartbeats come as long as the loop turns; task events cost nothing while they are off; and while they are on,
no monitor and no broker can hold work up: what nobody takes is dropped, and counted.
"""

from __future__ import annotations

import logging
import os
import platform
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

import beatd
from beatd.broker.bus import Bus, EventFactory, LamportClock
from beatd.broker.bus.base import Event
from beatd.clock import Clock
from beatd.exceptions import MessageError
from beatd.message import json_codec
from beatd.message.protocol import safe_repr
from beatd.states import FAILURE, REJECTED, RETRY, REVOKED, STARTED, SUCCESS
from beatd.worker.messages import Delivery, JobReport, headers_of
from beatd.worker.request import Request

log = logging.getLogger("beatd.worker.events.stream")

FLUSH_S = 0.05
"""How long an event may wait for others to share a message with."""
BATCH = 200
"""Events in one message."""
BUFFERED = 10_000
"""Events that wait for a broker that is away; then the oldest are dropped."""
_MESSAGES_A_TURN = 10


class EventStream:
    """Events of the worker ``hostname`` on their way to the bus."""

    def __init__(self, hostname: str, clock: Clock, lamport: LamportClock) -> None:
        teller = EventFactory(hostname, clock, lamport)
        self.event, self.letter = teller.event, teller.message
        self._clock = clock
        self._buffer: deque[Event] = deque()
        self._flush_due = 0.0
        self._dropped = 0

    def put(self, kind: str, fields: Event) -> None:
        """Have an event published with the next batch."""
        if not self._buffer:
            self._flush_due = self._clock.monotonic() + FLUSH_S
        elif len(self._buffer) >= BUFFERED:
            self._buffer.popleft()
            self._dropped += 1
        self._buffer.append(self.event(kind, fields))

    def flush_in(self) -> float | None:
        """Seconds until a batch should leave; None while there is nothing to send."""
        if not self._buffer:
            return None
        return 0.0 if len(self._buffer) >= BATCH else max(0.0, self._flush_due - self._clock.monotonic())

    def flush(self, bus: Bus) -> None:
        """Publish what is buffered, some messages at most; raises :class:`~beatd.exceptions.BrokerError`.

        What was under way when it raises may be lost: monitors would rather miss an event than see it twice.
        """
        for _ in range(_MESSAGES_A_TURN):
            if not self._buffer or not bus.listening:
                break
            batch = [self._buffer.popleft() for _ in range(min(BATCH, len(self._buffer)))]
            bus.emit("task.multi", self.letter(batch))
        if self._dropped:
            count, self._dropped = self._dropped, 0
            log.warning(
                "%d events were dropped while the broker was away",
                count,
                extra={"event": "events_dropped", "count": count},
            )

    def flush_all(self, bus: Bus) -> None:
        """Publish everything that is buffered, at the end."""
        while self._buffer and bus.listening:
            self.flush(bus)


EVERY_S = 2.0
"""Monitors take a worker for dead after twice this time."""
_REQUESTED_S = 5
"""What a heartbeat that was asked for says of the next one."""

_SOFTWARE = {"sw_ident": "beatd", "sw_ver": beatd.__version__, "sw_sys": platform.system()}


class Heartbeat:
    """Beats through ``stream``. ``counts`` tells how many tasks run, and how many have run."""

    def __init__(self, stream: EventStream, clock: Clock, counts: Callable[[], tuple[int, int]]) -> None:
        self._stream = stream
        self._clock = clock
        self._counts = counts
        self._due = 0.0

    def start(self, bus: Bus) -> None:
        """Say that the worker is there; also after the broker was away."""
        self._send(bus, "worker-online")
        self._due = self._clock.monotonic() + EVERY_S

    def beat(self, bus: Bus) -> float:
        """Beat if it is time; returns the seconds until the next one."""
        now = self._clock.monotonic()
        if now >= self._due:
            self._due = now + EVERY_S
            self._send(bus, "worker-heartbeat")
        return self._due - now

    def beat_now(self, bus: Bus) -> None:
        """A heartbeat for a monitor that has just come."""
        event = self._stream.event("worker-heartbeat", {"freq": _REQUESTED_S, **_SOFTWARE})
        bus.emit("worker.heartbeat", self._stream.letter(event))

    def stop(self, bus: Bus) -> None:
        """Say that the worker is leaving."""
        self._send(bus, "worker-offline")

    def _send(self, bus: Bus, kind: str) -> None:
        if not bus.listening:
            return
        active, processed = self._counts()
        facts: dict[str, Any] = {"active": active, "processed": processed, "loadavg": _load(), **_SOFTWARE}
        event = self._stream.event(kind, {"freq": EVERY_S, **facts})
        bus.emit(kind.replace("-", "."), self._stream.letter(event))


def _load() -> list[float]:
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return [0.0, 0.0, 0.0]


class TaskEvents:
    """Tells ``stream`` what happens to requests, for tasks with ``send_events``, while they are :attr:`on`."""

    def __init__(self, stream: EventStream, *, on: bool) -> None:
        self.on = on
        self._stream = stream

    def received(self, requests: Iterable[Request]) -> None:
        """These have come in; also those that will wait for their time."""
        if not self.on:
            return
        for request in requests:
            if not request.task.send_events:
                continue
            headers, words = request.headers, _words(request.delivery.raw)
            fields = {
                "uuid": headers.id,
                "name": request.name,
                "args": words.argsrepr,
                "kwargs": words.kwargsrepr,
                "root_id": headers.root_id,
                "parent_id": headers.parent_id,
                "retries": headers.retries,
                "eta": headers.eta,
                "expires": headers.expires,
            }
            self._stream.put("task-received", fields)

    def reported(self, request: Request, report: JobReport) -> None:
        """The pool has said something about one."""
        if not self.on or not request.task.send_events:
            return
        if report.state == REVOKED:
            self.revoked(request, terminated=True, signum=request.terminated, expired=False)
        elif kind := _KINDS.get(report.state):
            self._stream.put(kind, {"uuid": request.id, **_outcome(report)})

    def unknown(self, delivery: Delivery, error: BaseException) -> None:
        """No task of that name is known here."""
        if self.on:
            fields = {"uuid": headers_of(delivery.raw).id, "exception": repr(error), "traceback": None}
            self._stream.put("task-failed", fields)

    def revoked(self, request: Request, *, terminated: bool, signum: int | None, expired: bool) -> None:
        """One will not be run, or not to its end."""
        if self.on and request.task.send_events:
            fields = {"uuid": request.id, "terminated": terminated, "signum": signum, "expired": expired}
            self._stream.put("task-revoked", fields)


_KINDS = {
    STARTED: "task-started",
    SUCCESS: "task-succeeded",
    FAILURE: "task-failed",
    RETRY: "task-retried",
    REJECTED: "task-rejected",
}


def _outcome(report: JobReport) -> dict[str, Any]:
    """Return the fields of an event of that kind, beside the id."""
    if report.state == STARTED:
        return {}
    if report.state == SUCCESS:
        return {"result": _result(report), "runtime": report.runtime}
    if report.state == REJECTED:
        return {"requeue": report.requeue}
    exception, trace = _failure(report)
    return {"exception": exception, "traceback": trace}


class _Words(msgspec.Struct, frozen=True):
    argsrepr: str = ""
    kwargsrepr: str = ""


class _Envelope(msgspec.Struct, frozen=True):
    headers: _Words


_decode = msgspec.json.Decoder(_Envelope).decode


def _words(raw: bytes) -> _Words:
    """Return the sender's text for the arguments; empty if there is none."""
    try:
        return _decode(raw).headers
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _Words()


def _meta(report: JobReport) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json_codec.loads(report.document) if report.document else {}
    except MessageError:
        meta = {}
    return meta


def _result(report: JobReport) -> str:
    """In words; those of a job that was sent before anybody listened are made here."""
    return report.words or safe_repr(_meta(report).get("result"))


def _failure(report: JobReport) -> tuple[str, str | None]:
    """The exception as it would print itself, and its traceback."""
    if report.words:
        return report.words, report.trace
    meta = _meta(report)
    match meta.get("result"):
        case {"exc_type": str(name), "exc_message": [*arguments]}:
            return f"{name}({', '.join(map(safe_repr, arguments))})", meta.get("traceback")
        case {"exc_type": str(name)}:
            return f"{name}()", meta.get("traceback")
    return report.text or "None", meta.get("traceback")
