"""Past runs, for those who look: what the claim wrote, how workers said they ended, and totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from heapq import nlargest
from typing import Any, NamedTuple

import redis

from beatd.exceptions import MessageError
from beatd.store import records
from beatd.store.client import border
from beatd.store.keys import Keys
from beatd.store.outcomes import READY_STATES
from beatd.store.records import Record
from beatd.store.results import Meta, decode, result_key

BATCH = 1_000
"""Entries read in one round trip."""

TAIL = 2 * records.CELL
"""Bytes that hold the newest record: one that has an id of its own takes two cells."""


class Ending(NamedTuple):
    """How a run ended: the state, in Celery's words; how long it took, if a bundled worker said so; its result, if that
    is stored where we look."""

    state: str
    runtime_ms: int | None = None
    result: Meta | None = None


class Totals(NamedTuple):
    """How many runs of an entry there were in all. ``counts`` has those that were late, triggered, backfilled, and
    skipped for each reason; ``scheduled`` those that its schedule sent."""

    scheduled: int
    counts: Counter[str]


class Histories:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`.

    ``results`` are further servers on which results of Celery's workers may be.
    """

    def __init__(self, client: redis.Redis, keys: Keys, *, results: Sequence[redis.Redis] = ()) -> None:
        self._client = client
        self._keys = keys
        self._results = (client, *results)

    def of(self, names: Sequence[str]) -> Iterator[Record]:
        """The records of entries, one after the other, of each the newest first."""
        for batch, raws in self._read(names, 0):
            for name, raw in zip(batch, raws, strict=True):
                yield from records.read(name, raw or b"")

    def newest(self, names: Sequence[str], count: int, wanted: Callable[[Record], bool] | None = None) -> list[Record]:
        """The newest records of many entries, the newest first. Without ``wanted`` few entries are read whole."""
        if wanted is None:
            latest: list[tuple[int, str]] = []
            for batch, raws in self._read(names, -TAIL):
                found = ((next(records.read(name, raw), None), name) for name, raw in zip(batch, raws, strict=True))
                latest = nlargest(count, [*latest, *((one.at_ms, name) for one, name in found if one)])
            names = [name for _, name in latest]
        every = self.of(names) if wanted is None else filter(wanted, self._complete(names))
        return nlargest(count, every, key=lambda one: (one.at_ms, one.due_ms))

    def last_dues(self, names: Sequence[str]) -> dict[str, int]:
        """When the last runs that the schedules of entries asked for were due, of those whose history has one."""
        found: dict[str, int] = {}
        for record in self.of(names):
            if record.kind in ("scheduled", "skipped"):
                found.setdefault(record.entry, record.due_ms)
        return found

    def completed(self, lines: Sequence[Record]) -> list[Record]:
        """The same, with outcomes that the history does not have and a store does."""
        asked = {number: one.run_id for number, one in enumerate(lines) if one.run_id and not one.outcome}
        endings = self.endings(list(asked.values()))
        done = list(lines)
        for number, ending in zip(asked, endings, strict=True):
            if ending:
                done[number] = done[number]._replace(outcome=ending.state, runtime_ms=ending.runtime_ms)
        return done

    def endings(self, run_ids: Sequence[str]) -> list[Ending | None]:
        """How runs ended; ``None`` for those that have not, as far as anybody knows."""
        if not run_ids:
            return []
        with border(self._client):  # first: when it is there, the result is
            ended: Any = self._client.mget([self._keys.finished(run_id) for run_id in run_ids])
        metas: list[Meta | None] = [None] * len(run_ids)
        for client in self._results:
            with border(client):
                found: Any = client.mget([result_key(run_id) for run_id in run_ids])
            metas = [meta or _meta(raw) for meta, raw in zip(metas, found, strict=True)]
        return [_ending(said, meta) for said, meta in zip(ended, metas, strict=True)]

    def totals(self, names: Sequence[str]) -> dict[str, Totals]:
        """The totals of entries."""
        shard, found = self._keys.shard(), {}
        for start in range(0, len(names), BATCH):
            batch = list(names[start : start + BATCH])
            with border(self._client), self._client.pipeline(transaction=False) as pipeline:
                pipeline.hmget(shard.runs, batch)
                pipeline.hmget(shard.tally, batch)
                runs, tallies = pipeline.execute()
            for name, count, tally in zip(batch, runs, tallies, strict=True):
                found[name] = Totals(int(count) if count and count.isdigit() else 0, _counts(tally or b""))
        return found

    def _read(self, names: Sequence[str], start: int) -> Iterator[tuple[Sequence[str], list[bytes]]]:
        """The cells of entries, from a byte on: some at a time, so that other clients get their turn between."""
        for first in range(0, len(names), BATCH):
            batch = names[first : first + BATCH]
            with border(self._client), self._client.pipeline(transaction=False) as pipeline:
                for name in batch:
                    pipeline.getrange(self._keys.history(name), start, -1)
                found = pipeline.execute(raise_on_error=False)
            yield batch, [raw if isinstance(raw, bytes) else b"" for raw in found]

    def _complete(self, names: Sequence[str]) -> Iterator[Record]:
        """All records of many entries, with their outcomes."""
        for first in range(0, len(names), BATCH):
            yield from self.completed(list(self.of(names[first : first + BATCH])))


def _meta(raw: bytes | None) -> Meta | None:
    """A result that is final; one that is not, or cannot be read, is none."""
    try:
        meta = None if raw is None else decode(raw)
        return meta if meta is not None and meta["status"] in READY_STATES else None
    except (MessageError, KeyError, TypeError):
        return None


def _ending(said: bytes | None, meta: Meta | None) -> Ending | None:
    state, _, runtime = (said or b"").decode(errors="replace").partition(" ")
    if runtime.isdigit():
        return Ending(state, int(runtime), meta)
    return None if meta is None else Ending(str(meta["status"]), None, meta)


def _counts(tally: bytes) -> Counter[str]:
    words = tally.decode(errors="replace").split()
    pairs = zip(words[::2], words[1::2], strict=False)
    return Counter({word: int(number) for word, number in pairs if number.isdigit()})
