"""Entries that are held back: why, since when, and when each is tried again. For people; nothing is decided by it.

Each shard's leader writes its own, anew in each term. They expire when nobody writes them any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice

import msgspec
import redis

from beatd.exceptions import StoreError, StoreRefused
from beatd.store.client import translate_errors
from beatd.store.keys import Keys, shard_of
from beatd.store.pipeline import joint_reads
from beatd.store.script import Script

BATCH = 1_000
"""Names in one command."""

MOST = 10_000
"""Entries kept for one shard."""

KEPT_MS = 300_000
"""How long they are kept after the last write: longer than the longest pause between two attempts."""


class HeldBackEntry(msgspec.Struct, frozen=True):
    """An entry that is held back: the reason, the first failure, the next attempt, and how many have failed."""

    reason: str
    since_ms: int
    again_ms: int
    attempts: int


class HeldBack:
    """Reading raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`."""

    def __init__(self, client: redis.Redis, keys: Keys, *, shards: int = 1) -> None:
        self._client = client
        self._keys = keys
        self._shards = shards
        self._write = Script(client, "held_back")

    def read(self, names: Sequence[str]) -> dict[str, HeldBackEntry]:
        """Return the entries of ``names`` that are held back."""
        by_shard: dict[int, list[str]] = {}
        for name in names:
            by_shard.setdefault(shard_of(name, self._shards), []).append(name)
        with joint_reads() as read:
            shards = [
                read(self._of_shard, shard, own) for shard, own in by_shard.items() if shard not in self._keys.away
            ]
        found: dict[str, HeldBackEntry] = {}
        for shard in shards:
            with suppress(StoreRefused):  # a key of another type, which status names
                found |= shard.result()
        return found

    def _of_shard(self, shard: int, names: Sequence[str]) -> dict[str, HeldBackEntry]:
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for start in range(0, len(names), BATCH):
                pipeline.hmget(self._key(shard), [_stored(name) for name in names[start : start + BATCH]])
            values = chain.from_iterable(pipeline.execute())
        return _readable(dict(zip(names, values, strict=True)))

    def all(self, at_most: int = 1000) -> dict[str, HeldBackEntry]:
        """Entries that are held back, the first ``at_most`` in no particular order."""
        with joint_reads() as read:
            shards = [read(self._all_of, shard, at_most) for shard in self._readable_shards()]
        return dict(islice(chain.from_iterable(shard.result().items() for shard in shards), at_most))

    def _all_of(self, shard: int, at_most: int) -> dict[str, HeldBackEntry]:
        with translate_errors(self._client):
            scanned = islice(self._client.hscan_iter(self._key(shard), count=BATCH), at_most)
            return _readable({name.decode(errors="backslashreplace"): value for name, value in scanned})

    def _readable_shards(self) -> list[int]:
        return [shard for shard in range(self._shards) if shard not in self._keys.away]

    def count(self) -> int:
        """Return the number of entries that are held back."""
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for shard in self._readable_shards():
                pipeline.hlen(self._key(shard))
            found = pipeline.execute(raise_on_error=False)
        return sum(length for length in found if isinstance(length, int))  # none in a key of another type

    def write(self, changes: Mapping[str, HeldBackEntry | None], *, shard: int, lease_value: str) -> bool:
        """Put entries of a shard, or remove them (None); returns whether that was done.

        An error is not raised: no run depends on this. Beyond :data:`MOST` entries further ones are left out.
        """
        items = [(_stored(name), b"" if held is None else msgspec.json.encode(held)) for name, held in changes.items()]
        return self._call([items[start : start + BATCH] for start in range(0, len(items), BATCH)], shard, lease_value)

    def clear(self, *, shard: int, lease_value: str) -> bool:
        """Remove all entries of a shard, at the beginning of a term."""
        return self._call([None], shard, lease_value)

    def _call(self, batches: Sequence[list[tuple[bytes, bytes]] | None], shard: int, lease_value: str) -> bool:
        keys = [self._keys.shard(shard).lease, self._key(shard)]
        try:
            for batch in batches:
                how = "clear" if batch is None else "change"
                flat = [part for item in batch or () for part in item]
                self._write(keys, [lease_value, how, MOST, KEPT_MS, *flat])
        except StoreError:
            return False
        return True

    def _key(self, shard: int) -> str:
        return self._keys.shard(shard).held


def _stored(name: str) -> bytes:
    """The name as bytes, also of an entry that is held back for its name."""
    return name.encode(errors="backslashreplace")


def _readable(found: Mapping[str, bytes | None]) -> dict[str, HeldBackEntry]:
    read: dict[str, HeldBackEntry] = {}
    for name, raw in found.items():
        try:
            if raw is not None:
                read[name] = msgspec.json.decode(raw, type=HeldBackEntry)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
    return read
