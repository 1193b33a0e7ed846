"""The consumer for RabbitMQ, native: as many messages ahead as the pool can use, acknowledged together.

The broker keeps what is not acknowledged and delivers it again when the connection is gone. What then comes again while
it is still running here is recognised by its id and not run a second time.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from beatd.broker import Arguments
from beatd.broker.amqp_codec import Content
from beatd.clock import Backoff, monotonic
from beatd.exceptions import BrokerError
from beatd.urls import BrokerUrl
from beatd.worker.consumers.base import UNWANTED_S, never
from beatd.worker.consumers.envelope import envelope_of
from beatd.worker.consumers.parking import Parking
from beatd.worker.consumers.rabbitmq_connection import ConsumerConnection
from beatd.worker.messages import Delivery

_REMEMBERED = 5_000
_BELIEVED_S = 60.0
"""Time for which acknowledgements on a broken connection still count; later the message may be a new one."""

Identity = tuple[str, ...]
"""Id, retries, ETA and nesting: ``Task.replace`` sends another message under the id."""


class _Message(NamedTuple):
    """The connection of a message, its delivery tag there, its identity, and the number of the consumers it came to."""

    line: ConsumerConnection | None
    number: int
    identity: Identity
    consumers: int


class UnackedMessages:
    """Delivered and unsettled messages, by this worker's tags, in the order of delivery."""

    def __init__(self) -> None:
        self._messages: dict[int, _Message] = {}
        self._orphans: dict[Identity, int] = {}
        """Tags of messages from broken connections that still run."""
        self._settled: dict[Identity, bool] = {}
        """Acknowledged (true) or rejected on this connection; unconfirmed if it breaks."""
        self._done: dict[Identity, bool] = {}
        """The same on the connection before, or between two connections."""
        self._believed_until = math.inf
        self._tag = 0
        self._consumers = 0
        self.recent = 0
        """Number of messages that count in the prefetch of the present consumers."""

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, line: ConsumerConnection, content: Content) -> int | None:
        """Add a delivery; returns its tag, or None for the redelivery of a message that runs or has ended."""
        headers = content.properties.get("headers") or {}
        names = ("retries", "eta", "replaced_task_nesting")
        identity = (str(headers.get("id", "")), *(str(headers.get(name)) for name in names))
        if content.redelivered and identity[0] and self._reunite(line, content, identity):
            return None
        self._tag += 1
        self._add(self._tag, line, content, identity)
        return self._tag

    def renew(self) -> None:
        """Handle new consumers: the messages that came before do not count in their prefetch."""
        self._consumers += 1
        self.recent = 0

    def _add(self, tag: int, line: ConsumerConnection, content: Content, identity: Identity) -> None:
        self._messages[tag] = _Message(line, content.tag, identity, self._consumers)
        self.recent += 1

    def release(
        self, deliveries: Sequence[Delivery], line: ConsumerConnection | None, *, acked: bool | None = None
    ) -> list[int]:
        """Remove messages; returns their delivery tags on ``line``, ascending.

        ``acked``: they have run or begun, and are acknowledged (true) or rejected. So is their redelivery: it does not
        run.
        """
        numbers = []
        for one in deliveries:
            message = self._messages.pop(one.tag, None)
            if message is None:
                continue
            self.recent -= message.consumers == self._consumers
            on_line = line is not None and message.line is line
            if on_line:
                numbers.append(message.number)
            if acked is None:
                continue
            self._settled[message.identity] = acked
            if len(self._settled) > _REMEMBERED:
                del self._settled[next(iter(self._settled))]
            if not on_line:
                self._done[message.identity] = acked  # when it comes again
        return sorted(numbers)

    def oldest(self, line: ConsumerConnection) -> float:
        """Return the smallest unsettled delivery tag of a connection; infinite if there is none."""
        return next((message.number for message in self._messages.values() if message.line is line), math.inf)

    def break_off(self, not_begun: Sequence[Delivery]) -> None:
        """Handle a broken connection: messages that have not begun come again as new ones.

        One of the same identity as a settled one is another message, which a client has sent under the same id.
        """
        self.renew()
        open_ones = {message.identity for message in self._messages.values()}
        self._done = {identity: acked for identity, acked in self._settled.items() if identity not in open_ones}
        self._settled = {}
        for one in not_begun:
            self._messages.pop(one.tag, None)
        self._messages = {tag: message._replace(line=None) for tag, message in self._messages.items()}
        self._orphans = {message.identity: tag for tag, message in self._messages.items()}
        self._believed_until = math.inf

    def begin(self) -> None:
        """Handle a new connection."""
        self._believed_until = monotonic() + _BELIEVED_S

    def _reunite(self, line: ConsumerConnection, content: Content, identity: Identity) -> bool:
        if identity in self._done and monotonic() < self._believed_until:
            if self._done.pop(identity):
                line.ack(content.tag, multiple=False)
            else:
                line.reject(content.tag)
            return True
        tag = self._orphans.pop(identity, None)
        if tag is None or self._messages.pop(tag, None) is None:
            return False
        self._add(tag, line, content, identity)  # at the end: the numbers in it only grow
        return True


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
        aside: Parking,
        arguments: Arguments,
        declare: Callable[[Any], None] | None = None,
    ) -> None:
        """``declare`` gets each new ``kombu.Connection``, before the queues are declared."""
        self._url = url
        self._queues = list(queues)
        self._aside = aside
        self._arguments = arguments
        self._declare = declare
        self._line: ConsumerConnection | None = None
        self._held = UnackedMessages()
        self._ready: deque[tuple[float, Delivery]] = deque()
        """Messages that were delivered and not taken, with the time (monotonic)."""
        self._prefetch = 0
        self._least = 0
        """The pool's first request: one message for each process or thread."""
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self._again_at = 0.0
        self.place = BrokerUrl.parse(url).shown

    def queues(self) -> list[str]:
        return list(self._queues)

    def waiting(self, at_most: int) -> list[tuple[Delivery, int]]:
        return self._aside.waiting(at_most)

    def add_queue(self, name: str) -> None:
        """Consume from this queue, too."""
        if name not in self._queues:
            self._queues.append(name)
            if (line := self._line) is not None:  # declaring needs answers: a new connection can wait for them
                line.close()
                self._lose()

    def cancel_queue(self, name: str) -> None:
        """Stop consuming from this queue; messages that were taken are still run."""
        if name in self._queues:
            self._queues.remove(name)
            if self._line is not None and self._prefetch:
                self._consume(self._line, self._prefetch)
            unwanted = [delivery for _, delivery in self._ready if delivery.queue == name]
            self._ready = deque(one for one in self._ready if one[1].queue != name)
            self.give_back(unwanted)

    def start(self, stopping: Callable[[], bool] = never) -> None:  # noqa: ARG002 - bounded by its timeout
        self._connect()

    def take(self, at_most: int) -> list[Delivery]:
        line = self._connected()
        if line is not None and self._fetch(line):
            self._adapt(line, at_most)
        taken: list[Delivery] = []
        while self._ready and len(taken) < at_most:
            taken.append(self._ready.popleft()[1])
        return taken

    def files(self) -> list[int]:
        return [self._line.file] if self._line is not None else []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._forget(deliveries, acked=True)

    def _forget(self, deliveries: Sequence[Delivery], *, acked: bool | None = None) -> None:
        """Acknowledge messages; one multiple acknowledgement covers all before the first unsettled one."""
        numbers = self._held.release(deliveries, self._line, acked=acked)
        if self._line is None or not numbers:
            return
        oldest = self._held.oldest(self._line)
        if before := [number for number in numbers if number < oldest]:
            self._line.ack(before[-1], multiple=True)
        for number in numbers[len(before) :]:
            self._line.ack(number, multiple=False)
        self._say()

    def reject(self, deliveries: Sequence[Delivery]) -> None:
        for number in self._held.release(deliveries, self._line, acked=False):
            if self._line is not None:
                self._line.reject(number)
        self._say()

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        for number in self._held.release(deliveries, self._line):
            if self._line is not None:
                self._line.give_back(number)
        self._say()

    def park(self, deliveries: Sequence[tuple[Delivery, int]]) -> None:
        if deliveries and self._aside.park(deliveries):
            self._forget([one for one, _ in deliveries])

    def bury(self, deliveries: Sequence[tuple[Delivery, str]]) -> None:
        if not deliveries:
            return
        messages = [one for one, _ in deliveries]
        if self._aside.bury(deliveries):
            self._forget(messages)
        else:
            self.reject(messages)

    def tend(self) -> None:
        now = monotonic()
        self._ready.extend((now, delivery) for delivery in self._aside.tend())
        line = self._connected()
        if line is None or not self._fetch(line):
            return
        self.beat()
        if self._ready and now - self._ready[0][0] > UNWANTED_S:
            self._return_unwanted(line)

    def lost(self) -> list[int]:
        return []  # unknown: the broker does not tell

    def idle_for(self) -> float:
        if self._line is None:
            return max(0.0, self._again_at - monotonic())
        return min(1.0 if self._ready else 5.0, self._aside.idle_for())

    def beat(self) -> None:
        if (line := self._line) is not None:
            with contextlib.suppress(BrokerError):  # the reader detects it
                line.beat()

    def stop(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
        self._aside.close()

    # -- the line -----------------------------------------------------------------------------------------------------

    def _connected(self) -> ConsumerConnection | None:
        """Return the connection, opened now if possible, or None. Never raises: the pool works on meanwhile."""
        if self._line is None and monotonic() >= self._again_at:
            try:
                self._connect()
            except BrokerError as error:
                pause = self._backoff.failed()
                self._again_at = monotonic() + pause
                self._away(error, pause)
        return self._line

    def _connect(self) -> None:
        self._line = ConsumerConnection(self._url, self._queues, self._arguments, self._declare)
        self._backoff.succeeded()
        self._held.begin()
        if self._prefetch:
            self._consume(self._line, self._prefetch)

    def _consume(self, line: ConsumerConnection, prefetch: int) -> None:
        self._prefetch = prefetch
        self._held.renew()
        line.consume(self._queues if prefetch else (), prefetch)

    def _away(self, error: BrokerError, pause: float) -> None:
        extra = {"event": "worker_reconnecting", "attempt": self._backoff.attempts, "since": self._backoff.since}
        text = "A server is away%s, trying again in %ss: %s"
        log.log(self._backoff.level, text, self._backoff.since_text, pause, error, extra=extra)

    def _lose(self) -> None:
        """Handle a broken connection: waiting messages come again, running ones are recognised when they do."""
        self._held.break_off([delivery for _, delivery in self._ready])
        self._ready.clear()
        self._line = None

    def _break(self, line: ConsumerConnection, error: BrokerError) -> None:
        line.drop()
        self._lose()
        self._away(error, 0.0)

    def _fetch(self, line: ConsumerConnection) -> bool:
        """Read deliveries; false if the connection is broken."""
        now = monotonic()
        try:
            for content in line.read():
                if (delivery := self._arrived(line, content)) is None:
                    continue
                if delivery.queue in self._queues:
                    self._ready.append((now, delivery))
                else:  # the last ones of a queue that was cancelled
                    self.give_back([delivery])
            line.flush()
        except BrokerError as error:
            self._break(line, error)
        return self._line is not None

    def _say(self) -> None:
        """Write acknowledgements."""
        if (line := self._line) is not None:
            try:
                line.flush()
            except BrokerError as error:
                self._break(line, error)

    def _arrived(self, line: ConsumerConnection, content: Content) -> Delivery | None:
        tag = self._held.add(line, content)
        if tag is None:
            return None
        queue = line.queue_of(content)
        raw, fault = envelope_of(content, queue)
        return Delivery(tag, queue, raw, fault)

    # -- how much ahead -----------------------------------------------------------------------------------------------

    def _adapt(self, line: ConsumerConnection, at_most: int) -> None:
        """Set the prefetch to the work of a moment: many short tasks, but only the running long ones."""
        self._least = self._least or at_most
        busy = max(0, self._held.recent - len(self._ready))
        wanted = at_most + busy
        prefetch = wanted if wanted <= self._least else 1 << (2 * wanted - 1).bit_length()
        prefetch = max(1, min(_PREFETCH_MAX, prefetch))
        is_used_up = busy >= self._prefetch and 0 < self._aside.unsettled() < _UNSETTLED_MAX
        if prefetch > self._prefetch or is_used_up:  # by messages that wait here for their time: new consumers get more
            self._consume(line, max(prefetch, self._prefetch))
            self._say()

    def _return_unwanted(self, line: ConsumerConnection) -> None:
        """Requeue messages that wait too long, and consume no more until the pool asks: other workers may be idle."""
        self._consume(line, 0)
        log.debug("Gave back %d messages", len(self._ready), extra={"event": "prefetched_returned"})
        unwanted = [delivery for _, delivery in self._ready]
        self._ready.clear()
        self.give_back(unwanted)
