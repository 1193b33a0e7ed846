"""Move messages from one broker to another: read as they are, publish unchanged, acknowledge what has arrived.

A message leaves its source only after the destination has confirmed it. So nothing is lost at any point; what is
interrupted between the two steps is in both brokers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import kombu as _kombu
from kombu import compression

from beatd.broker.amqp_queues import ensure_queue, task_queue
from beatd.broker.kombu import BROKEN, connection, ping
from beatd.broker.publisher import PUBLISH_TIMEOUT, Arguments, no_arguments
from beatd.exceptions import BrokerError, MessageError
from beatd.message.protocol import TaskMessage, open_envelope
from beatd.urls import is_amqp, shown

kombu: Any = _kombu  # only half of it is typed
_compression: Any = compression

_KEPT = ("app_id", "correlation_id", "delivery_mode", "message_id", "priority", "reply_to", "timestamp", "type")
"""Properties that travel with a message; the rest belongs to a transport. A user_id would be refused elsewhere."""


class Taken(NamedTuple):
    """A message that its source has handed out: the receipt, its queue, and the message, or None and the reason."""

    receipt: Any
    queue: str
    message: TaskMessage | None
    fault: str = ""

    @property
    def task(self) -> str:
        """The task's name; protocol 1 has it in the body."""
        return str(self.message.headers.get("task") or "?") if self.message is not None else "?"


class Source(Protocol):
    """Queues that messages are taken from. What is taken and not acknowledged returns to its queue on ``close``."""

    def take(self, at_most: int) -> list[Taken]:
        """Return the next messages; never waits for one."""

    def acknowledge(self, taken: Sequence[Taken]) -> None:
        """Remove messages for good."""

    def is_awaited(self) -> bool:
        """True if messages that an interrupted migration holds may still return."""

    def close(self) -> None:
        """Return what was not acknowledged, and disconnect."""


def taken_from_envelope(receipt: Any, queue: str, raw: bytes) -> Taken:
    """Return a message of a Redis list."""
    try:
        return Taken(receipt, queue, open_envelope(raw))
    except MessageError as error:
        return Taken(receipt, queue, None, str(error))


class KombuSource:
    """Source on RabbitMQ, or on any transport of kombu's. Raises BrokerError."""

    def __init__(self, url: str, queues: Sequence[str]) -> None:
        self._place = shown(url)
        self._queues = list(queues)
        with _broker_errors("read from", self._place):
            self._connection = connection(url, connect_timeout=PUBLISH_TIMEOUT)
            self._connection.ensure_connection(max_retries=url.count(";"), interval_start=0)
            self._channel = self._connection.channel()
            self._queues = [name for name in self._queues if self._exists(name)]

    def take(self, at_most: int) -> list[Taken]:
        found: list[Taken] = []
        with _broker_errors("read from", self._place):
            for queue in self._queues:
                while len(found) < at_most and (message := self._channel.basic_get(queue)) is not None:
                    found.append(_taken(queue, message, self._channel))
        return found

    def acknowledge(self, taken: Sequence[Taken]) -> None:
        with _broker_errors("acknowledge at", self._place):
            for one in taken:
                self._channel.basic_ack(one.receipt)

    def is_awaited(self) -> bool:
        return False  # the broker returns them when a connection ends

    def close(self) -> None:
        with _broker_errors("read from", self._place):
            self._connection.release()

    def _exists(self, queue: str) -> bool:
        """True if the queue is there: RabbitMQ closes a channel that asks for another."""
        try:
            self._channel.queue_declare(queue, passive=True)
        except self._connection.channel_errors:
            self._channel = self._connection.channel()
            return False
        return True


def _taken(queue: str, raw: Any, channel: Any) -> Taken:
    message = channel.message_to_python(raw)
    if message.errors:
        return Taken(message.delivery_tag, queue, None, f"it cannot be unpacked: {message.errors[0]!r}")
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body or b"")
    headers = dict(message.headers or {})
    if headers.get("compression"):  # kombu has decompressed it
        body, headers["compression"] = _compression.compress(body, headers["compression"])
    return Taken(
        message.delivery_tag,
        queue,
        TaskMessage(
            headers=headers,
            body=body,
            properties=dict(message.properties or {}),
            content_type=str(message.content_type or "application/data"),
            content_encoding=str(message.content_encoding or "binary"),
        ),
    )


class Destination:
    """Broker that messages are moved to. Missing queues are declared with ``arguments``. Raises BrokerError."""

    def __init__(self, url: str, arguments: Arguments = no_arguments) -> None:
        self._place = shown(url)
        self._is_amqp = is_amqp(url)
        self._arguments = arguments
        self._declared: set[str] = set()
        self._returned: list[str] = []
        options = {"transport_options": {"confirm_publish": True}} if self._is_amqp else {}
        with _broker_errors("move to", self._place):
            ping(url)
            self._connection = connection(url, connect_timeout=PUBLISH_TIMEOUT, **options)
            self._connection.ensure_connection(max_retries=url.count(";"), interval_start=0)
            on_return = self._on_return if self._is_amqp else None
            self._producer = kombu.Producer(self._connection, auto_declare=False, on_return=on_return)

    def put(self, queue: str, message: TaskMessage) -> None:
        """Publish a message; returns when the broker has it."""
        ttl_ms = message.properties.get("expiration")
        with _broker_errors("move to", self._place):
            self._declare(queue, int(message.properties.get("priority") or 0))
            self._producer.publish(
                message.body,
                exchange="",
                routing_key=queue,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                headers=dict(message.headers),
                expiration=None if ttl_ms is None else int(ttl_ms) / 1000,  # kombu takes seconds
                mandatory=self._is_amqp,
                timeout=PUBLISH_TIMEOUT,
                **{name: value for name in _KEPT if (value := message.properties.get(name)) is not None},
            )
        if self._returned:
            raise BrokerError(f"broker {self._place}: queue {queue!r} does not get messages: {self._returned[0]}")

    def close(self) -> None:
        with _broker_errors("move to", self._place):
            self._connection.release()

    def _declare(self, queue: str, priority: int) -> None:
        if queue in self._declared:
            return
        self._declared.add(queue)
        if self._is_amqp:
            ensure_queue(self._connection.connection, queue, priority=priority, arguments=self._arguments(queue))
        else:
            task_queue(queue)(self._producer.channel).declare()

    def _on_return(self, error: Any, *_: Any) -> None:
        self._returned.append(str(getattr(error, "reply_text", error)))


@contextmanager
def _broker_errors(doing: str, place: str) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise BrokerError(f"cannot {doing} the broker {place}: {error or type(error).__name__}") from None
