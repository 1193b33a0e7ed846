"""The stream of events: buffered, and published in batches."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from typing import Any

from beatd.broker.bus import Bus, LamportClock, Letter
from beatd.clock import Clock

log = logging.getLogger(__name__)

FLUSH_S = 0.05
"""How long an event may wait for others to share a message with."""
BATCH = 200
"""Events in one message."""
BUFFERED = 10_000
"""Events that wait for a broker that is away; then the oldest are dropped."""
_MESSAGES_A_TURN = 10

Event = dict[str, Any]


class Stream:
    """Events of the worker ``hostname`` on their way to the bus."""

    def __init__(self, hostname: str, clock: Clock, lamport: LamportClock) -> None:
        self._hostname = hostname
        self._clock = clock
        self._lamport = lamport
        self._pid = os.getpid()
        self._zone = _hours_west()
        self._buffer: deque[Event] = deque()
        self._flush_due = 0.0
        self._dropped = 0

    def event(self, kind: str, **fields: Any) -> Event:
        """An event as Celery makes them: ``kind`` is ``task-received`` or the like."""
        return {
            "hostname": self._hostname,
            "utcoffset": self._zone,
            "pid": self._pid,
            "clock": self._lamport.forward(),
            **fields,
            "timestamp": self._clock.now_ms() / 1000,
            "type": kind,
        }

    def put(self, kind: str, **fields: Any) -> None:
        """Have an event published with the next batch."""
        if not self._buffer:
            self._flush_due = self._clock.monotonic() + FLUSH_S
        elif len(self._buffer) >= BUFFERED:
            self._buffer.popleft()
            self._dropped += 1
        self._buffer.append(self.event(kind, **fields))

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

    def letter(self, body: Event | list[Event]) -> Letter:
        """One event, or a batch, ready to be sent."""
        return Letter(body, {"hostname": self._hostname})


def _hours_west() -> float:
    """The host's distance from UTC as Celery's events carry it; monitors correct time stamps by it."""
    seconds = time.altzone if time.localtime().tm_isdst > 0 else time.timezone
    return seconds / 3600
