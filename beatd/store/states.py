"""The state of entries for those who only look: no lease is needed, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import redis

from beatd.store.claims import ADOPT_BATCH, EntryState
from beatd.store.client import border
from beatd.store.keys import Keys


class EntryStates:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`StoreRefused`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys.shard()  # what is remembered of an entry is the same key for all shards

    def read(self, names: Sequence[str]) -> list[EntryState | None]:
        """What is remembered of each entry; ``None`` for one that no leader has seen yet, or that cannot be read."""
        keys = (self._keys.last_due, self._keys.known, self._keys.runs)
        return list(chain.from_iterable(map(_states, *(self._fields(key, names) for key in keys))))

    def runs(self, names: Sequence[str]) -> list[int]:
        """How many runs of each entry have been sent."""
        return [_number(raw) or 0 for batch in self._fields(self._keys.runs, names) for raw in batch]

    def _fields(self, key: str, names: Sequence[str]) -> Iterator[list[bytes | None]]:
        """The fields of a hash, some at a time: other clients get their turn between."""
        with border(self._client):
            for start in range(0, len(names), ADOPT_BATCH):
                answer: Any = self._client.hmget(key, list(names[start : start + ADOPT_BATCH]))
                yield answer


def _states(*batches: list[bytes | None]) -> Iterator[EntryState | None]:
    for last_due, known, runs in zip(*batches, strict=True):
        numbers = _number(last_due), _number(known and known.partition(b" ")[0]), _number(runs or b"0")
        yield None if None in numbers else EntryState(*numbers)  # type: ignore[arg-type]


def _number(raw: bytes | None) -> int | None:
    return int(raw) if raw is not None and raw.isdigit() else None
