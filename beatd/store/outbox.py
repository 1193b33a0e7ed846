"""The outbox: messages that were claimed and that the broker has not confirmed yet.

It is a list of envelopes like any queue on Redis, so that the same claim fills it in the same step.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from typing import Any

import redis

from beatd.store import dead_letters
from beatd.store.client import translate_errors
from beatd.store.keys import SHARDS_MAX, Keys
from beatd.store.script import Script

INHERIT_AT_ONCE = 10_000
"""Messages moved in one call from the outboxes of former shards: keeps the store busy for some milliseconds."""


class Outbox:
    """One shard's outbox. Raises the errors of :class:`~beatd.store.claims.Claims`."""

    def __init__(self, client: redis.Redis, keys: Keys, *, shard: int = 0, shards: int = 1) -> None:
        self._client = client
        former = [keys.shard(number) for number in range(shard + shards, SHARDS_MAX, shards)]
        self._former = [key for each in former for key in (each.lease, each.outbox)]
        self._lease = keys.shard(shard).lease
        shared = keys.workers()
        self._dead_letters = [shared.dead_letters, shared.dead_letters_size]
        self.key = keys.shard(shard).outbox
        """The list that claims push to."""
        self._strike = Script(client, "outbox_strike")
        self._inherit = Script(client, "outbox_inherit")

    def inherit(self, *, lease_value: str) -> bool:
        """Take over what is left in the outboxes of shards that there were when there were more of them.

        Tells whether nothing of that kind is left; it is when somebody still leads such a shard.
        """
        keys = [self._lease, self.key, *self._former]
        while True:
            moved, left = self._inherit(keys, [lease_value, INHERIT_AT_ONCE])
            if moved < INHERIT_AT_ONCE:
                return not left

    def oldest(self, count: int) -> list[bytes]:
        """Up to ``count`` envelopes, the oldest first."""
        with translate_errors(self._client):
            newest_first: list[Any] = self._client.lrange(self.key, -count, -1)
        return newest_first[::-1]

    def strike(self, envelopes: Sequence[bytes], letters: Sequence[bytes] = (), *, lease_value: str) -> int:
        """Remove ``envelopes``, which :meth:`oldest` returned; add ``letters`` to the dead letters, see
        :func:`beatd.store.dead_letters.encode`.

        Returns how many messages are left. Nothing happens if the oldest are others by now, so that a request which the
        network delayed cannot take out what came after.
        """
        keys = [self._lease, self.key, *self._dead_letters]
        digest = sha1(b"".join(envelopes), usedforsecurity=False).hexdigest()
        first = [lease_value, len(envelopes), digest, *dead_letters.BOUNDS]
        return int(self._strike(keys, [*first, *letters]))
