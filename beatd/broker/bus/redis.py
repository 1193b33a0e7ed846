"""The bus on Redis, as kombu lays it out: pub/sub channels for broadcasts, a list for the answers to one asker."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import redis

from beatd.broker.bus.base import BusMessage, Names, check_reply_address, from_message, to_envelope, to_message
from beatd.broker.redis_keys import RedisKeys, binding_member
from beatd.clock import monotonic
from beatd.exceptions import BrokerError, MessageError, StoreError
from beatd.message.protocol import TaskMessage, envelope, open_envelope
from beatd.store.client import connect, place_of, translate_errors

log = logging.getLogger(__name__)

_REPLY_KEPT_S = 10
"""How long an answer waits for an asker; kombu's ``x-expires`` of reply queues."""
_WAIT_S = 5
"""How long the server keeps the connection for answers waiting."""
_PING_AFTER_S = 15.0
_DEAD_AFTER_S = 45.0


class RedisBus:
    """One server and database: the number of the database is part of the channels' names, as in kombu."""

    listening = True

    def __init__(self, url: str, names: Names, timeout: float) -> None:
        self._client = connect(url, timeout_ms=int(timeout * 1000), name="beatd-control", role="broker")
        self._names = names
        self._keys = RedisKeys.of(url)
        self._database = int(self._client.connection_pool.connection_kwargs.get("db") or 0)
        self.place = place_of(self._client)
        self._subscription: Any = None
        self._heard = self._pinged = 0.0
        self._answers: Any = None
        """A connection that waits for answers, and in whose name."""
        self._oid = ""

    def connect(self, *, node: str | None = None, oid: str | None = None) -> None:
        with self._translate_errors():
            if oid is not None:
                self._expect(oid)
            if node is not None and self._subscription is None:
                self._subscribe()

    def _subscribe(self) -> None:
        self._subscription = self._connection()
        channel = self._keys.channel(self._database, self._names.mailbox)
        self._subscription.send_command("SUBSCRIBE", channel, check_health=False)
        self._subscription.read_response(push_request=True)
        self._heard = self._pinged = monotonic()

    def _expect(self, oid: str) -> None:
        """Bind the list for answers as kombu does: Celery's workers look there before they answer."""
        self._oid = oid
        with ThreadPoolExecutor(1, "connect") as threads:
            answers = threads.submit(self._connection)
            self._client.sadd(self._keys.bindings(self._names.replies), self._binding)
            self._answers = answers.result()
        self._ask()

    def _connection(self) -> Any:
        connection: Any = self._client.connection_pool.make_connection()
        connection.connect()
        return connection

    @property
    def _queue(self) -> str:
        return f"{self._oid}.{self._names.replies}"

    @property
    def _binding(self) -> str:
        return binding_member(self._oid, "", self._queue)

    def _ask(self) -> None:
        self._answers.send_command("BRPOP", self._keys.queue(self._queue), _WAIT_S, check_health=False)

    def files(self) -> list[int]:
        return [one._sock.fileno() for one in (self._subscription, self._answers) if one is not None and one._sock]

    def requests(self, at_most: int) -> list[BusMessage]:
        if self._subscription is None:
            return []
        messages: list[BusMessage] = []
        with self._translate_errors():
            while len(messages) < at_most and self._subscription.can_read(timeout=0):
                answer = self._subscription.read_response(push_request=True)
                self._heard = monotonic()
                if isinstance(answer, list) and answer[0] == b"message":
                    messages += _messages(answer[2])
        return messages

    def replies(self, at_most: int) -> list[BusMessage]:
        if self._answers is None:
            return []
        messages: list[BusMessage] = []
        with self._translate_errors():
            while len(messages) < at_most and self._answers.can_read(timeout=0):
                answer = self._answers.read_response()
                self._ask()
                if answer:
                    messages += _messages(answer[1])
        return messages

    def broadcast(self, message: BusMessage) -> int | None:
        return self._publish(self._names.mailbox, "", to_message(message, transient=False))

    def emit(self, routing_key: str, message: BusMessage) -> None:
        self._publish(self._names.events, routing_key, to_message(message, plain=True))

    def _publish(self, exchange: str, routing_key: str, message: TaskMessage) -> int:
        raw = to_envelope(message, exchange, routing_key)
        channel = self._keys.channel(self._database, exchange, routing_key)
        with self._translate_errors():
            return int(self._client.publish(channel, raw))

    def reply(self, message: BusMessage, exchange: str, routing_key: str) -> None:
        check_reply_address(exchange, routing_key)
        queue = self._keys.queue(f"{routing_key}.{exchange}")
        raw = envelope(to_message(message), queue=routing_key, exchange=exchange)
        with self._translate_errors(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.lpush(queue, raw)
            pipeline.expire(queue, _REPLY_KEPT_S)  # should the asker not be there any more
            pipeline.execute()

    def tend(self) -> None:
        if self._subscription is None:
            return
        now = monotonic()
        if now - self._heard > _DEAD_AFTER_S:
            raise BrokerError(f"broker {self.place}: no sign of life for {_DEAD_AFTER_S:g} s")
        if now - max(self._heard, self._pinged) > _PING_AFTER_S:
            self._pinged = now
            with self._translate_errors():
                self._subscription.send_command("PING", check_health=False)

    def close(self) -> None:
        with contextlib.suppress(redis.RedisError, OSError):
            if self._answers is not None:
                with self._client.pipeline(transaction=False) as pipeline:
                    pipeline.srem(self._keys.bindings(self._names.replies), self._binding)
                    pipeline.delete(self._keys.queue(self._queue))
                    pipeline.execute()
        for connection in (self._subscription, self._answers):
            with contextlib.suppress(redis.RedisError, OSError):
                if connection is not None:
                    connection.disconnect()
        self._subscription = self._answers = None
        with contextlib.suppress(redis.RedisError, OSError):
            self._client.close()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            with translate_errors(self._client):
                yield
        except StoreError as error:
            raise BrokerError(str(error)) from error
        except OSError as error:
            raise BrokerError(f"broker {self.place}: {error}") from error


def _messages(raw: bytes) -> list[BusMessage]:
    """Return the message in an envelope; none if it cannot be read."""
    try:
        message = open_envelope(raw)
        return [from_message(message.body, message.content_type, message.headers)]
    except MessageError as error:
        log.warning("Control message cannot be read: %s", error, extra={"event": "control_unreadable"})
        return []
