"""Parking of messages with an ETA, and of dead letters, for brokers that have no place for them.

With a state store they are there. Without one, messages before their time stay unacknowledged in this worker, and dead
letters are the broker's own affair.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from beatd.broker import Address, OutgoingMessage, Publisher
from beatd.clock import Clock
from beatd.exceptions import MessageError
from beatd.message.protocol import open_envelope, without_marks
from beatd.store.client import connect
from beatd.store.dead_letters import DeadLetters, encode
from beatd.store.keys import Keys
from beatd.store.worker_state import DelayedMessage, DelayedMessages
from beatd.timestamps import iso_ms
from beatd.worker.consumers.base import is_due
from beatd.worker.consumers.envelope import mark_received
from beatd.worker.messages import Delivery

log = logging.getLogger("beatd.worker.consumers.aside")

_LOOK_MS = 1_000
"""Period of the check for messages that other workers have parked."""
_BATCH = 100


class Parking(Protocol):
    """Interface: a place for messages that do not run now."""

    def park(self, deliveries: Sequence[tuple[Delivery, int]]) -> bool:
        """Park messages until their time (ms); true if they are safe and can be acknowledged."""

    def bury(self, deliveries: Sequence[tuple[Delivery, str]]) -> bool:
        """Keep dead letters with their reasons; false if there is no place for them."""

    def waiting(self, at_most: int) -> list[tuple[Delivery, int]]:
        """Return parked messages with their times (ms), the soonest first."""

    def tend(self) -> list[Delivery]:
        """Release the messages that are due; returns those that this worker holds."""

    def unsettled(self) -> int:
        """Return the number of parked messages that are not acknowledged to the broker."""

    def idle_for(self) -> float:
        """Return the seconds until :meth:`tend` is due."""

    def close(self) -> None:
        """Disconnect."""


class MemoryParking:
    """Parking in memory, without a state store."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._parked: list[tuple[int, int, Delivery]] = []
        self._number = itertools.count()

    def park(self, deliveries: Sequence[tuple[Delivery, int]]) -> bool:
        for delivery, due_ms in deliveries:
            marked = delivery._replace(raw=mark_received(delivery.raw))
            heapq.heappush(self._parked, (due_ms, next(self._number), marked))
        return False

    def bury(self, deliveries: Sequence[tuple[Delivery, str]]) -> bool:  # noqa: ARG002 - the log has the reasons
        return False

    def waiting(self, at_most: int) -> list[tuple[Delivery, int]]:
        return [(delivery, due_ms) for due_ms, _, delivery in heapq.nsmallest(at_most, self._parked)]

    def tend(self) -> list[Delivery]:
        due = []
        while self._parked and self._parked[0][0] <= self._clock.now_ms():
            due.append(heapq.heappop(self._parked)[2])
        return due

    def unsettled(self) -> int:
        return len(self._parked)

    def idle_for(self) -> float:
        return max(0.0, (self._parked[0][0] - self._clock.now_ms()) / 1000) if self._parked else math.inf

    def close(self) -> None:
        """Do nothing."""


class StoreParking:
    """Parking in the state store at ``store_url``; any worker publishes the messages that are due."""

    def __init__(self, store_url: str, publisher: Publisher, *, keys: Keys, clock: Clock, name: str) -> None:
        self._client = connect(store_url, name="beatd-worker")
        self._waiting = DelayedMessages(self._client, keys)
        self._letters = DeadLetters(self._client, keys)
        self._publisher = publisher
        self._clock = clock
        self._name = name
        self._due = 0

    def park(self, deliveries: Sequence[tuple[Delivery, int]]) -> bool:
        # without the mark of a redelivery the same message, put aside twice, is the same text and there once
        waiting = [(DelayedMessage(one.queue, mark_received(without_marks(one.raw))), due) for one, due in deliveries]
        self._waiting.add(waiting)
        self._due = min(self._due, *(due_ms for _, due_ms in deliveries))
        return True

    def bury(self, deliveries: Sequence[tuple[Delivery, str]]) -> bool:
        now = iso_ms(self._clock.now_ms())
        self._letters.add(
            [
                encode(one.original, reason=reason, queue=one.queue, at=now, worker=self._name)
                for one, reason in deliveries
            ]
        )
        return True

    def waiting(self, at_most: int) -> list[tuple[Delivery, int]]:
        return [(Delivery(0, one.queue, one.raw), due) for one, due in self._waiting.soonest(at_most)]

    def tend(self) -> list[Delivery]:
        now = self._clock.now_ms()
        if is_due(now, self._due, _LOOK_MS):
            self._due = now + _LOOK_MS  # also when the store or the broker is away
            found, next_due = self._waiting.borrow(now, _BATCH)
            if found:
                self._publish(found)
            self._due = now if len(found) == _BATCH else min(next_due or self._due, self._due)
        return []

    def unsettled(self) -> int:
        return 0

    def idle_for(self) -> float:
        return max(0.0, (self._due - self._clock.now_ms()) / 1000)

    def close(self) -> None:
        self._publisher.close()
        self._client.close()

    def _publish(self, found: Sequence[DelayedMessage]) -> None:
        """Publish messages to their queues; after a failure the store lends them again, to any worker."""
        parcels = [(one, parcel) for one in found if (parcel := self._parcel(one))]
        for some in _with_each_id_once(parcels):
            for number, reason in self._publisher.publish_many([parcel for _, parcel in some]):
                self._bury(some[number][0], f"its time has come, and the broker does not take it: {reason}")
        self._waiting.remove(found)

    def _parcel(self, one: DelayedMessage) -> OutgoingMessage | None:
        try:
            return OutgoingMessage(open_envelope(one.raw), Address(one.queue))
        except MessageError as error:  # written by another program
            self._bury(one, str(error))
            return None

    def _bury(self, one: DelayedMessage, reason: str) -> None:
        log.error(
            "Message from %s goes to the dead letters: %s",
            one.queue,
            reason,
            extra={"event": "message_buried", "queue": one.queue, "reason": reason},
        )
        self.bury([(Delivery(0, one.queue, one.raw), reason)])


def _with_each_id_once(
    parcels: Sequence[tuple[DelayedMessage, OutgoingMessage]],
) -> list[list[tuple[DelayedMessage, OutgoingMessage]]]:
    """Split messages into batches for the publisher."""
    batches: list[list[tuple[DelayedMessage, OutgoingMessage]]] = []
    seen: Counter[str] = Counter()
    for one, parcel in parcels:
        number = seen[parcel.message.id]
        seen[parcel.message.id] += 1
        if number == len(batches):
            batches.append([])
        batches[number].append((one, parcel))
    return batches
