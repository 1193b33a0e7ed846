"""Events for monitors: heartbeats and, when enabled, the states of tasks.

The events have Celery's form, so that ``celery events`` and Flower show a beatd worker like a Celery worker. The
promise: heartbeats come as long as the loop turns; task events cost nothing while they are off; no monitor and no
broker delays tasks: events that cannot be delivered are dropped and counted.
"""

from __future__ import annotations

import logging
import os
import platform
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import beatd
from beatd.broker.bus import Bus, EventFactory, LamportClock
from beatd.broker.bus.base import Event
from beatd.clock import Clock
from beatd.exceptions import MessageError
from beatd.message import json_codec
from beatd.message.protocol import safe_repr
from beatd.states import FAILURE, REJECTED, RETRY, REVOKED, STARTED, SUCCESS
from beatd.worker.effects import Effect, Ended, Received, Revoked, Started, Unregistered
from beatd.worker.messages import JobReport
from beatd.worker.request import Request

log = logging.getLogger("beatd.worker.events.stream")

FLUSH_S = 0.05
"""Time that an event waits for others in the same message."""
BATCH = 200
"""Events in one message."""
BUFFERED = 10_000
"""Buffered events while the broker is away; beyond that the oldest are dropped."""
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
        """Buffer an event for the next batch."""
        if not self._buffer:
            self._flush_due = self._clock.monotonic() + FLUSH_S
        elif len(self._buffer) >= BUFFERED:
            self._buffer.popleft()
            self._dropped += 1
        self._buffer.append(self.event(kind, fields))

    def flush_in(self) -> float | None:
        """Return the seconds until the next batch; None if there is nothing to send."""
        if not self._buffer:
            return None
        return 0.0 if len(self._buffer) >= BATCH else max(0.0, self._flush_due - self._clock.monotonic())

    def flush(self, bus: Bus) -> None:
        """Publish buffered events, a limited number of messages; raises :class:`~beatd.exceptions.BrokerError`.

        An error may lose a batch: monitors cope with a missing event, but not with a duplicate.
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
        """Publish all buffered events, at the end."""
        while self._buffer and bus.listening:
            self.flush(bus)


EVERY_S = 2.0
"""Heartbeat period; monitors take a worker for dead after twice this time."""
_REQUESTED_S = 5
"""Period that a requested heartbeat announces."""

_SOFTWARE = {"sw_ident": "beatd", "sw_ver": beatd.__version__, "sw_sys": platform.system()}


class Heartbeat:
    """Sends heartbeats. ``counts`` returns the numbers of running and of processed tasks."""

    def __init__(self, stream: EventStream, clock: Clock, counts: Callable[[], tuple[int, int]]) -> None:
        self._stream = stream
        self._clock = clock
        self._counts = counts
        self._due = 0.0

    def start(self, bus: Bus) -> None:
        """Send the online event, also after a reconnection."""
        self._send(bus, "worker-online")
        self._due = self._clock.monotonic() + EVERY_S

    def beat(self, bus: Bus) -> float:
        """Send a heartbeat if it is due; returns the seconds until the next one."""
        now = self._clock.monotonic()
        if now >= self._due:
            self._due = now + EVERY_S
            self._send(bus, "worker-heartbeat")
        return self._due - now

    def beat_now(self, bus: Bus) -> None:
        """Send a heartbeat for a monitor that has just started."""
        event = self._stream.event("worker-heartbeat", {"freq": _REQUESTED_S, **_SOFTWARE})
        bus.emit("worker.heartbeat", self._stream.letter(event))

    def stop(self, bus: Bus) -> None:
        """Send the offline event."""
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
    """Task events, for tasks with ``send_events``, while they are :attr:`on`."""

    def __init__(self, stream: EventStream, *, on: bool) -> None:
        self.on = on
        self._stream = stream

    def tell(self, effects: Iterable[Effect]) -> None:
        """Send the events of these effects."""
        if not self.on:
            return
        for effect in effects:
            match effect:
                case Received(request):
                    self._received(request)
                case Started(request, report) | Ended(request, report):
                    self._reported(request, report)
                case Revoked(request, expired):
                    self._revoked(request, terminated=False, signum=None, expired=expired)
                case Unregistered(headers, error):
                    fields = {"uuid": headers.id, "exception": repr(error), "traceback": None}
                    self._stream.put("task-failed", fields)

    def _received(self, request: Request) -> None:
        if not request.task.send_events:
            return
        headers = request.headers
        fields = {
            "uuid": headers.id,
            "name": request.name,
            "args": headers.argsrepr if isinstance(headers.argsrepr, str) else "",
            "kwargs": headers.kwargsrepr if isinstance(headers.kwargsrepr, str) else "",
            "root_id": headers.root_id,
            "parent_id": headers.parent_id,
            "retries": headers.retries,
            "eta": headers.eta,
            "expires": headers.expires,
        }
        self._stream.put("task-received", fields)

    def _reported(self, request: Request, report: JobReport) -> None:
        if not request.task.send_events:
            return
        if report.state == REVOKED:
            self._revoked(request, terminated=True, signum=request.terminated, expired=False)
        for kind in _kinds(request, report):
            self._stream.put(kind, {"uuid": request.id, **_outcome(kind, report)})

    def _revoked(self, request: Request, *, terminated: bool, signum: int | None, expired: bool) -> None:
        if request.task.send_events:
            fields = {"uuid": request.id, "terminated": terminated, "signum": signum, "expired": expired}
            self._stream.put("task-revoked", fields)


_KINDS = {
    STARTED: "task-started",
    SUCCESS: "task-succeeded",
    FAILURE: "task-failed",
    RETRY: "task-retried",
}


def _kinds(request: Request, report: JobReport) -> list[str]:
    """Return the kinds of a report's events: a task that rejects its message for good has failed."""
    if report.state != REJECTED:
        return [_KINDS[report.state]] if report.state in _KINDS else []
    failed = [] if report.requeue else ["task-failed"]
    return [*failed, "task-rejected"] if report.requeue or request.task.acks_late else failed


def _outcome(kind: str, report: JobReport) -> dict[str, Any]:
    """Return the fields of a report's event beside the id."""
    if kind == "task-started":
        return {}
    if kind == "task-succeeded":
        return {"result": _result(report), "runtime": report.runtime}
    if kind == "task-rejected":
        return {"requeue": report.requeue}
    exception, trace = _failure(report)
    return {"exception": exception, "traceback": trace}


def _meta(report: JobReport) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json_codec.loads(report.document) if report.document else {}
    except MessageError:
        meta = {}
    return meta


def _result(report: JobReport) -> str:
    """Return the result as text; made here for a job that was sent before events were on."""
    return report.outcome_repr or safe_repr(_meta(report).get("result"))


def _failure(report: JobReport) -> tuple[str, str | None]:
    """Return the exception as text, and its traceback."""
    if report.outcome_repr:
        return report.outcome_repr, report.traceback
    meta = _meta(report)
    match meta.get("result"):
        case {"exc_type": str(name), "exc_message": [*arguments]}:
            return f"{name}({', '.join(map(safe_repr, arguments))})", meta.get("traceback")
        case {"exc_type": str(name)}:
            return f"{name}()", meta.get("traceback")
    return report.text or "None", meta.get("traceback")
