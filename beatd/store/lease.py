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

from beatd.exceptions import StoreError, StoreUnavailable
from beatd.store.client import has_moved, is_cluster, listeners, subscription, translate_errors
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


class Renewed(NamedTuple):
    """Result of a renewal, by shard."""

    done: frozenset[int]
    failed: Mapping[int, StoreError]
    """Shards whose node of a cluster did not answer: their terms may go on."""


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
        names = [(each.lease, each.term, each.terms) for each in keys]
        facts = [(known.get(shard, 0), gone.get(shard, "")) for shard in shards]
        tokens = self._call(self._take, shards, names, [self._daemon_id, self._ttl_ms], facts)
        return {shard: int(token) for shard, token in tokens.items() if token and not isinstance(token, StoreError)}

    def renew(self, tokens: Mapping[int, int]) -> Renewed:
        """Lease renewal: extend the terms given by shard and token."""
        answers = self._call(self._renew, list(tokens), self._of(tokens), [self._ttl_ms], self._values(tokens))
        failed = {shard: error for shard, error in answers.items() if isinstance(error, StoreError)}
        return Renewed(frozenset(shard for shard, done in answers.items() if done and shard not in failed), failed)

    def release(self, tokens: Mapping[int, int]) -> int:
        """Release leases and notify the standbys; returns how many were still ours."""
        if not tokens:
            return 0
        names, values = self._of(tokens), self._values(tokens)
        if self._keys.parts == 1:
            return int(self._release([key for one in names for key in one], [self._keys.wake, *sum(values, ())]))
        answers = self._call(self._release, list(tokens), names, [self._keys.wake], values)
        return sum(int(answer) for answer in answers.values() if not isinstance(answer, StoreError))

    def _call(
        self,
        script: Script,
        shards: Sequence[int],
        keys: Sequence[Sequence[str]],
        first: Sequence[Any],
        facts: Sequence[Sequence[Any]],
    ) -> dict[int, Any]:
        """The answers about shards: from one call, or in a cluster from one for each.

        There an error is the answer about its shard; the first is raised if there is nothing else.
        """
        if self._keys.parts == 1:
            flat = [key for one in keys for key in one], [*first, *(fact for one in facts for fact in one)]
            return dict(zip(shards, script(*flat), strict=True))
        answers = script.each((own, [*first, *fact]) for own, fact in zip(keys, facts, strict=True))
        if errors := [one for one in answers if isinstance(one, Exception)]:
            wrong = next((one for one in errors if not isinstance(one, StoreError)), None)
            if wrong is not None or len(errors) == len(answers):
                raise wrong or errors[0]
        return {
            shard: answer[0] if isinstance(answer, list) else answer
            for shard, answer in zip(shards, answers, strict=True)
        }

    @contextmanager
    def listen(self) -> Iterator[Callable[[float], bool]]:
        """Listen for leaders that step down, and be present. Yields ``wait(seconds)``, which tells whether one did.

        Subscribed before it yields: a release that comes between a failed :meth:`take` and the wait is not missed.
        """
        channel: redis.client.PubSub
        with translate_errors(self._client), subscription(self._client, self._keys.wake) as channel:
            channel.subscribe(self._keys.wake)
            self._confirm(channel)
            try:
                present = self._keys.present(self._daemon_id)
                if is_cluster(self._client):
                    channel.ssubscribe(present)
                else:
                    channel.subscribe(present)
                self._confirm(channel)
                self.present = True
            except NoPermissionError as error:
                self.refused = f"{error}; add the channel {self._keys.present('*')} to the user's rights"
            try:
                yield lambda seconds: self._heard(channel, seconds)
            finally:
                self.present = False

    def absent(self, daemon_ids: Sequence[str]) -> set[str]:
        """Return those of the daemons whose connection has ended: nobody listens on their channel."""
        absent = self._absent(daemon_ids)
        if absent and is_cluster(self._client):
            with translate_errors(self._client):
                self._client.exists(self._keys.daemons)  # finds out that another node has the slot by now
            absent = self._absent(daemon_ids)
        return absent

    def _absent(self, daemon_ids: Sequence[str]) -> set[str]:
        channels = [self._keys.present(daemon_id) for daemon_id in daemon_ids]
        with translate_errors(self._client):
            counts = listeners(self._client, channels)
        return {daemon_id for daemon_id, count in zip(daemon_ids, counts, strict=True) if not count}

    def _confirm(self, channel: redis.client.PubSub) -> None:
        """Wait for the confirmation of a subscription."""
        channel.get_message(timeout=self._ttl_ms / 1000)

    def _heard(self, channel: redis.client.PubSub, seconds: float) -> bool:
        with translate_errors(self._client):
            message = channel.get_message(timeout=seconds)
        is_ended = message is not None and message["type"] == "sunsubscribe"
        if is_ended or has_moved(self._client, channel, self._keys.wake):  # a node that is cut off ends nothing
            raise StoreUnavailable("the slot of the channels of presence has moved to another node")
        return message is not None and message["data"] == b"released"

    def _of(self, tokens: Mapping[int, int]) -> list[tuple[str]]:
        return [(self._keys.shard(shard).lease,) for shard in tokens]

    def _values(self, tokens: Mapping[int, int]) -> list[tuple[str]]:
        return [(self.value(token),) for token in tokens.values()]
