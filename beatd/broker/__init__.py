"""Publishing: one port, :class:`Publisher`, and an adapter for every kind of broker.

The contract: when ``publish`` returns, the broker has the message; when it raises
:class:`~beatd.exceptions.BrokerError`, the broker refused it, or its state is unknown; a repeat carries the same task
id.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from beatd.broker.bindings import Binding
from beatd.broker.publisher import Address, Arguments, OutgoingMessage, Publisher, Refused, no_arguments
from beatd.urls import check_broker, is_amqp, is_cluster, is_redis, redis_url

__all__ = [
    "Address",
    "Arguments",
    "OutgoingMessage",
    "Publisher",
    "Refused",
    "binder_of",
    "connection",
    "delayed_delivery_of",
    "is_amqp",
    "is_redis",
    "no_arguments",
    "open",
    "pool",
    "purge",
    "read_events",
    "redis_url",
    "try_rights",
]


def open(  # noqa: A001 - reads as ``broker.open(url)``
    url: str, *, arguments: Arguments = no_arguments, transport_options: Mapping[str, Any] | None = None
) -> Publisher:
    """Return a publisher for the broker at ``url``: Redis and RabbitMQ natively, everything else through kombu.

    Connects on first use. The adapters are imported here, so that a program that never talks to RabbitMQ does not load
    kombu. On RabbitMQ a missing queue is declared with its ``arguments``; ``transport_options`` are for kombu. Raises
    :class:`~beatd.exceptions.WrongUrl` for a Redis Cluster.
    """
    if is_cluster(url):
        check_broker(url)
    if is_redis(url):
        from beatd.broker.redis import RedisPublisher  # noqa: PLC0415

        return RedisPublisher(url)
    if is_amqp(url):
        from beatd.broker.amqp_publisher import AmqpPublisher  # noqa: PLC0415

        return AmqpPublisher(url, arguments)
    from beatd.broker.kombu import KombuPublisher  # noqa: PLC0415

    return KombuPublisher(url, transport_options)


def connection(url: str, **options: Any) -> Any:
    """Return a ``kombu.Connection`` to the broker, for a program's own use; it connects on first use."""
    from beatd.broker.kombu import connection as connected  # noqa: PLC0415

    return connected(url, **options)


def pool(connection: Any, *, producers: bool = False) -> Any:
    """Return kombu's pool of connections, or of producers, to the broker of a connection."""
    from beatd.broker.kombu import pool as found  # noqa: PLC0415

    return found(connection, producers=producers)


def purge(url: str, queues: Sequence[str]) -> int:
    """Delete the messages that wait in these queues; returns their number. Raises BrokerError."""
    from beatd.broker.kombu import purge as purged  # noqa: PLC0415

    return purged(url, queues)


def delayed_delivery_of(conf: Mapping[str, Any]) -> Callable[[Any], None] | None:
    """Return the function that declares Celery's delayed delivery on a RabbitMQ; None if no queue needs it."""
    from beatd.broker.delayed_delivery import delayed_delivery as found  # noqa: PLC0415

    return found(conf)


def binder_of(bindings: Sequence[Binding], arguments: Arguments) -> Callable[[Any], None]:
    """Return the function that makes bindings known over a ``kombu.Connection`` to a RabbitMQ."""
    from beatd.broker.amqp_queues import bind  # noqa: PLC0415

    return lambda connection: bind(connection, bindings, arguments)


def read_events(url: str, exchange: str = "celeryev") -> Generator[Mapping[str, Any] | None]:
    """Yield the events of workers as they come, and None after each second without one. Raises BrokerError."""
    from beatd.broker.event_stream import read_events as read  # noqa: PLC0415

    return read(url, exchange)


def try_rights(url: str, queues: Sequence[str], exchanges: Sequence[str] = ()) -> list[str]:
    """Check the rights on a RabbitMQ; return notes. Raises :class:`~beatd.exceptions.BrokerError`: what is wrong."""
    from beatd.broker.rights import try_rights as tried  # noqa: PLC0415

    return tried(url, queues, exchanges)
