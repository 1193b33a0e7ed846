"""Leases of shards, with fencing tokens: acquire, renew, release.

The elector (:mod:`beatd.beat.elector`) renews the leases every ``[leader] renew``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoPermissionError

from beatd.store.client import translate_errors
from beatd.store.keys import Keys
from beatd.store.script import Script


class TermRecord(NamedTuple):
    """A term of a shard: its fencing token, when it began by the store's clock, and the daemon that led."""

    shard: int
    token: int
    began_ms: int
    daemon_id: str


def read_terms(client: redis.Redis, keys: Keys, shard: int) -> list[TermRecord]:
    """The terms of a shard that are remembered, the newest first."""
    with translate_errors(client):
        raws: Any = client.lrange(keys.shard(shard).terms, 0, -1)
    found = []
    for raw in raws:
        token, _, rest = raw.decode(errors="backslashreplace").partition(" ")
        began, _, daemon_id = rest.partition(" ")
        if token.isdigit() and began.isdigit():
            found.append(TermRecord(shard, int(token), int(began), daemon_id))
    return found


class Leases:
    """Acquires, renews and releases the leases of shards for one daemon, any number of them in one round trip.

    Every method raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`.
    """

    def __init__(self, client: redis.Redis, keys: Keys, *, daemon_id: str, ttl_ms: int) -> None:
        self._client = client
        self._keys = keys
        self._daemon_id = daemon_id
        self._ttl_ms = ttl_ms
        self._take = Script(client, "lease_take")
        self._renew = Script(client, "lease_renew")
        self._release = Script(client, "lease_release")
        self.present = False
        """True while other daemons can see that this one is alive; see :mod:`beatd.beat.presence`."""
        self.refused = ""
        """Why they cannot see it, if the server refuses that."""

    def key(self, shard: int) -> str:
        """Return the key of a shard's lease."""
        return self._keys.shard(shard).lease

    def value(self, token: int) -> str:
        """Return the value of a lease during the term ``token``: the fencing token of every write of that term."""
        return f"{self._daemon_id}:{token}"

    def take(
        self,
        shards: Sequence[int],
        known: Mapping[int, int] = MappingProxyType({}),
        gone: Mapping[int, str] = MappingProxyType({}),
    ) -> dict[int, int]:
        """Acquire the free leases of ``shards``; returns the fencing token of each shard that is ours now.

        ``known``: the last token of each shard that this daemon has heard of. A new one is larger than that, also when
        the store does not remember it. ``gone``: values of leases that are taken although they have not ended, as their
        holders are gone.
        """
        keys = [self._keys.shard(shard) for shard in shards]
        names = [key for each in keys for key in (each.lease, each.term, each.terms)]
        facts = [fact for shard in shards for fact in (known.get(shard, 0), gone.get(shard, ""))]
        tokens = self._take(names, [self._daemon_id, self._ttl_ms, *facts])
        return {shard: int(token) for shard, token in zip(shards, tokens, strict=True) if token}

    def renew(self, tokens: Mapping[int, int]) -> set[int]:
        """Lease renewal: extend the terms given by shard and token; returns the shards whose term goes on."""
        renewed = self._renew(self._of(tokens), [self._ttl_ms, *self._values(tokens)])
        return {shard for shard, done in zip(tokens, renewed, strict=True) if done}

    def release(self, tokens: Mapping[int, int]) -> int:
        """Release leases and notify the standbys; returns how many were still ours."""
        return int(self._release(self._of(tokens), [self._keys.wake, *self._values(tokens)])) if tokens else 0

    @contextmanager
    def listen(self) -> Iterator[Callable[[float], bool]]:
        """Listen for leaders that step down, and be present. Yields ``wait(seconds)``, which tells whether one did.

        Subscribed before it yields: a release that comes between a failed :meth:`take` and the wait is not missed.
        """
        channel: redis.client.PubSub
        with translate_errors(self._client), self._client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            self._subscribe(channel, self._keys.wake)
            try:
                self._subscribe(channel, self._keys.present(self._daemon_id))
                self.present = True
            except NoPermissionError as error:
                self.refused = f"{error}; add the channel {self._keys.present('*')} to the user's rights"
            try:
                yield lambda seconds: self._heard(channel, seconds)
            finally:
                self.present = False

    def absent(self, daemon_ids: Sequence[str]) -> set[str]:
        """Return those of the daemons whose connection has ended: nobody listens on their channel."""
        channels = [self._keys.present(daemon_id) for daemon_id in daemon_ids]
        with translate_errors(self._client):
            counts: Any = self._client.pubsub_numsub(*channels)
        return {daemon_id for daemon_id, (_, count) in zip(daemon_ids, counts, strict=True) if not count}

    def _subscribe(self, channel: redis.client.PubSub, name: str) -> None:
        channel.subscribe(name)
        channel.get_message(timeout=self._ttl_ms / 1000)  # confirmation of the subscription

    def _heard(self, channel: redis.client.PubSub, seconds: float) -> bool:
        with translate_errors(self._client):
            message = channel.get_message(timeout=seconds)
        return message is not None and message["data"] == b"released"

    def _of(self, tokens: Mapping[int, int]) -> list[str]:
        return [self._keys.shard(shard).lease for shard in tokens]

    def _values(self, tokens: Mapping[int, int]) -> list[str]:
        return [self.value(token) for token in tokens.values()]
