"""Brokers that beatd does not speak to itself go through kombu: SQS, Redis Sentinel, Google Pub/Sub and the rest."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import kombu as _kombu
from amqp.exceptions import ChannelError
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from beatd.broker.amqp_queues import task_queue
from beatd.broker.publisher import (
    PUBLISH_ATTEMPTS,
    PUBLISH_TIMEOUT,
    Address,
    OutgoingMessage,
    Refused,
    outgoing_message,
)
from beatd.exceptions import BrokerError, BrokerRefused, StoreRefused
from beatd.message.protocol import TaskMessage
from beatd.store.client import translated
from beatd.urls import place_of

__all__ = ["KombuPublisher", "task_queue"]

kombu: Any = _kombu  # only half of it is typed

_RETRY_POLICY = {"max_retries": PUBLISH_ATTEMPTS - 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 1}
_PROPERTIES = ("correlation_id", "reply_to", "delivery_mode", "priority")


class KombuPublisher:
    """Publishes through one connection. What a transport says when it returns from a publish is all there is to know.

    Raises :class:`~beatd.exceptions.BrokerError` at once if there is no such transport.
    """

    batch = 100  # most transports take them one by one, some over the internet

    def __init__(self, url: str) -> None:
        self._url = url
        self._place = place_of(url)
        self._lock = threading.Lock()
        self._owner = 0
        self._connection: Any = None
        self._producer: Any = None
        self._declared: set[str] = set()
        try:
            connection = kombu.Connection(url)
            self._refusals = (KombuError, *connection.channel_errors)
            self._outages = tuple(connection.connection_errors)
            self._errors = (KombuError, OSError, *connection.connection_errors, *connection.channel_errors)
        except (KombuError, ImportError, LookupError, ValueError) as error:
            raise BrokerError(f"broker {self._place}: {' '.join(map(str, error.args))}") from error

    def publish(self, message: TaskMessage, *, queue: str, exchange: str = "", routing_key: str | None = None) -> None:
        with self._lock, self._border():
            self._publish(outgoing_message(message, queue, exchange, routing_key), retry=True)

    def publish_many(self, parcels: Sequence[OutgoingMessage]) -> list[Refused]:
        with self._lock, self._border():
            try:
                with self._batch(len(parcels)):
                    for each in parcels:
                        self._publish(each, retry=False)
            except self._refusals as error:
                if self._is_outage(error):
                    raise
                self._drop()
                return self._one_by_one(parcels)
        return []

    def _one_by_one(self, parcels: Sequence[OutgoingMessage]) -> list[Refused]:
        """One of the parcels is refused, and nobody says which: each stands for itself, those that left leave again."""
        refused = []
        for number, each in enumerate(parcels):
            try:
                self._publish(each, retry=False)
            except self._refusals as error:
                if self._is_outage(error):
                    raise
                self._drop()
                refused.append(Refused(number, str(error) or type(error).__name__))
        return refused

    def _is_outage(self, error: Exception) -> bool:
        """Whether the broker will take it later: Redis behind kombu says so with the errors of a refusal."""
        if isinstance(error, RedisError):
            return not isinstance(translated(error, self._place), StoreRefused)
        return isinstance(error, (OSError, OperationalError, *self._outages))

    def bound(self, address: Address) -> None:  # noqa: ARG002 - kombu keeps that to itself
        return None

    def depth(self, queue: str) -> int:
        with self._lock, self._border():
            try:
                return int(self._open().channel.queue_declare(queue, passive=True).message_count)
            except ChannelError:
                self._drop()
                return 0  # there is no such queue
            except self._refusals as error:
                if self._is_outage(error):
                    raise
                self._drop()
                raise BrokerRefused(f"broker {self._place}: {error or type(error).__name__}") from error

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        self._declared.clear()
        if connection is not None and self._owner == os.getpid():
            connection.release()

    def _batch(self, size: int) -> AbstractContextManager[object]:
        """Several publishes in one way to the broker, where kombu (5.7 or newer) and the transport can do that."""
        producer = self._open()
        return producer.batch(max(size, 1)) if hasattr(producer, "batch") else contextlib.nullcontext()

    def _publish(self, each: OutgoingMessage, *, retry: bool) -> None:
        producer, message = self._open(), each.message
        if not each.to.exchange and each.to.key not in self._declared:
            task_queue(each.to.key)(producer.channel).declare()
            self._declared.add(each.to.key)
        ttl_ms = message.properties.get("expiration")
        producer.publish(
            message.body,
            exchange=each.to.exchange,
            routing_key=each.to.key,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=dict(message.headers),
            expiration=None if ttl_ms is None else int(ttl_ms) / 1000,  # kombu takes seconds and writes milliseconds
            retry=retry,
            retry_policy=_RETRY_POLICY,
            timeout=PUBLISH_TIMEOUT,
            **{name: message.properties[name] for name in _PROPERTIES if name in message.properties},
        )

    def _open(self) -> Any:
        """The producer of this process: a connection that was opened before a fork belongs to the parent."""
        if self._producer is None or self._owner != os.getpid():
            self._owner = os.getpid()
            self._declared.clear()
            self._connection = kombu.Connection(self._url, connect_timeout=PUBLISH_TIMEOUT)
            self._connection.ensure_connection(max_retries=self._url.count(";"), interval_start=0)
            self._producer = kombu.Producer(self._connection, auto_declare=False)
        return self._producer

    @contextmanager
    def _border(self) -> Iterator[None]:
        """Let beatd's errors out instead of the transport's."""
        try:
            yield
        except self._errors as error:
            self._drop()
            raise BrokerError(f"broker {self._place}: {error or type(error).__name__}") from error
