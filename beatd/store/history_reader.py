"""Readers of histories: the records of many entries, their totals, and ends that only a result has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import chain, islice
from typing import Any, NamedTuple

import redis

from beatd.exceptions import MessageError
from beatd.states import READY_STATES
from beatd.store.client import is_cluster, translate_errors
from beatd.store.history import ALL_RECORDS, CELL, Record, RecordFilter, departures, may_have_run, read
from beatd.store.keys import Keys
from beatd.store.results import Meta, decode, result_key
from beatd.store.run_record import REFUSED, decoded
from beatd.store.script import Script

BATCH = 1_000
"""Entries read in one call."""

TAIL = 2 * CELL
"""Bytes that hold the newest record: one that has an id of its own takes two cells."""


class Ending(NamedTuple):
    """Outcome of a run: the state, in Celery's words or :data:`REFUSED`; how long it took, if a bundled worker said so;
    its result, if that is stored where we look; why the broker refused it."""

    state: str
    runtime_ms: int | None = None
    result: Meta | None = None
    reason: str | None = None


class Totals(NamedTuple):
    """Totals of an entry's runs. ``counts`` has those that were late, triggered, backfilled, refused by the broker, and
    skipped for each reason; ``scheduled`` those that its schedule sent. A run that was refused is only among those."""

    scheduled: int
    counts: Counter[str]

    @property
    def runs(self) -> int:
        """All runs, by schedule or by hand. Those that the broker refused are among them, so that it only grows."""
        return self.scheduled + sum(self.counts[word] for word in ("triggered", "backfilled", "refused"))


class Histories:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`.

    ``results`` are further servers on which results of Celery's workers may be.
    """

    def __init__(self, client: redis.Redis, keys: Keys, *, results: Sequence[redis.Redis] = ()) -> None:
        self._client = client
        self._keys = keys
        self._results, self._has_results = tuple(results), not is_cluster(client)
        self._tails = Script(client, "history_tails")

    def of(self, names: Sequence[str]) -> Iterator[Record]:
        """The records of entries, one after the other, of each the newest first."""
        for batch, raws in self._read(names, 0):
            for name, raw in zip(batch, raws, strict=True):
                yield from read(name, raw or b"")

    def departures(self, names: Sequence[str]) -> Iterator[tuple[int, str]]:
        """The dispatches and skips of entries, see :func:`beatd.store.history.departures`."""
        for _, raws in self._read(names, 0):
            for raw in raws:
                yield from departures(raw)

    def find(self, run_id: str, names: Sequence[str]) -> list[Record]:
        """The records of runs of entries whose ids begin so."""
        found = []
        for batch, raws in self._read(names, 0):
            for name, raw in zip(batch, raws, strict=True):
                if may_have_run(name, raw, run_id):
                    found += [one for one in read(name, raw) if (one.run_id or "").startswith(run_id)]
        return found

    def newest(self, names: Sequence[str], count: int, wanted: RecordFilter = ALL_RECORDS) -> list[Record]:
        """The newest records of many entries, the newest first. Without a filter few entries are read whole."""
        if wanted == ALL_RECORDS and len(names) > count:
            latest: list[tuple[int, str]] = []
            for batch, raws in self._read(names, -TAIL):
                found = ((next(read(name, raw), None), name) for name, raw in zip(batch, raws, strict=True))
                latest = nlargest(count, [*latest, *((one.at_ms, name) for one, name in found if one)])
            names = [name for _, name in latest]
        every = self.of(names) if wanted == ALL_RECORDS else self._matching(names, wanted)
        return nlargest(count, every, key=lambda one: (one.at_ms, one.due_ms))

    def recent(self, names: Sequence[str], count: int) -> dict[str, list[Record]]:
        """The newest records of each entry, the newest first."""
        return {name: list(islice(read(name, raw), count)) for name, raw in self.tails(names, count).items()}

    def tails(self, names: Sequence[str], count: int) -> dict[str, bytes]:
        """The end of the history of each entry: its cells, so many that they hold the newest records."""
        found: dict[str, bytes] = {}
        for batch, raws in self._read(names, -TAIL * count):
            found |= zip(batch, raws, strict=True)
        return found

    def last_dues(self, names: Sequence[str]) -> dict[str, int]:
        """When the last runs that the schedules of entries asked for were due, of those whose history has one."""
        found: dict[str, int] = {}
        for record in self.of(names):
            if record.kind in ("scheduled", "skipped"):
                found.setdefault(record.entry, record.due_ms)
        return found

    def completed(self, lines: Sequence[Record]) -> list[Record]:
        """The same, with outcomes that the history does not have and a store does."""
        asked = {n: str(one.run_id) for n, one in enumerate(lines) if one.is_open or one.outcome == REFUSED}
        endings = self.endings(list(asked.values()))
        done = list(lines)
        for number, ending in zip(asked, endings, strict=True):
            if ending:
                done[number] = done[number]._replace(
                    outcome=ending.state, runtime_ms=ending.runtime_ms, reason=ending.reason
                )
        unexplained = [n for n, one in enumerate(done) if one.outcome == REFUSED and one.reason is None]
        reasons = self._refusals({done[n].entry for n in unexplained})
        for number in unexplained:
            done[number] = done[number]._replace(reason=reasons.get(done[number].run_id or ""))
        return done

    def _refusals(self, names: Iterable[str]) -> dict[str, str]:
        """Why the broker refused runs of these entries, by their ids, as the records of outcomes have it."""
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.lrange(self._keys.outcomes(name), 0, -1)
            answers = pipeline.execute(raise_on_error=False)
        records = (decoded(raw) for raws in answers if isinstance(raws, list) for raw in raws)
        return {one.run_id: one.message for one in records if one is not None and one.state == REFUSED}

    def endings(self, run_ids: Sequence[str]) -> list[Ending | None]:
        """Return the outcomes of runs; ``None`` if a run has not ended, as far as the store knows."""
        if not run_ids:
            return []
        parts = self._keys.all_parts()
        ends, refusals = [part.finished for part in parts], [part.refused for part in parts]
        # results last: when the end is there, the result is
        ended, refused, results = self._by_id(run_ids, ends, refusals, [result_key("")] if self._has_results else [])
        metas = list(map(_meta, results))
        for client in self._results:
            with translate_errors(client):
                further: Any = client.mget([result_key(run_id, self._keys.results) for run_id in run_ids])
            metas = [meta or _meta(raw) for meta, raw in zip(metas, further, strict=True)]
        found = zip(ended, metas, refused, strict=True)
        return [_ending(said, meta) or _refusal(reason) for said, meta, reason in found]

    def _by_id(self, run_ids: Sequence[str], *prefixes: Sequence[str]) -> list[list[bytes | None]]:
        """Values under the ids of runs: for each of several lists of prefixes the first that is there."""
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for prefix in chain.from_iterable(prefixes):
                pipeline.mget([f"{prefix}{run_id}" for run_id in run_ids])
            answers = iter(pipeline.execute())
        of_each = [[next(answers) for _ in some] for some in prefixes]
        return [
            [next(filter(None, values), None) for values in zip(*some, strict=True)] or [None] * len(run_ids)
            for some in of_each
        ]

    def refused(self, run_id: str) -> str | None:
        """Why the broker refused a run; ``None`` if it did not, as far as is known."""
        [[raw]] = self._by_id([run_id], [part.refused for part in self._keys.all_parts()])
        refusal = _refusal(raw)
        return refusal and refusal.reason

    def totals(self, names: Sequence[str]) -> dict[str, Totals]:
        """The totals of entries; nothing is counted for those whose node is away.

        A tally that is none counts as empty: it is for people, and ``status`` names its key.
        """
        found = dict.fromkeys(names, _totals(0, Counter()))
        parts = [
            (part, own)
            for start in range(0, len(names), BATCH)
            for part, own in self._keys.by_part(names[start : start + BATCH])
        ]
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for part, own in parts:
                pipeline.hmget(part.runs, own)
                pipeline.hmget(part.tally, own)
            answers = pipeline.execute(raise_on_error=False)
            for runs in answers[::2]:
                if isinstance(runs, redis.RedisError):
                    raise runs
        for (_, own), runs, tallies in zip(parts, answers[::2], answers[1::2], strict=True):
            counted = [b""] * len(own) if isinstance(tallies, redis.ResponseError) else tallies
            for name, count, tally in zip(own, runs, counted, strict=True):
                found[name] = _totals(int(count) if count and count.isdigit() else 0, _counts(tally or b""))
        return found

    def _read(self, names: Sequence[str], start: int) -> Iterator[tuple[Sequence[str], list[bytes]]]:
        """The cells of entries, from a byte on: some in a call, so that other clients get their turn between.

        What is read whole takes a round trip for each call, as thousands of histories would fill the memory; ends of
        histories take one in all.
        """
        batches = [names[first : first + BATCH] for first in range(0, len(names), BATCH)]
        for together in [batches] if start else [[batch] for batch in batches]:
            asked = [item for batch in together for item in self._keys.by_part(batch)]
            answers = self._tails.all([([f"{part.history}{name}" for name in own], [start]) for part, own in asked])
            cells = (zip(own, raws, strict=True) for (_, own), raws in zip(asked, answers, strict=True))
            found = dict(chain.from_iterable(cells))
            for batch in together:
                yield batch, [found.get(name, b"") for name in batch]

    def _matching(self, names: Sequence[str], wanted: RecordFilter) -> Iterator[Record]:
        """The records of many entries that match, with their outcomes."""
        for batch, raws in self._read(names, 0):
            chosen = ((name, raw) for name, raw in zip(batch, raws, strict=True) if wanted.may_take(raw))
            found = [one for name, raw in chosen for one in read(name, raw) if one.due_ms >= wanted.since_ms]
            yield from filter(wanted.takes, self.completed(found))


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


def _refusal(reason: bytes | None) -> Ending | None:
    """The end of a run that the broker refused; one that was sent again since has an end of its own."""
    return None if reason is None else Ending(REFUSED, reason=reason.decode(errors="backslashreplace"))


def _totals(claimed: int, counts: Counter[str]) -> Totals:
    """Totals from the number of runs that the schedule claimed, and the words of the tally."""
    scheduled = max(claimed - counts["refused"], 0)
    for word, refused_by_hand in (("triggered", "refused_trigger"), ("backfilled", "refused_backfill")):
        refused = counts.pop(refused_by_hand, 0)
        counts[word] -= refused
        counts["refused"] += refused
    return Totals(scheduled, +counts)


def _counts(tally: bytes) -> Counter[str]:
    words = tally.decode(errors="replace").split()
    pairs = zip(words[::2], words[1::2], strict=False)
    return Counter({word: int(number) for word, number in pairs if number.isdigit()})
