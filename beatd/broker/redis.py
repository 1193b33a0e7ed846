"""Queues on Redis, as kombu lays them out: lists that producers push to on the left and consumers pop on the right."""

from __future__ import annotations

import re

from beatd.broker.port import redis_url
from beatd.exceptions import BrokerError, StoreError
from beatd.message import TaskMessage, envelope
from beatd.store.client import border, connect

PRIORITY_STEPS = (0, 3, 6, 9)
"""A queue is one list per step; 0 is taken first (kombu's Redis transport, ``priority_steps``)."""
_SEPARATOR = "\x06\x16"


def queue_key(queue: str, priority: int | None = 0) -> str:
    """The list that a message of this priority belongs to: the largest step that is not above it.

    Priorities below 0 count as 0, above 9 as 9.
    """
    step = max(step for step in PRIORITY_STEPS if step <= max(priority or 0, 0))
    return f"{queue}{_SEPARATOR}{step}" if step else queue


def queue_keys(queue: str) -> list[str]:
    """All lists of a queue, in the order in which consumers take from them."""
    return [queue_key(queue, step) for step in PRIORITY_STEPS]


class RedisPublisher:
    """Publishes natively: one ``LPUSH`` of kombu's envelope."""

    def __init__(self, url: str) -> None:
        self._client = connect(redis_url(url), name="beatd-publisher")

    def publish(self, message: TaskMessage, *, queue: str, exchange: str = "", routing_key: str | None = None) -> None:
        priority = message.properties.get("priority")
        key = routing_key or queue
        raw = envelope(message, queue=key, exchange=exchange)
        try:
            with border(self._client):
                for target in self._targets(exchange, key, queue):
                    self._client.lpush(queue_key(target, priority), raw)
        except StoreError as error:
            raise BrokerError(f"broker: {error}") from error

    def close(self) -> None:
        self._client.close()

    def _targets(self, exchange: str, routing_key: str, queue: str) -> list[str]:
        """The queues to push to. An exchange nobody has bound a queue to would swallow the message: ``queue`` gets it."""
        if not exchange:
            return [queue]
        bound = (member.decode().split(_SEPARATOR) for member in self._client.smembers(f"_kombu.binding.{exchange}"))
        return [target for key, pattern, target in bound if _fits(routing_key, key, pattern)] or [queue]


def _fits(routing_key: str, key: str, pattern: str) -> bool:
    """Whether a binding takes the routing key: kombu stores a regular expression for topics, nothing for direct."""
    return bool(re.match(pattern, routing_key)) if pattern else key == routing_key
