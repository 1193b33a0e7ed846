"""The state of entries, and the claim: the one write by which runs leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import redis

from beatd.store.client import Script
from beatd.store.keys import Keys

ADOPT_BATCH = 1_000
"""Entries read in one call: a call of this size keeps the server busy for about a millisecond."""


class EntryState(NamedTuple):
    """What the store remembers of an entry, in milliseconds since the epoch."""

    last_due_ms: int
    first_seen_ms: int


class Claim(NamedTuple):
    """One run as the store sees it. ``queue`` is the key of a Redis list, or ``None`` to claim without a message."""

    name: str
    due_ms: int
    queue: str | None
    message: bytes


class Claims:
    """The claimed state of one shard's entries.

    ``lease_value`` fences every call: :class:`~beatd.exceptions.TermLost` means that the term is over and that nothing
    was written. :class:`~beatd.exceptions.StoreUnavailable` leaves it open whether the write happened; repeating it is
    harmless, because a run is claimed only once.
    """

    def __init__(self, client: redis.Redis, keys: Keys, *, shard: int = 0) -> None:
        self._keys = keys.shard(shard)
        self._adopt = Script(client, "adopt")
        self._claim = Script(client, "claim")

    def adopt(
        self, entries: Sequence[tuple[str, str]], *, lease_value: str, now_ms: int
    ) -> Iterator[tuple[str, EntryState]]:
        """Read the state of ``(name, fingerprint)`` pairs; new and changed entries begin at ``now_ms``."""
        keys = [self._keys.lease, self._keys.last_due, self._keys.known]
        for start in range(0, len(entries), ADOPT_BATCH):
            batch = entries[start : start + ADOPT_BATCH]
            flat = self._adopt(keys, [lease_value, now_ms, *(text for pair in batch for text in pair)])
            for (name, _), last_due, first_seen in zip(batch, flat[::2], flat[1::2], strict=True):
                yield name, EntryState(int(last_due), int(first_seen))

    def claim(self, claims: Sequence[Claim], *, lease_value: str) -> frozenset[int]:
        """Move last due forward and push the messages, in one step for all of them.

        Runs of one entry must be in the order of their due times. Returns the indexes of runs that had been claimed
        before, by anyone; their messages were not pushed again.
        """
        keys = [self._keys.lease, self._keys.last_due]
        queues: dict[str, int] = {}
        args: list[str | int | bytes] = [lease_value]
        for name, due_ms, queue, message in claims:
            number = 0 if queue is None else queues.setdefault(queue, len(queues) + 3)
            args += (name, due_ms, number, message)
        return frozenset(self._claim([*keys, *queues], args))
