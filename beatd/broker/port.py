"""The port through which messages leave, and which URLs are Redis."""

from __future__ import annotations

from typing import Protocol

from beatd.message import TaskMessage

PUBLISH_ATTEMPTS = 4
"""How often a message is offered before :class:`~beatd.exceptions.BrokerError` (Celery: three retries)."""
PUBLISH_TIMEOUT = 5.0
"""Seconds to wait for a connection, and for the broker's confirmation."""

_REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+socket")


class Publisher(Protocol):
    """Hands messages to a broker. Safe to share between threads, and usable after a fork."""

    def publish(self, message: TaskMessage, *, queue: str, exchange: str = "", routing_key: str | None = None) -> None:
        """Put ``message`` into ``queue``, or into whatever is bound to ``routing_key`` of ``exchange``.

        Returns when the broker has it; raises :class:`~beatd.exceptions.BrokerError` after a bounded number of
        attempts.
        """

    def depth(self, queue: str) -> int:
        """How many messages wait in ``queue``; 0 for one that does not exist. Raises as ``publish`` does."""

    def close(self) -> None:
        """Close the connections; a later ``publish`` opens them again."""


def is_redis(url: str) -> bool:
    """Whether the URL names a single Redis server, which beatd speaks to natively."""
    return url.partition("://")[0] in _REDIS_SCHEMES


def redis_url(url: str) -> str:
    """The URL in redis-py's spelling: Celery writes ``redis+socket:///path`` for redis-py's ``unix:///path``."""
    scheme, _, rest = url.partition("://")
    if scheme != "redis+socket":
        return url
    return f"unix://{rest.replace('virtual_host=', 'db=')}"
