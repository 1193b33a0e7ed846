"""Publisher for all other brokers, through kombu: SQS, Redis Sentinel, Google Pub/Sub and the rest."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import kombu as _kombu
from amqp.exceptions import AMQPError, ChannelError
from kombu import pools
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from beatd.broker.amqp_queues import task_queue
from beatd.broker.publisher import (
    PUBLISH_ATTEMPTS,
    PUBLISH_TIMEOUT,
    Address,
    OutgoingMessage,
    Refused,
    Waiting,
    outgoing_message,
)
from beatd.clock import monotonic
from beatd.exceptions import BrokerError, BrokerRefused, StoreRefused
from beatd.message.protocol import TaskMessage
from beatd.store.client import connect, store_error
from beatd.url_keyprefix import OPTION, global_keyprefix, without_keyprefix
from beatd.urls import BrokerUrl, is_amqp, is_redis, redis_url, shown

__all__ = ["KombuPublisher", "connection", "purge", "task_queue"]

kombu: Any = _kombu  # only half of it is typed

BROKEN = (OSError, KombuError, AMQPError, RedisError, KeyError, ImportError, ValueError)
"""Errors of connections: of the network, the broker, and of transports that are unknown or not installed."""

_RETRY_POLICY = {"max_retries": PUBLISH_ATTEMPTS - 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 1}
_PROPERTIES = ("app_id", "correlation_id", "delivery_mode", "message_id", "priority", "reply_to", "user_id")


def connection(url: str, **options: Any) -> Any:
    """Return a ``kombu.Connection``; ``options`` are its keywords."""
    if is_amqp(url):
        parsed = BrokerUrl.parse(url)
        return kombu.Connection(parsed.bare, **{**parsed.options, **options})
    if is_redis(url):
        url = url.split(";", maxsplit=1)[0]
        if prefix := global_keyprefix(url):
            options["transport_options"] = {**(options.get("transport_options") or {}), OPTION: prefix}
            url = without_keyprefix(url)
    return kombu.Connection(url, **options)


def pool(connection: Any, *, producers: bool) -> Any:
    """Return kombu's pool of connections, or of producers, to the broker of a connection."""
    return (pools.producers if producers else pools.connections)[connection]


def ping(url: str) -> None:
    """Raise at once if a Redis cannot be reached; its client in kombu would try for some seconds before."""
    if is_redis(url):
        with connect(redis_url(url), timeout_ms=round(PUBLISH_TIMEOUT * 1000), role="broker") as client:
            client.ping()


def purge(url: str, queues: Sequence[str]) -> int:
    """Delete the messages that wait in these queues; returns their number. Raises BrokerError."""
    count = 0
    try:
        ping(url)
        with connection(url, connect_timeout=PUBLISH_TIMEOUT) as opened:
            for name in queues:
                try:
                    count += opened.default_channel.queue_purge(name)
                except opened.channel_errors:  # no such queue; RabbitMQ closes the channel
                    opened.close()
    except BROKEN as error:
        raise BrokerError(f"cannot purge the queues at {shown(url)}: {error}") from None
    return count


BATCH_MAX = 100
"""Messages of a batch: most transports take them one by one, some over the internet."""
BATCH_WITHIN_S = 15.0
"""Seconds after which a batch is broken off, and the next ones are smaller: the daemon counts as hung after a minute
without progress, and a batch may be published twice, see ``_one_by_one``."""


class KombuPublisher:
    """Publishes through one connection. A message counts as delivered when the transport returns from its publish.

    Raises :class:`~beatd.exceptions.BrokerError` at once if there is no such transport.
    """

    def __init__(
        self, url: str, transport_options: Mapping[str, Any] | None = None, *, within_s: float = BATCH_WITHIN_S
    ) -> None:
        self.batch = BATCH_MAX
        self._within_s = within_s
        self._url = url
        self._options = {"transport_options": dict(transport_options or {})}
        self._place = shown(url)
        self._lock = threading.Lock()
        self._owner = 0
        self._connection: Any = None
        self._producer: Any = None
        self._declared: set[str] = set()
        try:
            connection = kombu.Connection(url, **self._options)
            self._refusals = (KombuError, *connection.channel_errors)
            self._outages = tuple(connection.connection_errors)
        except (KombuError, ImportError, LookupError, ValueError) as error:
            raise BrokerError(f"broker {self._place}: {' '.join(map(str, error.args))}") from error

    def publish(self, message: TaskMessage, *, queue: str, exchange: str = "", routing_key: str | None = None) -> None:
        with self._lock, self._translate_errors():
            self._publish(outgoing_message(message, queue, exchange, routing_key), retry=True)

    def publish_many(self, messages: Sequence[OutgoingMessage]) -> list[Refused]:
        with self._lock, self._translate_errors():
            try:
                with self._batch(len(messages)):
                    for _, outgoing in self._in_time(messages):
                        self._publish(outgoing, retry=False)
            except BrokerError:
                raise
            except Exception as error:
                if self._is_outage(error):
                    raise
                self._close()
                return self._one_by_one(messages)
        return []

    def _one_by_one(self, messages: Sequence[OutgoingMessage]) -> list[Refused]:
        """Publish each message alone: one is refused, and the transport does not say which. Some are sent twice."""
        refused = []
        for number, outgoing in self._in_time(messages):
            try:
                self._publish(outgoing, retry=False)
            except Exception as error:
                if self._is_outage(error):
                    raise
                self._close()
                refused.append(Refused(number, str(error) or type(error).__name__))
        return refused

    def _in_time(self, messages: Sequence[OutgoingMessage]) -> Iterator[tuple[int, OutgoingMessage]]:
        """Yield messages with their numbers. A batch that takes too long is broken off: the next one has half as
        many messages as this one had in time, and twice as many after each that is quick."""
        began = monotonic()
        for number, outgoing in enumerate(messages):
            if number and monotonic() - began > self._within_s:
                self.batch = max(1, number // 2)
                raise BrokerError(
                    f"broker {self._place}: it took {number} of {len(messages)} messages in {self._within_s:g} s;"
                    " the next batches are smaller"
                )
            yield number, outgoing
        if monotonic() - began < self._within_s / 4:
            self.batch = min(BATCH_MAX, 2 * self.batch)

    def _is_outage(self, error: Exception) -> bool:
        """True if the broker may take it later: Redis behind kombu raises the errors of a refusal then."""
        if isinstance(error, RedisError):
            return not isinstance(store_error(error, self._place), StoreRefused)
        if isinstance(error, self._refusals):
            return isinstance(error, (OSError, OperationalError, *self._outages))
        return not _is_refusal(error)

    def bound(self, address: Address) -> None:  # noqa: ARG002 - kombu has no such call
        return None

    def depth(self, queue: str) -> int:
        with self._lock, self._translate_errors():
            try:
                return int(self._open().channel.queue_declare(queue, passive=True).message_count)
            except ChannelError:
                self._close()
                return 0  # there is no such queue
            except self._refusals as error:
                if self._is_outage(error):
                    raise
                self._close()
                raise BrokerRefused(f"broker {self._place}: {error or type(error).__name__}") from error

    def waiting(self, queues: Sequence[str]) -> list[Waiting]:
        return [Waiting(self.depth(queue)) for queue in queues]  # a look at a message would take it out

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        self._declared.clear()
        if connection is not None and self._owner == os.getpid():
            connection.release()

    def _batch(self, size: int) -> AbstractContextManager[object]:
        """Pipeline several publishes, where kombu (5.7 or newer) and the transport can do that."""
        producer = self._open()
        return producer.batch(max(size, 1)) if hasattr(producer, "batch") else contextlib.nullcontext()

    def _publish(self, outgoing: OutgoingMessage, *, retry: bool) -> None:
        producer, message = self._open(), outgoing.message
        if not outgoing.to.exchange and outgoing.to.key not in self._declared:
            task_queue(outgoing.to.key)(producer.channel).declare()
            self._declared.add(outgoing.to.key)
        ttl_ms = message.properties.get("expiration")
        producer.publish(
            message.body,
            exchange=outgoing.to.exchange,
            routing_key=outgoing.to.key,
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
        """Return the producer of this process: a connection that was opened before a fork belongs to the parent."""
        if self._producer is None or self._owner != os.getpid():
            self._owner = os.getpid()
            self._declared.clear()
            self._connection = kombu.Connection(self._url, connect_timeout=PUBLISH_TIMEOUT, **self._options)
            self._connection.ensure_connection(max_retries=self._url.count(";"), interval_start=0)
            self._producer = kombu.Producer(self._connection, auto_declare=False)
        return self._producer

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise beatd's errors in place of the transport's, also of those that it does not name, as SQS does."""
        try:
            yield
        except BrokerError:
            raise
        except Exception as error:
            self._close()
            raise BrokerError(f"broker {self._place}: {str(error) or type(error).__name__}") from error


_BAD_REQUEST, _TOO_LARGE = 400, 413
_PASSING = ("throttl", "limit", "expired", "token", "credential", "slow")
"""Parts of codes of services for requests that are refused whatever is in them."""


def _is_refusal(error: Exception) -> bool:
    """True for the answer of a service that says no to one message or queue: boto's ``ClientError`` is no error of
    kombu's SQS transport."""
    answer = getattr(error, "response", None)
    facts = answer if isinstance(answer, Mapping) else {}
    status = facts.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = str(facts.get("Error", {}).get("Code", "")).lower()
    return status in (_BAD_REQUEST, _TOO_LARGE) and not any(word in code for word in _PASSING)
