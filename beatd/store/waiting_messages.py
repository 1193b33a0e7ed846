"""Messages of another broker that wait here for their ETA: they cost no worker memory and outlive every worker.

They are lent to whoever publishes them to their queue, and struck off when the broker has confirmed. Nobody who is
killed in between takes one along; at worst it is published twice, under the same task id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import redis

from beatd.store.client import Script, border
from beatd.store.keys import Keys

_LENT_MS = 60_000


class Waiting(NamedTuple):
    """A message and the queue that it belongs to."""

    queue: str
    raw: bytes

    @property
    def member(self) -> bytes:
        return self.queue.encode() + b"\0" + self.raw


class WaitingMessages:
    """The messages that wait in one store. Raises the errors of :mod:`beatd.store.client`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._waiting, self._lent = keys.workers().waiting, keys.workers().lent
        self._lend = Script(client, "lend_messages")

    def add(self, messages: Sequence[tuple[Waiting, int]]) -> None:
        """Keep messages until their time (ms). The same one again is still one."""
        with border(self._client):
            self._client.zadd(self._waiting, {message.member: due_ms for message, due_ms in messages})

    def borrow(self, now_ms: int, at_most: int) -> tuple[list[Waiting], int | None]:
        """Messages whose time has come, and when the next one's comes (ms), if any."""
        next_due, *members = self._lend([self._waiting, self._lent], [now_ms, now_ms + _LENT_MS, at_most])
        return list(map(_read, members)), int(float(next_due)) if next_due else None

    def soonest(self, at_most: int) -> list[tuple[Waiting, int]]:
        """Those whose time comes first, and when that is (ms)."""
        with border(self._client):
            found: Any = self._client.zrange(self._waiting, 0, at_most - 1, withscores=True)
        return [(_read(member), int(due)) for member, due in found]

    def strike(self, messages: Sequence[Waiting]) -> None:
        """These are in their queues."""
        with border(self._client):
            self._client.zrem(self._lent, *(message.member for message in messages))

    def count(self) -> int:
        """How many wait, or are lent."""
        with border(self._client):
            return int(self._client.zcard(self._waiting)) + int(self._client.zcard(self._lent))


def _read(member: bytes) -> Waiting:
    queue, _, raw = member.partition(b"\0")
    return Waiting(queue.decode(), raw)
