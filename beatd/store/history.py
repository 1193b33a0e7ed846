"""The history of entries: past runs as cells of 20 bytes, outcomes that workers reported, and totals.

::

    kind 1 | due 6 | jitter 4 | late 4 | outcome 1 | runtime 4      a run; all times in ms
    kind 1 | after 6 | before 6 | 0 …                               runs between two moments that were missed
    kind 1 | run id 16 | 0 …                                        the id of the run in the cell before

An entry's history is a string of cells, the newest last. They are small and of one size because the claim of a herd
writes ten thousand of them while it is waited for: the store appends, and cuts off without looking inside.
"""

from __future__ import annotations

import contextlib
import struct
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import islice
from typing import Any, NamedTuple

import redis

from beatd.exceptions import MessageError
from beatd.model import run_id
from beatd.states import FAILURE, IGNORED, READY_STATES, REJECTED, RETRY, REVOKED, SUCCESS
from beatd.store.client import is_cluster, translate_errors
from beatd.store.ended_runs import SentRun, due_ms_of
from beatd.store.keys import Keys
from beatd.store.results import Meta, decode, result_key
from beatd.store.run_record import LOST, REFUSED, decoded
from beatd.store.script import Script

CELL = 20
"""Bytes."""

LATE_MS = 1_000
"""A run that leaves so much later than it should is counted as late."""

SENT, BACKFILLED, TRIGGERED, MISSED, RUN_ID = 1, 2, 3, 4, 5
_FIRST_SKIP = 16
OWN_ID = 0x80
"""Added to the kind of a run whose id is not that of its due time: the next cell has it."""

REASONS = ("blackout", "expired", "overlap", "queue_full", "unsendable")
"""Why runs are skipped, in the order of their kinds. The order never changes; new ones go to the end."""

OUTCOMES = ("", SUCCESS, FAILURE, IGNORED, REJECTED, REVOKED, REFUSED, RETRY, LOST)
"""What became of a run, in the order of their numbers; likewise."""

_RUN = struct.Struct(">BHIIIBI")
_END = struct.Struct(">BI")
_MOMENT = struct.Struct(">HI")
_MOST = 0xFFFF_FFFF
UNKNOWN_MS = _MOST
"""The runtime of a run of which only the outcome is known."""
_KINDS = {SENT: "scheduled", BACKFILLED: "backfilled", TRIGGERED: "triggered", MISSED: "missed"}


class Record(NamedTuple):
    """One line of an entry's history. Times in ms; instants since the epoch."""

    entry: str
    kind: str
    """``scheduled``, ``backfilled``, ``triggered``, ``skipped``, or ``missed``: runs that were not caught up."""
    due_ms: int
    """Of missed runs: the moment after which they were due."""
    at_ms: int
    """When it was dispatched, or skipped. Of missed runs: the moment before which they were due."""
    late_ms: int = 0
    """How much later than it should, its jitter included, it left."""
    run_id: str | None = None
    reason: str | None = None
    """Why it was skipped, or refused by the broker."""
    outcome: str | None = None
    """How it ended, as far as that is known: one of Celery's states, :data:`REFUSED` or :data:`LOST`."""
    runtime_ms: int | None = None
    """How long its last attempt took."""

    @property
    def sent(self) -> bool:
        """True if there was a message."""
        return self.run_id is not None


class CountedCell(NamedTuple):
    """A run's cell of history, and the word under which the tally counts it; empty: no cell, not counted."""

    cell: bytes = b""
    word: str = ""


NO_CELL = CountedCell()


class Cells:
    """Cache of the last cell: the runs of a herd have theirs in common."""

    def __init__(self) -> None:
        self._instants: tuple[int, ...] = ()
        self._cell = NO_CELL

    def sent(self, due_ms: int, fire_ms: int, now_ms: int) -> CountedCell:
        """Cell of a run that leaves now."""
        instants = (due_ms, fire_ms, now_ms)
        if instants != self._instants:
            word = "late" if now_ms - fire_ms >= LATE_MS else ""
            self._instants, self._cell = instants, CountedCell(run_cell(SENT, due_ms, fire_ms, now_ms), word)
        return self._cell


def run_cell(kind: int, due_ms: int, fire_ms: int, now_ms: int) -> bytes:
    """The cell of a run. Delays beyond 49 days are cut off there."""
    jitter, late = min(max(fire_ms - due_ms, 0), _MOST), min(max(now_ms - fire_ms, 0), _MOST)
    return _RUN.pack(kind, due_ms >> 32, due_ms & _MOST, jitter, late, 0, 0)


def skipped(reason: str, due_ms: int, fire_ms: int, now_ms: int) -> CountedCell:
    """Cell of a run that is not sent."""
    return CountedCell(run_cell(_FIRST_SKIP + REASONS.index(reason), due_ms, fire_ms, now_ms), reason)


def by_hand(kind: int, due_ms: int, now_ms: int, own_id: str | None = None) -> bytes:
    """The cells of a run that was asked for; ``own_id`` if its id is not that of its due time."""
    if own_id is None:
        return run_cell(kind, due_ms, due_ms, now_ms)
    return run_cell(kind | OWN_ID, due_ms, due_ms, now_ms) + bytes([RUN_ID]) + uuid.UUID(own_id).bytes + bytes(3)


def missed(after_ms: int, before_ms: int) -> bytes:
    """The cell of runs that were passed over."""
    return bytes([MISSED]) + moment(after_ms) + moment(before_ms) + bytes(7)


def moment(ms: int) -> bytes:
    """An instant as it is in cells."""
    return _MOMENT.pack(ms >> 32, ms & _MOST)


def refused_word(kind: int) -> str:
    """Word under which the tally counts a run that the broker refused; ``kind`` is that of its cell, or 0."""
    return {TRIGGERED: "refused_trigger", BACKFILLED: "refused_backfill"}.get(kind & ~OWN_ID, "refused")


def end(outcome: str, runtime_ms: int) -> bytes:
    """Return the outcome of a run, as the last five bytes of its cell."""
    return _END.pack(OUTCOMES.index(outcome), min(runtime_ms, _MOST))


def end_arguments(run: SentRun, due_ms: int | None, outcome: str, runtime_ms: int) -> tuple[bytes, bytes, bytes]:
    """Arguments of ``note_ends.lua`` for one run: its due time, its own id, its end. ``due_ms`` is that of ``run``.

    Strange headers find nothing in the history.
    """
    due = own_id = ending = b""
    with contextlib.suppress(ValueError, TypeError, struct.error):
        if due_ms is not None:
            due = moment(due_ms)
        elif due_ms_of(run.due_at) is not None:
            own_id = uuid.UUID(run.id).bytes
        ending = end(outcome, runtime_ms) if due or own_id else b""
    return due, own_id, ending


def read(entry: str, raw: bytes) -> Iterator[Record]:
    """The records of an entry, the newest first, up to the first that nobody can read.

    Cells are counted from the end: what was there before beatd began to write, or was cut off half, is before that.
    """
    own_id: str | None = None
    for start in range(len(raw) - CELL, -1, -CELL):
        cell = raw[start : start + CELL]
        if cell[0] == RUN_ID:
            own_id = str(uuid.UUID(bytes=cell[1:17]))
            continue
        record = _record(entry, cell, own_id)
        if record is None:
            return
        own_id = None
        yield record


def _record(entry: str, cell: bytes, own_id: str | None) -> Record | None:
    kind, high, low, jitter, late, outcome, runtime = _RUN.unpack(cell)
    due_ms = high << 32 | low
    if kind == MISSED:
        high, low = _MOMENT.unpack(cell[7:13])
        return Record(entry, "missed", due_ms, high << 32 | low)
    at_ms = due_ms + jitter + late
    if 0 <= kind - _FIRST_SKIP < len(REASONS):
        return Record(entry, "skipped", due_ms, at_ms, late, reason=REASONS[kind - _FIRST_SKIP])
    if kind & ~OWN_ID not in _KINDS or outcome >= len(OUTCOMES) or (kind & OWN_ID and own_id is None):
        return None
    id_, runtime_ms = own_id if kind & OWN_ID else run_id(entry, due_ms), None if runtime == UNKNOWN_MS else runtime
    ending = (OUTCOMES[outcome], runtime_ms) if outcome else (None, None)
    return Record(entry, _KINDS[kind & ~OWN_ID], due_ms, at_ms, late, id_, None, *ending)


BATCH = 1_000
"""Entries read in one round trip."""

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


class Histories:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`.

    ``results`` are further servers on which results of Celery's workers may be.
    """

    def __init__(self, client: redis.Redis, keys: Keys, *, results: Sequence[redis.Redis] = ()) -> None:
        self._client = client
        self._keys = keys
        self._results = tuple(results) if is_cluster(client) else (client, *results)
        self._tails = Script(client, "history_tails")

    def of(self, names: Sequence[str]) -> Iterator[Record]:
        """The records of entries, one after the other, of each the newest first."""
        for batch, raws in self._read(names, 0):
            for name, raw in zip(batch, raws, strict=True):
                yield from read(name, raw or b"")

    def newest(self, names: Sequence[str], count: int, wanted: Callable[[Record], bool] | None = None) -> list[Record]:
        """The newest records of many entries, the newest first. Without ``wanted`` few entries are read whole."""
        if wanted is None:
            latest: list[tuple[int, str]] = []
            for batch, raws in self._read(names, -TAIL):
                found = ((next(read(name, raw), None), name) for name, raw in zip(batch, raws, strict=True))
                latest = nlargest(count, [*latest, *((one.at_ms, name) for one, name in found if one)])
            names = [name for _, name in latest]
        every = self.of(names) if wanted is None else filter(wanted, self._complete(names))
        return nlargest(count, every, key=lambda one: (one.at_ms, one.due_ms))

    def recent(self, names: Sequence[str], count: int) -> dict[str, list[Record]]:
        """The newest records of each entry, the newest first."""
        found: dict[str, list[Record]] = {}
        for batch, raws in self._read(names, -TAIL * count):
            found |= {name: list(islice(read(name, raw), count)) for name, raw in zip(batch, raws, strict=True)}
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
        asked = {n: one.run_id for n, one in enumerate(lines) if one.run_id and one.outcome in (None, REFUSED, RETRY)}
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
        with translate_errors(self._client):  # first: when it is there, the result is
            ended = self._by_id([part.finished for part in self._keys.all_parts()], run_ids)
            refused = self._by_id([part.refused for part in self._keys.all_parts()], run_ids)
        metas: list[Meta | None] = [None] * len(run_ids)
        for client in self._results:
            with translate_errors(client):
                results: Any = client.mget([result_key(run_id) for run_id in run_ids])
            metas = [meta or _meta(raw) for meta, raw in zip(metas, results, strict=True)]
        found = zip(ended, metas, refused, strict=True)
        return [_ending(said, meta) or _refusal(reason) for said, meta, reason in found]

    def _by_id(self, keys: Sequence[str], run_ids: Sequence[str]) -> list[bytes | None]:
        """Values that are kept under the ids of runs, in whichever part."""
        parts = [self._client.mget([f"{key}{run_id}" for run_id in run_ids]) for key in keys]
        return [next(filter(None, values), None) for values in zip(*parts, strict=True)]

    def refused(self, run_id: str) -> str | None:
        """Why the broker refused a run; ``None`` if it did not, as far as is known."""
        with translate_errors(self._client):
            (raw,) = self._by_id([part.refused for part in self._keys.all_parts()], [run_id])
        refusal = _refusal(raw)
        return refusal and refusal.reason

    def totals(self, names: Sequence[str]) -> dict[str, Totals]:
        """The totals of entries."""
        found: dict[str, Totals] = {}
        parts = [
            (part, own)
            for start in range(0, len(names), BATCH)
            for part, own in self._keys.by_part(names[start : start + BATCH])
        ]
        for part, own in parts:
            with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
                pipeline.hmget(part.runs, own)
                pipeline.hmget(part.tally, own)
                runs, tallies = pipeline.execute()
            for name, count, tally in zip(own, runs, tallies, strict=True):
                found[name] = _totals(int(count) if count and count.isdigit() else 0, _counts(tally or b""))
        return found

    def _read(self, names: Sequence[str], start: int) -> Iterator[tuple[Sequence[str], list[bytes]]]:
        """The cells of entries, from a byte on: some at a time, so that other clients get their turn between."""
        for first in range(0, len(names), BATCH):
            batch = names[first : first + BATCH]
            found: dict[str, bytes] = {}
            for part, own in self._keys.by_part(batch):
                found |= zip(own, self._tails([f"{part.history}{name}" for name in own], [start]), strict=True)
            yield batch, [found.get(name, b"") for name in batch]

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
