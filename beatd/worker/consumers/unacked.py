"""Unacknowledged messages from RabbitMQ: each with its delivery tag, recognised when the broker delivers it again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from beatd.broker.amqp_codec import Content
from beatd.clock import monotonic
from beatd.worker.consumers.rabbitmq_connection import ConsumerConnection
from beatd.worker.messages import Delivery

_REMEMBERED = 5_000
_BELIEVED_S = 60.0
"""Time for which acknowledgements on a broken connection still count; later the message may be a new one."""

Identity = tuple[str, ...]
"""Id, retries, ETA and nesting: ``Task.replace`` sends another message under the id."""


class _Message(NamedTuple):
    """The connection of a message, its delivery tag there, its identity, and the number of the consumers it came to."""

    connection: ConsumerConnection | None
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

    def add(self, connection: ConsumerConnection, content: Content) -> int | None:
        """Add a delivery; returns its tag, or None for the redelivery of a message that runs or has ended."""
        headers = content.properties.get("headers") or {}
        names = ("retries", "eta", "replaced_task_nesting")
        identity = (str(headers.get("id", "")), *(str(headers.get(name)) for name in names))
        if content.redelivered and identity[0] and self._match_redelivery(connection, content, identity):
            return None
        self._tag += 1
        self._add(self._tag, connection, content, identity)
        return self._tag

    def renew(self) -> None:
        """Handle new consumers: the messages that came before do not count in their prefetch."""
        self._consumers += 1
        self.recent = 0

    def _add(self, tag: int, connection: ConsumerConnection, content: Content, identity: Identity) -> None:
        self._messages[tag] = _Message(connection, content.tag, identity, self._consumers)
        self.recent += 1

    def release(
        self, deliveries: Sequence[Delivery], connection: ConsumerConnection | None, *, acked: bool | None = None
    ) -> list[int]:
        """Remove messages; returns their delivery tags on ``connection``, ascending.

        ``acked``: they have run or begun, and are acknowledged (true) or rejected. So is their redelivery: it does not
        run.
        """
        numbers = []
        for one in deliveries:
            message = self._messages.pop(one.tag, None)
            if message is None:
                continue
            self.recent -= message.consumers == self._consumers
            is_current = connection is not None and message.connection is connection
            if is_current:
                numbers.append(message.number)
            if acked is None:
                continue
            self._settled[message.identity] = acked
            if len(self._settled) > _REMEMBERED:
                del self._settled[next(iter(self._settled))]
            if not is_current:
                self._done[message.identity] = acked  # when it comes again
        return sorted(numbers)

    def oldest(self, connection: ConsumerConnection) -> float:
        """Return the smallest unsettled delivery tag of a connection; infinite if there is none."""
        numbers = (message.number for message in self._messages.values() if message.connection is connection)
        return next(numbers, math.inf)

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
        self._messages = {tag: message._replace(connection=None) for tag, message in self._messages.items()}
        self._orphans = {message.identity: tag for tag, message in self._messages.items()}
        self._believed_until = math.inf

    def begin(self) -> None:
        """Handle a new connection."""
        self._believed_until = monotonic() + _BELIEVED_S

    def _match_redelivery(self, connection: ConsumerConnection, content: Content, identity: Identity) -> bool:
        if identity in self._done and monotonic() < self._believed_until:
            if self._done.pop(identity):
                connection.ack(content.tag, multiple=False)
            else:
                connection.reject(content.tag)
            return True
        tag = self._orphans.pop(identity, None)
        if tag is None or self._messages.pop(tag, None) is None:
            return False
        self._add(tag, connection, content, identity)  # at the end: the numbers in it only grow
        return True
