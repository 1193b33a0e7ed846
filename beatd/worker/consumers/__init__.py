"""Consumers: Redis and RabbitMQ natively, every other broker through kombu, behind one interface.

The promise: a message that ``take`` returned is this worker's until it is settled, and comes back to its queue if the
worker is gone before that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from beatd import broker
from beatd.broker import Arguments, is_amqp, is_redis, no_arguments, redis_url
from beatd.broker.bindings import Binding
from beatd.clock import Clock
from beatd.store.keys import Keys
from beatd.url_keyprefix import own_prefix
from beatd.worker.consumers.base import Consumer

__all__ = ["Consumer", "open_consumer"]


def open_consumer(
    url: str,
    queues: Sequence[str],
    *,
    name: str,
    clock: Clock,
    prefix: str = "beatd",
    store_url: str | None = None,
    arguments: Arguments = no_arguments,
    transport_options: Mapping[str, Any] | None = None,
    declare: Callable[[Any], None] | None = None,
    bindings: Sequence[Binding] = (),
) -> Consumer:
    """Make the consumer of ``queues`` on the broker at ``url`` for the worker ``name``. It connects on ``start``.

    On a broker other than Redis, messages before their time and dead letters are kept in the state store at
    ``store_url``, and queues that are not there yet are made with the ``arguments`` that this function says.
    ``transport_options`` are for kombu's transports. ``declare`` gets each new connection to a RabbitMQ. ``bindings``
    are made on Redis and RabbitMQ; other transports of kombu take the queues alone.
    """
    keys = Keys(own_prefix(url if is_redis(url) else store_url, prefix))
    if is_redis(url):
        from beatd.worker.consumers.redis import RedisConsumer  # noqa: PLC0415

        return RedisConsumer(redis_url(url), queues, name=name, clock=clock, keys=keys, bindings=bindings)
    from beatd.worker.consumers.parking import MemoryParking, Parking, StoreParking  # noqa: PLC0415

    parking: Parking = MemoryParking(clock)
    if store_url:
        publisher = broker.open(url, arguments=arguments, transport_options=transport_options)
        parking = StoreParking(store_url, publisher, keys=keys, clock=clock, name=name)
    if is_amqp(url):
        from beatd.worker.consumers.rabbitmq import AmqpConsumer  # noqa: PLC0415

        steps = [step for step in (declare, bindings and broker.binder_of(bindings, arguments)) if step]
        return AmqpConsumer(url, queues, parking=parking, arguments=arguments, declare=_all(steps))
    from beatd.worker.consumers.kombu import KombuConsumer  # noqa: PLC0415

    return KombuConsumer(url, queues, parking=parking, arguments=arguments, transport_options=transport_options)


def _all(steps: Sequence[Callable[[Any], None]]) -> Callable[[Any], None]:
    """Return a function that does all steps in turn."""

    def run(connection: Any) -> None:
        for step in steps:
            step(connection)

    return run
