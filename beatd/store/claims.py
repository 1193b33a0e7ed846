"""The state of entries, and the claim: the one write by which runs leave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import redis

from beatd.store.client import Script, border
from beatd.store.keys import Keys

ADOPT_BATCH = 1_000
"""Entries read in one call: a call of this size keeps the server busy for about a millisecond."""


class EntryState(NamedTuple):
    """What the store remembers of an entry; times in milliseconds since the epoch."""

    last_due_ms: int
    first_seen_ms: int
    runs: int
    """How many runs have been sent."""


class Claim(NamedTuple):
    """One run as the store sees it. ``queue`` is the key of a Redis list, or ``None`` to claim without sending."""

    name: str
    due_ms: int
    queue: str | None = None
    message: bytes = b""
    running: str = ""
    """``<run id> <ms until which it may run>``, for entries that mind overlaps."""


class Claims:
    """The claimed state of one shard's entries.

    ``lease_value`` fences every call: :class:`~beatd.exceptions.TermLost` means that the term is over and that nothing
    was written. :class:`~beatd.exceptions.StoreUnavailable` leaves it open whether the write happened; repeating it is
    harmless, because a run is claimed only once.
    """

    def __init__(self, client: redis.Redis, keys: Keys, *, shard: int = 0) -> None:
        self._client = client
        self._keys = keys.shard(shard)
        self._adopt = Script(client, "adopt")
        self._claim = Script(client, "claim")
        self._sweep = Script(client, "sweep")

    def adopt(
        self, entries: Sequence[tuple[str, str]], *, lease_value: str, now_ms: int
    ) -> Iterator[tuple[str, EntryState]]:
        """Read the state of ``(name, fingerprint)`` pairs.

        Entries that are new, changed or resumed go on from ``now_ms``. The fingerprint of one that is not enabled
        begins with ``"off "``.
        """
        keys = [self._keys.lease, self._keys.last_due, self._keys.known, self._keys.runs]
        batches = [entries[start : start + ADOPT_BATCH] for start in range(0, len(entries), ADOPT_BATCH)]
        calls = ((keys, [lease_value, now_ms, *(text for pair in batch for text in pair)]) for batch in batches)
        for batch, flat in zip(batches, self._adopt.stream(calls), strict=True):
            numbers = map(int, flat)
            for name, _ in batch:
                yield name, EntryState(next(numbers), next(numbers), next(numbers))

    def claim(self, batches: Iterable[Sequence[Claim]], *, lease_value: str) -> Iterator[frozenset[int]]:
        """Move last due forward and push the messages: one step of the store for each batch.

        Runs of one entry must be in the order of their due times. Yields, batch by batch, the indexes of runs that had
        been claimed before, by anyone; their messages were not pushed again. The next batch is asked for while the
        store works on the one before.
        """
        calls = (self._call(batch, lease_value) for batch in batches)
        for left_out in self._claim.stream(calls):
            yield frozenset(left_out)

    def sweep(self, names: Iterable[str], *, lease_value: str, now_ms: int, keep_ms: int) -> list[str]:
        """Forget the state of entries that have not been among ``names`` for ``keep_ms``; returns their names."""
        with border(self._client):
            known = _texts(self._client.hkeys(self._keys.known))
            marked = _texts(self._client.zrange(self._keys.gone, 0, -1))
        gone, back = sorted(known.difference(names) - marked), sorted(marked.intersection(names))
        hashes = [self._keys.last_due, self._keys.known, self._keys.runs, self._keys.running]
        forgotten: list[str] = []
        for start in range(0, len(gone) + len(back) + 1, ADOPT_BATCH):
            part_gone, part_back = gone[start : start + ADOPT_BATCH], back[max(0, start - len(gone)) :][:ADOPT_BATCH]
            args = [lease_value, now_ms, now_ms - keep_ms, len(part_gone), *part_gone, *part_back]
            forgotten += (name.decode() for name in self._sweep([self._keys.lease, self._keys.gone, *hashes], args))
        return forgotten

    def _call(self, batch: Sequence[Claim], lease_value: str) -> tuple[list[str], list[str | int | bytes]]:
        keys = [self._keys.lease, self._keys.last_due, self._keys.runs, self._keys.running]
        queues: dict[str, int] = {}
        args: list[str | int | bytes] = [lease_value]
        for name, due_ms, queue, message, running in batch:
            number = 0 if queue is None else queues.setdefault(queue, len(queues) + 5)
            args += (name, due_ms, number, message, running)
        return [*keys, *queues], args


def _texts(raw: Any) -> set[str]:
    return {text.decode() for text in raw}
