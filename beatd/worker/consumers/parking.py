"""Parking: messages before their time, and dead letters, for brokers that have no place for them.

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
from beatd.message.protocol import open_envelope
from beatd.store.client import connect
from beatd.store.dead_letters import DeadLetters, encode
from beatd.store.keys import Keys
from beatd.store.worker_state import DelayedMessage, DelayedMessages
from beatd.timestamps import iso_ms
from beatd.worker.consumers.envelope import without_mark
from beatd.worker.messages import Delivery

log = logging.getLogger("beatd.worker.consumers.aside")

_LOOK_MS = 1_000
"""How often to look for messages that another worker has put aside."""
_BATCH = 100


class Parking(Protocol):
    """A place for messages that are not run now."""

    def park(self, deliveries: Sequence[tuple[Delivery, int]]) -> bool:
        """Keep these until their time (ms); whether they are safe, so that the broker may forget them."""

    def bury(self, deliveries: Sequence[tuple[Delivery, str]]) -> bool:
        """Keep these for good, with their reasons; whether there is a place for that."""

    def waiting(self, at_most: int) -> list[tuple[Delivery, int]]:
        """Messages that wait for their time (ms), the soonest first, as far as can be seen from here."""

    def tend(self) -> list[Delivery]:
        """See to those whose time has come; returns the ones that this worker holds."""

    def idle_for(self) -> float:
        """Seconds until :meth:`tend` has something to do."""

    def close(self) -> None:
        """Disconnect."""


class MemoryParking:
    """No state store."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._parked: list[tuple[int, int, Delivery]] = []
        self._number = itertools.count()

    def park(self, deliveries: Sequence[tuple[Delivery, int]]) -> bool:
        for delivery, due_ms in deliveries:
            heapq.heappush(self._parked, (due_ms, next(self._number), delivery))
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

    def idle_for(self) -> float:
        return max(0.0, (self._parked[0][0] - self._clock.now_ms()) / 1000) if self._parked else math.inf

    def close(self) -> None:
        """There is nothing to close."""


class StoreParking:
    """The state store at ``store_url``. Any worker gives what is due to its ``publisher``."""

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
        self._waiting.add([(DelayedMessage(one.queue, without_mark(one.raw)), due_ms) for one, due_ms in deliveries])
        self._due = min(self._due, *(due_ms for _, due_ms in deliveries))
        return True

    def bury(self, deliveries: Sequence[tuple[Delivery, str]]) -> bool:
        now = iso_ms(self._clock.now_ms())
        facts = {"at": now, "worker": self._name}
        self._letters.add([encode(one.original, reason=reason, queue=one.queue, **facts) for one, reason in deliveries])
        return True

    def waiting(self, at_most: int) -> list[tuple[Delivery, int]]:
        return [(Delivery(0, one.queue, one.raw), due) for one, due in self._waiting.soonest(at_most)]

    def tend(self) -> list[Delivery]:
        now = self._clock.now_ms()
        if now >= self._due:
            self._due = now + _LOOK_MS  # also when the store or the broker is away
            found, next_due = self._waiting.borrow(now, _BATCH)
            if found:
                self._publish(found)
            self._due = now if len(found) == _BATCH else min(next_due or self._due, self._due)
        return []

    def idle_for(self) -> float:
        return max(0.0, (self._due - self._clock.now_ms()) / 1000)

    def close(self) -> None:
        self._publisher.close()
        self._client.close()

    def _publish(self, found: Sequence[DelayedMessage]) -> None:
        """Back to their queues; what fails here is lent again after a while, to anybody."""
        parcels = [(one, parcel) for one in found if (parcel := self._parcel(one))]
        for some in _with_each_id_once(parcels):
            for number, reason in self._publisher.publish_many([parcel for _, parcel in some]):
                self._bury(some[number][0], f"its time has come, and the broker does not take it: {reason}")
        self._waiting.strike(found)

    def _parcel(self, one: DelayedMessage) -> OutgoingMessage | None:
        try:
            return OutgoingMessage(open_envelope(one.raw), Address(one.queue))
        except MessageError as error:  # somebody else wrote it
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
    """Batches as publishers want them."""
    batches: list[list[tuple[DelayedMessage, OutgoingMessage]]] = []
    seen: Counter[str] = Counter()
    for one, parcel in parcels:
        number = seen[parcel.message.id]
        seen[parcel.message.id] += 1
        if number == len(batches):
            batches.append([])
        batches[number].append((one, parcel))
    return batches
