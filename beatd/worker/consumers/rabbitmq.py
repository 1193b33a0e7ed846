"""The consumer for RabbitMQ, native: as many messages ahead as the pool can use, acknowledged together.

The broker keeps what is not acknowledged and delivers it again when the connection is gone. What then comes again while
it is still running here is recognised by its id and not run a second time.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from beatd.broker import Arguments
from beatd.broker.amqp_codec import Content
from beatd.clock import Backoff, monotonic
from beatd.exceptions import BrokerError
from beatd.urls import BrokerUrl
from beatd.worker.consumers.base import UNWANTED_S, log_away, never
from beatd.worker.consumers.envelope import envelope_of
from beatd.worker.consumers.parking import Parking
from beatd.worker.consumers.rabbitmq_connection import ConsumerConnection
from beatd.worker.consumers.unacked import UnackedMessages
from beatd.worker.messages import Delivery

log = logging.getLogger("beatd.worker.consumers.amqp")

_PREFETCH_MAX = 1_024
_UNSETTLED_MAX = 65_000
"""Messages that wait here for their time."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
"""Between attempts to connect; the last one is repeated for ever."""


class AmqpConsumer:
    """Consumes ``queues``; missing ones are declared with ``arguments``."""

    def __init__(
        self,
        url: str,
        queues: Sequence[str],
        *,
        parking: Parking,
        arguments: Arguments,
        declare: Callable[[Any], None] | None = None,
    ) -> None:
        """``declare`` gets each new ``kombu.Connection``, before the queues are declared."""
        self._url = url
        self._queues = list(queues)
        self._parking = parking
        self._arguments = arguments
        self._declare = declare
        self._connection: ConsumerConnection | None = None
        self._held = UnackedMessages()
        self._ready: deque[tuple[float, Delivery]] = deque()
        """Messages that were delivered and not taken, with the time (monotonic)."""
        self._prefetch = 0
        self._least = 0
        """The pool's first request: one message for each process or thread."""
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self._retry_at = 0.0
        self.place = BrokerUrl.parse(url).shown

    def queues(self) -> list[str]:
        return list(self._queues)

    def waiting(self, at_most: int) -> list[tuple[Delivery, int]]:
        return self._parking.waiting(at_most)

    def add_queue(self, name: str) -> None:
        """Consume from this queue, too."""
        if name not in self._queues:
            self._queues.append(name)
            if (connection := self._connection) is not None:  # a new one can wait for the answers to declares
                connection.close()
                self._forget_connection()

    def cancel_queue(self, name: str) -> None:
        """Stop consuming from this queue; messages that were taken are still run."""
        if name in self._queues:
            self._queues.remove(name)
            if self._connection is not None and self._prefetch:
                self._consume(self._connection, self._prefetch)
            unwanted = [delivery for _, delivery in self._ready if delivery.queue == name]
            self._ready = deque(one for one in self._ready if one[1].queue != name)
            self.give_back(unwanted)

    def start(self, stopping: Callable[[], bool] = never) -> None:  # noqa: ARG002 - bounded by its timeout
        self._connect()

    def take(self, at_most: int) -> list[Delivery]:
        connection = self._connected()
        if connection is not None and self._fetch(connection):
            self._adapt_prefetch(connection, at_most)
        taken: list[Delivery] = []
        while self._ready and len(taken) < at_most:
            taken.append(self._ready.popleft()[1])
        return taken

    def files(self) -> list[int]:
        return [self._connection.file] if self._connection is not None else []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._acknowledge(deliveries, acked=True)

    def _acknowledge(self, deliveries: Sequence[Delivery], *, acked: bool | None = None) -> None:
        """Acknowledge messages; one multiple acknowledgement covers all before the first unsettled one."""
        numbers = self._held.release(deliveries, self._connection, acked=acked)
        if self._connection is None or not numbers:
            return
        oldest = self._held.oldest(self._connection)
        if before := [number for number in numbers if number < oldest]:
            self._connection.ack(before[-1], multiple=True)
        for number in numbers[len(before) :]:
            self._connection.ack(number, multiple=False)
        self._write_acks()

    def reject(self, deliveries: Sequence[Delivery]) -> None:
        for number in self._held.release(deliveries, self._connection, acked=False):
            if self._connection is not None:
                self._connection.reject(number)
        self._write_acks()

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        for number in self._held.release(deliveries, self._connection):
            if self._connection is not None:
                self._connection.give_back(number)
        self._write_acks()

    def park(self, deliveries: Sequence[tuple[Delivery, int]]) -> None:
        if deliveries and self._parking.park(deliveries):
            self._acknowledge([one for one, _ in deliveries])

    def bury(self, deliveries: Sequence[tuple[Delivery, str]]) -> None:
        if not deliveries:
            return
        messages = [one for one, _ in deliveries]
        if self._parking.bury(deliveries):
            self._acknowledge(messages)
        else:
            self.reject(messages)

    def tend(self) -> None:
        now = monotonic()
        self._ready.extend((now, delivery) for delivery in self._parking.tend())
        connection = self._connected()
        if connection is None or not self._fetch(connection):
            return
        self.beat()
        if self._ready and now - self._ready[0][0] > UNWANTED_S:
            self._return_unwanted(connection)

    def lost(self) -> list[int]:
        return []  # unknown: the broker does not tell

    def idle_for(self) -> float:
        if self._connection is None:
            return max(0.0, self._retry_at - monotonic())
        return min(1.0 if self._ready else 5.0, self._parking.idle_for())

    def beat(self) -> None:
        if (connection := self._connection) is not None:
            with contextlib.suppress(BrokerError):  # the reader detects it
                connection.beat()

    def stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._parking.close()

    # -- the connection -----------------------------------------------------------------------------------------------

    def _connected(self) -> ConsumerConnection | None:
        """Return the connection, opened now if possible, or None. Never raises: the pool works on meanwhile."""
        if self._connection is None and monotonic() >= self._retry_at:
            try:
                self._connect()
            except BrokerError as error:
                pause = self._backoff.failed()
                self._retry_at = monotonic() + pause
                log_away(log, self._backoff, "A server is", pause, error)
        return self._connection

    def _connect(self) -> None:
        self._connection = ConsumerConnection(self._url, self._queues, self._arguments, self._declare)
        self._backoff.succeeded()
        self._held.begin()
        if self._prefetch:
            self._consume(self._connection, self._prefetch)

    def _consume(self, connection: ConsumerConnection, prefetch: int) -> None:
        self._prefetch = prefetch
        self._held.renew()
        connection.consume(self._queues if prefetch else (), prefetch)

    def _forget_connection(self) -> None:
        """Handle a broken connection: waiting messages come again, running ones are recognised when they do."""
        self._held.break_off([delivery for _, delivery in self._ready])
        self._ready.clear()
        self._connection = None

    def _drop(self, connection: ConsumerConnection, error: BrokerError) -> None:
        connection.drop()
        self._forget_connection()
        log_away(log, self._backoff, "A server is", 0.0, error)

    def _fetch(self, connection: ConsumerConnection) -> bool:
        """Read deliveries; false if the connection is broken."""
        now = monotonic()
        try:
            for content in connection.read():
                if (delivery := self._arrived(connection, content)) is None:
                    continue
                if delivery.queue in self._queues:
                    self._ready.append((now, delivery))
                else:  # the last ones of a queue that was cancelled
                    self.give_back([delivery])
            connection.flush()
        except BrokerError as error:
            self._drop(connection, error)
        return self._connection is not None

    def _write_acks(self) -> None:
        """Write the buffered acknowledgements."""
        if (connection := self._connection) is not None:
            try:
                connection.flush()
            except BrokerError as error:
                self._drop(connection, error)

    def _arrived(self, connection: ConsumerConnection, content: Content) -> Delivery | None:
        tag = self._held.add(connection, content)
        if tag is None:
            return None
        queue = connection.queue_of(content)
        raw, fault = envelope_of(content, queue)
        return Delivery(tag, queue, raw, fault)

    # -- how much ahead -----------------------------------------------------------------------------------------------

    def _adapt_prefetch(self, connection: ConsumerConnection, at_most: int) -> None:
        """Set the prefetch to the work of a moment: many short tasks, but only the running long ones."""
        self._least = self._least or at_most
        busy = max(0, self._held.recent - len(self._ready))
        wanted = at_most + busy
        prefetch = wanted if wanted <= self._least else 1 << (2 * wanted - 1).bit_length()
        prefetch = max(1, min(_PREFETCH_MAX, prefetch))
        is_used_up = busy >= self._prefetch and 0 < self._parking.unsettled() < _UNSETTLED_MAX
        if prefetch > self._prefetch or is_used_up:  # by messages that wait here for their time: new consumers get more
            self._consume(connection, max(prefetch, self._prefetch))
            self._write_acks()

    def _return_unwanted(self, connection: ConsumerConnection) -> None:
        """Requeue messages that wait too long, and consume no more until the pool asks: other workers may be idle."""
        self._consume(connection, 0)
        log.debug("Gave back %d messages", len(self._ready), extra={"event": "prefetched_returned"})
        unwanted = [delivery for _, delivery in self._ready]
        self._ready.clear()
        self.give_back(unwanted)
