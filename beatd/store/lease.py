"""The lease of a shard: who may claim its runs, and under which term."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import redis

from beatd.store.client import Script, border
from beatd.store.keys import Keys, ShardKeys


class Held(NamedTuple):
    """The lease is somebody else's, for at least ``left_ms`` more if it is not renewed."""

    holder: str
    left_ms: int


class Lease:
    """Takes, renews and releases one shard's lease for one daemon.

    Every method is one round trip and raises :class:`~beatd.exceptions.StoreUnavailable` or
    :class:`~beatd.exceptions.StoreRefused`.
    """

    def __init__(self, client: redis.Redis, keys: Keys, *, shard: int, daemon_id: str, ttl_ms: int) -> None:
        self._client = client
        self._keys: ShardKeys = keys.shard(shard)
        self._wake = keys.wake
        self._daemon_id = daemon_id
        self._ttl_ms = ttl_ms
        self._take = Script(client, "lease_take")
        self._renew = Script(client, "lease_renew")
        self._release = Script(client, "lease_release")

    def value(self, token: int) -> str:
        """What the lease's key holds during the term ``token``; every write of that term carries it."""
        return f"{self._daemon_id}:{token}"

    def take(self) -> int | Held:
        """The token of a new term, or who holds the lease."""
        token, *held = self._take([self._keys.lease, self._keys.term], [self._daemon_id, self._ttl_ms])
        return int(token) if not held else Held(held[0].decode(), held[1])

    def renew(self, token: int) -> bool:
        """Whether the term ``token`` was prolonged; ``False`` means that it is over."""
        return bool(self._renew([self._keys.lease], [self.value(token), self._ttl_ms]))

    def release(self, token: int) -> bool:
        """Give the lease back and wake the standbys; ``False`` if it was not ours any more."""
        return bool(self._release([self._keys.lease], [self.value(token), self._wake]))

    @contextmanager
    def releases(self) -> Iterator[Callable[[float], bool]]:
        """Listen for leaders that step down. Yields ``wait(seconds)``, which tells whether one did.

        Subscribed before it yields: a release that comes between a failed :meth:`take` and the wait is not missed.
        """
        channel: redis.client.PubSub
        with border(self._client), self._client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(self._wake)
            channel.get_message(timeout=self._ttl_ms / 1000)  # the server's word that we are subscribed
            yield lambda seconds: _heard(channel, seconds)


def _heard(channel: redis.client.PubSub, seconds: float) -> bool:
    message = channel.get_message(timeout=seconds)
    return message is not None and message["data"] == b"released"
