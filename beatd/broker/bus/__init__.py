"""The broadcasting side of a broker: remote control goes to all workers, answers come back, events go to listeners.

Names, queues and forms are kombu's pidbox and Celery's event exchange, so that tools for Celery's workers are heard by
beatd's, and the reverse. The promise: nothing is kept for listeners that are not there, and one connection, with file
descriptors to wait for, is all that a worker's loop needs.
"""

from __future__ import annotations

from beatd.broker.bus.base import Bus, BusMessage, EventFactory, LamportClock, Names
from beatd.broker.bus.client import ControlClient, addressed, command_body, wait_for
from beatd.exceptions import BrokerError
from beatd.urls import is_amqp, is_redis, redis_url, shown

__all__ = [
    "Bus",
    "BusMessage",
    "ControlClient",
    "EventFactory",
    "LamportClock",
    "Names",
    "addressed",
    "call",
    "command_body",
    "open",
    "wait_for",
]


def call(url: str, names: Names) -> ControlClient:
    """Return a client of the workers at ``url``; raises :class:`~beatd.exceptions.BrokerError` if there can be none."""
    bus = open(url, names)
    if bus is None:
        raise BrokerError(f"broker {shown(url)} cannot broadcast: remote control needs Redis or RabbitMQ")
    return ControlClient(bus, names)


def open(url: str, names: Names | None = None, *, timeout: float = 5.0) -> Bus | None:  # noqa: A001 - ``bus.open(url)``
    """The bus of the broker at ``url``; None for brokers that cannot broadcast. Connects on ``connect``.

    ``timeout`` bounds connecting and every call, in seconds.
    """
    if is_redis(url):
        from beatd.broker.bus.redis import RedisBus  # noqa: PLC0415

        return RedisBus(redis_url(url), names or Names(), timeout)
    if is_amqp(url):
        from beatd.broker.bus.amqp import AmqpBus  # noqa: PLC0415

        return AmqpBus(url, names or Names(), timeout)
    return None
