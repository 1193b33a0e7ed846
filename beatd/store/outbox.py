"""The outbox: messages that were claimed and that the broker has not confirmed yet.

It is a list of envelopes like any queue on Redis, so that the same claim fills it in the same step.
"""

from __future__ import annotations

from typing import Any

import redis

from beatd.store.client import Script, border
from beatd.store.keys import Keys


class Outbox:
    """One shard's outbox. Raises the errors of :class:`~beatd.store.claims.Claims`."""

    def __init__(self, client: redis.Redis, keys: Keys, *, shard: int = 0) -> None:
        self._client = client
        self._lease = keys.shard(shard).lease
        self.key = keys.shard(shard).outbox
        """The list that claims push to."""
        self._strike = Script(client, "outbox_strike")

    def oldest(self, count: int) -> list[bytes]:
        """Up to ``count`` envelopes, the oldest first."""
        with border(self._client):
            newest_first: list[Any] = self._client.lrange(self.key, -count, -1)
        return newest_first[::-1]

    def strike(self, count: int, *, lease_value: str) -> int:
        """Take the ``count`` oldest out; returns how many are left."""
        return int(self._strike([self._lease, self.key], [lease_value, count]))
