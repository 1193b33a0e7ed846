"""Native delayed delivery on RabbitMQ, as Celery has it since 5.5: the exchanges in which messages wait for their time.

Celery's clients send messages with an ETA for quorum queues there. A worker declares them, and binds its queues.
beatd's own messages with an ETA wait in the state store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import kombu as _kombu
from amqp.exceptions import ChannelError
from kombu.transport import native_delayed_delivery as native

log = logging.getLogger("beatd.broker")

kombu: Any = _kombu  # only half of it is typed

TYPES = ("quorum", "classic")


def delayed_delivery(conf: Mapping[str, Any]) -> Callable[[Any], None] | None:
    """Return the function that declares all of it over a ``kombu.Connection``; None if there is no quorum queue."""
    queues = [queue for queue in _queues(conf) if (queue.queue_arguments or {}).get("x-queue-type") == "quorum"]
    kind = conf["broker_native_delayed_delivery_queue_type"]
    if not queues or kind not in TYPES:
        return None
    return lambda connection: _declare(connection, queues, kind)


def _declare(connection: Any, queues: list[Any], kind: str) -> None:
    """Declare the queues as the app describes them, and the exchanges; a refusal is logged."""
    try:
        for queue in queues:
            queue(connection.default_channel).declare()
        native.declare_native_delayed_delivery_exchanges_and_queues(connection, kind)
        for queue in queues:
            if queue.exchange.type != "direct":  # Celery's clients do not use it then
                native.bind_queue_to_native_delayed_delivery_exchange(connection, queue)
    except ChannelError as error:
        log.warning(
            "Delayed delivery of %s could not be declared: %s",
            ", ".join(queue.name for queue in queues),
            error,
            extra={"event": "delayed_delivery_not_declared", "queue": queues[0].name},
        )


def _queues(conf: Mapping[str, Any]) -> list[Any]:
    """Return the queues of ``task_queues``, else the default queue, as kombu's."""
    given = conf["task_queues"] or ()
    if isinstance(given, Mapping):
        return [kombu.Queue.from_dict(name, **_options(name, options)) for name, options in given.items()]
    queues = [queue for queue in given if isinstance(queue, kombu.Queue)]
    if given:
        return queues
    name = conf["task_default_queue"]
    exchange = kombu.Exchange(conf["task_default_exchange"] or name, type=conf["task_default_exchange_type"])
    arguments = {"x-queue-type": conf["task_default_queue_type"]} if conf["task_default_queue_type"] else None
    return [kombu.Queue(name, exchange, conf["task_default_routing_key"] or name, queue_arguments=arguments)]


def _options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"exchange": name, "exchange_type": "direct", "routing_key": name, **options}
