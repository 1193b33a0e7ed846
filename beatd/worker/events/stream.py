"""The stream of events: buffered, and published in batches."""

from __future__ import annotations

import logging
from collections import deque

from beatd.broker.bus import Bus, LamportClock, Teller
from beatd.broker.bus.teller import Event
from beatd.clock import Clock

log = logging.getLogger(__name__)

FLUSH_S = 0.05
"""How long an event may wait for others to share a message with."""
BATCH = 200
"""Events in one message."""
BUFFERED = 10_000
"""Events that wait for a broker that is away; then the oldest are dropped."""
_MESSAGES_A_TURN = 10


class Stream:
    """Events of the worker ``hostname`` on their way to the bus."""

    def __init__(self, hostname: str, clock: Clock, lamport: LamportClock) -> None:
        teller = Teller(hostname, clock, lamport)
        self.event, self.letter = teller.event, teller.letter
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
