"""Queue declaration on RabbitMQ: as Celery declares queues, and only missing ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import kombu as _kombu
from amqp.exceptions import ChannelError, NotFound

from beatd.broker.bindings import Binding, log_not_bound
from beatd.broker.publisher import Arguments

log = logging.getLogger("beatd.broker")

kombu: Any = _kombu  # only half of it is typed


def task_queue(name: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """Return the queue as Celery declares it: RabbitMQ refuses other arguments once it exists."""
    exchange = kombu.Exchange(name, type="direct", durable=True)
    return kombu.Queue(name, exchange, routing_key=name, durable=True, queue_arguments=dict(arguments or {}) or None)


def ensure_queue(connection: Any, name: str, *, priority: int, arguments: Mapping[str, Any] | None = None) -> None:
    """Declare the queue with ``arguments`` if it is missing; an existing one keeps its own, such as ``x-max-priority``.

    A refusal is logged and no error yet: publishing shows if messages arrive.
    """
    try:
        with connection.channel() as channel:
            channel.queue_declare(name, passive=True)
    except NotFound:
        _declare(connection, name, priority, arguments or {})
    except ChannelError as error:
        _log_failure(name, error)


def bind(connection: Any, bindings: Iterable[Binding], arguments: Arguments) -> None:
    """Declare exchanges and missing queues over a ``kombu.Connection``, and bind them; a refusal is logged."""
    for one in bindings:
        try:
            if one.auto_delete:
                with connection.channel() as channel:
                    channel.queue_declare(one.queue, durable=False, auto_delete=True)
            else:
                ensure_queue(connection.connection, one.queue, priority=0, arguments=arguments(one.queue))
            with connection.channel() as channel:
                kombu.Exchange(one.exchange, type=one.kind, durable=one.durable)(channel).declare()
                channel.queue_bind(one.queue, one.exchange, one.key)
        except ChannelError as error:
            log_not_bound(one, error)


def has_exchange(connection: Any, name: str) -> bool:
    """True if there is an exchange of that name. A message to a missing one would close the connection."""
    try:
        with connection.channel() as channel:
            channel.exchange_declare(name, "direct", passive=True)
    except NotFound:
        return False
    except ChannelError as error:
        log.warning("Exchange %s: %s", name, error, extra={"event": "exchange_unclear", "exchange": name})
    return True


def depth_of(connection: Any, name: str) -> int:
    """Return the number of messages in a queue; 0 for one that does not exist."""
    try:
        with connection.channel() as channel:
            return int(channel.queue_declare(name, passive=True).message_count)
    except NotFound:
        return 0


def _declare(connection: Any, name: str, priority: int, arguments: Mapping[str, Any]) -> None:
    try:
        with connection.channel() as channel:
            task_queue(name, arguments)(channel).declare()
    except ChannelError as error:
        # perhaps an exchange of that name and another type; beatd needs the queue alone
        _log_failure(name, error)
        _declare_alone(connection, name, arguments)
    if priority and "x-max-priority" not in arguments:
        text = "Queue %s was made without x-max-priority, as Celery does: priorities have no effect in it"
        log.warning(text, name, extra={"event": "queue_without_priorities", "queue": name})


def _declare_alone(connection: Any, name: str, arguments: Mapping[str, Any]) -> None:
    try:
        with connection.channel() as channel:
            channel.queue_declare(name, durable=True, auto_delete=False, arguments=dict(arguments))
    except ChannelError as error:
        _log_failure(name, error)


def _log_failure(name: str, error: ChannelError) -> None:
    log.warning("Queue %s could not be declared: %s", name, error, extra={"event": "queue_not_declared", "queue": name})
