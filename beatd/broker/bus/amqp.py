"""The bus on RabbitMQ: a fanout exchange for commands, a direct one for answers, a topic exchange for events."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import amqp
import kombu as _kombu
from amqp.exceptions import AMQPError, ResourceLocked
from kombu.exceptions import KombuError

from beatd.broker.bus.base import BusMessage, Names, check_reply_address, from_message, to_message
from beatd.broker.rights import explained
from beatd.exceptions import BrokerError, MessageError
from beatd.message.protocol import TaskMessage
from beatd.urls import BrokerUrl

log = logging.getLogger(__name__)

kombu: Any = _kombu  # only half of it is typed

_HEARTBEAT_S = 30
_QUEUE = {"x-expires": 10_000, "x-message-ttl": 300_000}
"""As Celery declares mailboxes: other arguments would be refused if the queue is there already."""
_KEPT = 1_000
"""Letters that wait to be fetched; a worker that is busy for long need not answer all of those who gave up."""


class AmqpBus:
    """One connection with one channel."""

    def __init__(self, url: str, names: Names, timeout: float) -> None:
        self._url = BrokerUrl.parse(url)
        self._names = names
        self._timeout = timeout
        self.place = self._url.shown
        self.listening = True
        self._kombu: Any = None
        self._channel: Any = None
        self._exchanges: set[str] = set()
        self._requests: deque[BusMessage] = deque(maxlen=_KEPT)
        self._replies: deque[BusMessage] = deque(maxlen=_KEPT)

    def connect(self, *, node: str | None = None, oid: str | None = None) -> None:
        with self._translate_errors():
            if self._channel is None:
                self._open()
            if node is not None:
                self._consume(f"{node}.{self._names.mailbox}", self._names.mailbox, "", self._requests)
            if oid is not None:
                self._consume(f"{oid}.{self._names.replies}", self._names.replies, oid, self._replies)

    def _open(self) -> None:
        self._kombu = kombu.Connection(
            self._url.bare,
            **{"connect_timeout": self._timeout, "heartbeat": _HEARTBEAT_S, **self._url.options},
            transport_options={
                "read_timeout": self._timeout,
                "write_timeout": self._timeout,
                "client_properties": {"connection_name": "beatd-control"},
                "on_blocked": self._on_blocked,
                "on_unblocked": self._on_unblocked,
            },
        )
        retries = self._url.bare.count(";")
        self._kombu.ensure_connection(max_retries=retries, interval_start=0, reraise_as_library_errors=False)
        self.listening = True
        self._exchanges.clear()
        self._channel = self._kombu.connection.channel()
        self._declare(self._names.mailbox, "fanout", durable=False)
        self._declare(self._names.replies, "direct", durable=False)
        self._declare(self._names.events, "topic", durable=True)

    def _declare(self, exchange: str, kind: str, *, durable: bool) -> None:
        if exchange not in self._exchanges:
            self._channel.exchange_declare(exchange, kind, durable=durable, auto_delete=False)
            self._exchanges.add(exchange)

    def _consume(self, queue: str, exchange: str, key: str, inbox: deque[BusMessage]) -> None:
        self._channel.queue_declare(queue, durable=False, exclusive=True, auto_delete=True, arguments=_QUEUE)
        self._channel.queue_bind(queue, exchange, routing_key=key)
        self._channel.basic_consume(queue, no_ack=True, callback=lambda message: _put(inbox, message))

    def files(self) -> list[int]:
        sock = self._kombu.connection.sock if self._channel is not None and self._kombu.connected else None
        return [sock.fileno()] if sock is not None else []

    def requests(self, at_most: int) -> list[BusMessage]:
        self._listen(at_most)
        return [self._requests.popleft() for _ in range(min(at_most, len(self._requests)))]

    def replies(self, at_most: int) -> list[BusMessage]:
        self._listen(at_most)
        return [self._replies.popleft() for _ in range(min(at_most, len(self._replies)))]

    def _listen(self, at_most: int) -> None:
        if self._channel is None:
            return
        with self._translate_errors():
            try:
                for _ in range(at_most):
                    self._kombu.connection.drain_events(timeout=0)
            except (TimeoutError, BlockingIOError):
                return  # nothing more to read

    def broadcast(self, message: BusMessage) -> int | None:
        self._publish(to_message(message, transient=False), self._names.mailbox, "")
        return None

    def reply(self, message: BusMessage, exchange: str, routing_key: str) -> None:
        check_reply_address(exchange, routing_key)
        with self._translate_errors():
            self._declare(exchange, "direct", durable=False)
        self._publish(to_message(message), exchange, routing_key)

    def emit(self, routing_key: str, message: BusMessage) -> None:
        self._publish(to_message(message, plain=True), self._names.events, routing_key)

    def _publish(self, message: TaskMessage, exchange: str, routing_key: str) -> None:
        packed = amqp.Message(
            message.body,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            application_headers=message.headers,
            **message.properties,
        )
        with self._translate_errors():
            if self._channel is None:
                raise OSError("not connected")
            self._channel.basic_publish(packed, exchange=exchange, routing_key=routing_key)

    def tend(self) -> None:
        with self._translate_errors():
            if self._channel is not None:
                self._kombu.connection.heartbeat_tick()

    def close(self) -> None:
        connection, self._channel = self._kombu, None
        self._kombu = None
        if connection is None:
            return
        with contextlib.suppress(AMQPError, KombuError, OSError):
            if self.listening and connection.connected:
                connection.connection.close()
        with contextlib.suppress(AMQPError, KombuError, OSError, AttributeError):
            connection.collect()

    def _on_blocked(self, _reason: str) -> None:
        self.listening = False

    def _on_unblocked(self) -> None:
        self.listening = True

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except ResourceLocked as error:
            text = f"broker {self.place}: another worker of the same name is connected ({error.reply_text})"
            raise BrokerError(text) from error
        except (AMQPError, KombuError, OSError) as error:
            raise BrokerError(f"broker {self.place}: {explained(error)}") from error


def _put(inbox: deque[BusMessage], message: Any) -> None:
    """Into the inbox, unless it cannot be read."""
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
    try:
        inbox.append(from_message(body, str(message.properties.get("content_type")), dict(message.headers or {})))
    except MessageError as error:
        log.warning("Control message cannot be read: %s", error, extra={"event": "control_unreadable"})
