"""Names of keys and channels on Redis in kombu's layout, all of them after the ``global_keyprefix`` of the broker."""

from __future__ import annotations

import functools

from beatd.url_keyprefix import global_keyprefix

SEPARATOR = "\x06\x16"
"""Between the parts of a name (kombu's Redis transport, ``sep``)."""
PRIORITY_STEPS = (0, 3, 6, 9)
"""A queue is one list per step; 0 is taken first (kombu's Redis transport, ``priority_steps``)."""


@functools.lru_cache(maxsize=4096)
def queue_key(queue: str, priority: int | None = 0) -> str:
    """Return the list for a message of this priority: that of the largest step that is not above it.

    Priorities below 0 count as 0, above 9 as 9. Raises UnicodeEncodeError for a name that is no UTF-8.
    """
    str(queue).encode()
    step = max(step for step in PRIORITY_STEPS if step <= max(priority or 0, 0))
    return f"{queue}{SEPARATOR}{step}" if step else queue


class RedisKeys:
    """Names under one prefix; without one, kombu's plain names."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    @classmethod
    def of(cls, url: str) -> RedisKeys:
        """Return the names of the broker at ``url``."""
        return cls(global_keyprefix(url))

    def queue(self, queue: str, priority: int | None = 0) -> str:
        """Return the list for a message of this priority, see :func:`queue_key`."""
        return self.prefix + queue_key(queue, priority)

    def queues(self, queue: str) -> list[str]:
        """Return all lists of a queue, in the order in which consumers take from them."""
        return [self.queue(queue, step) for step in PRIORITY_STEPS]

    def bindings(self, exchange: str) -> str:
        """set: the bindings of an exchange, in which producers look for its queues."""
        return f"{self.prefix}_kombu.binding.{exchange}"

    def permanent_bindings(self, exchange: str) -> str:
        """set: those of its bindings that do not expire."""
        return f"{self.prefix}_kombu.binding_permanent.{exchange}"

    def channel(self, database: int, exchange: str, routing_key: str = "") -> str:
        """pub/sub channel of a fanout exchange; kombu's name has the database in it."""
        return f"{self.prefix}/{database}.{exchange}{'/' if routing_key else ''}{routing_key}"


def binding_member(key: str, pattern: str, queue: str) -> str:
    """Return a binding as it is in the sets of bindings."""
    return SEPARATOR.join((key, pattern, queue))
