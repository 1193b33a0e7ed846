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
from collections.abc import Iterator
from typing import NamedTuple

from beatd.model import run_hash, run_id
from beatd.states import FAILURE, IGNORED, REJECTED, RETRY, REVOKED, SUCCESS
from beatd.store.ended_runs import SentRun, due_ms_of
from beatd.store.run_record import LOST, REFUSED

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
_OUTCOME_AT = _RUN.size - _END.size
_SUCCESSES = bytes(map(OUTCOMES.index, (SUCCESS, IGNORED)))
_OPEN = frozenset({"", RETRY})
_FAILED = frozenset({FAILURE, REJECTED, REVOKED, REFUSED, LOST})
_MOST = 0xFFFF_FFFF
UNKNOWN_MS = _MOST
"""The runtime of a run of which only the outcome is known."""
_KINDS = {SENT: "scheduled", BACKFILLED: "backfilled", TRIGGERED: "triggered"}
_SENT_KINDS = frozenset(_KINDS.values())


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
    own_id: str | None = None
    """The id of a run that was asked for by hand, if it is not that of its due time."""
    reason: str | None = None
    """Why it was skipped, or refused by the broker."""
    outcome: str | None = None
    """How it ended, as far as that is known: one of Celery's states, :data:`REFUSED` or :data:`LOST`."""
    runtime_ms: int | None = None
    """How long its last attempt took."""

    @property
    def sent(self) -> bool:
        """True if there was a message."""
        return self.kind in _SENT_KINDS

    @property
    def run_id(self) -> str | None:
        """The id of a run that was sent: computed when it is asked for, as few of many records are."""
        return self.own_id or (run_id(self.entry, self.due_ms) if self.sent else None)

    @property
    def is_open(self) -> bool:
        """True if it was sent, and its end is not in the history."""
        return (self.outcome or "") in _OPEN and self.sent


class OpenRun(NamedTuple):
    """A run that was sent, and whose end is not in the history. Instants in ms."""

    due_ms: int
    at_ms: int
    """When it was dispatched."""
    is_scheduled: bool
    """False if it was asked for by hand."""
    own_id: str | None = None
    """Its id, if that is not the id of its due time."""


class RecordFilter(NamedTuple):
    """Filter of records: those due since then, and of these the failed, or the skipped and missed ones, or either."""

    since_ms: int = 0
    failed: bool = False
    skipped: bool = False

    def takes(self, one: Record) -> bool:
        """True if a record is wanted."""
        if one.due_ms < self.since_ms:
            return False
        if not (self.failed or self.skipped):
            return True
        return (self.failed and one.outcome in _FAILED) or (self.skipped and not one.sent)

    def may_take(self, raw: bytes) -> bool:
        """False if nothing in a history can be wanted, by a look at the outcomes in its cells."""
        if self.skipped or not self.failed:
            return True
        return bool(raw[len(raw) % CELL + _OUTCOME_AT :: CELL].strip(_SUCCESSES))


ALL_RECORDS = RecordFilter()


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
    jitter, late = fire_ms - due_ms, now_ms - fire_ms
    if not (0 <= jitter <= _MOST and 0 <= late <= _MOST):
        jitter, late = min(max(jitter, 0), _MOST), min(max(late, 0), _MOST)
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


def open_runs(raw: bytes, count: int) -> Iterator[OpenRun]:
    """The open runs among the newest ``count`` records of a history, as :func:`read` finds them, in a fraction of its
    time."""
    places = range(len(raw) - CELL, -1, -CELL)
    own_id: str | None = None
    for start, cell in zip(places, reversed(list(_RUN.iter_unpack(raw[len(raw) % CELL :]))), strict=True):
        kind, high, low, jitter, late, outcome, _ = cell
        if kind == RUN_ID:
            own_id = str(uuid.UUID(bytes=raw[start + 1 : start + 17]))
            continue
        if kind & ~OWN_ID in _KINDS:
            if outcome >= len(OUTCOMES) or (kind & OWN_ID and own_id is None):
                return
            if OUTCOMES[outcome] in _OPEN:
                due_ms = high << 32 | low
                by_hand_id = own_id if kind & OWN_ID else None
                yield OpenRun(due_ms, due_ms + jitter + late, kind & ~OWN_ID == SENT, by_hand_id)
        elif kind != MISSED and not 0 <= kind - _FIRST_SKIP < len(REASONS):
            return
        own_id = None
        count -= 1
        if not count:
            return


def departures(raw: bytes) -> Iterator[tuple[int, str]]:
    """The instant (ms) of each dispatch and skip in a history, with ``sent``, ``failed`` or ``skipped``: the newest
    first, as :func:`read` finds them, in a fraction of its time."""
    for kind, high, low, jitter, late, outcome, _ in reversed(list(_RUN.iter_unpack(raw[len(raw) % CELL :]))):
        at_ms = (high << 32 | low) + jitter + late
        if kind & ~OWN_ID in _KINDS and outcome < len(OUTCOMES):
            yield at_ms, "failed" if OUTCOMES[outcome] in _FAILED else "sent"
        elif 0 <= kind - _FIRST_SKIP < len(REASONS):
            yield at_ms, "skipped"
        elif kind not in (MISSED, RUN_ID):
            return


def may_have_run(entry: str, raw: bytes, start: str) -> bool:
    """False if no run in a history has an id that begins with ``start``, without a record of each."""
    short, hashed = start[:8], run_hash(entry)
    for kind, high, low, *_ in _RUN.iter_unpack(raw[len(raw) % CELL :]):
        if kind in _KINDS:
            one = hashed.copy()
            one.update(b"%d" % (high << 32 | low))
            if one.hexdigest().startswith(short):
                return True
        elif kind == RUN_ID:
            return True
    return False


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
    own_id = own_id if kind & OWN_ID else None
    if not outcome:
        return Record(entry, _KINDS[kind & ~OWN_ID], due_ms, at_ms, late, own_id)
    runtime_ms = None if runtime == UNKNOWN_MS else runtime
    return Record(entry, _KINDS[kind & ~OWN_ID], due_ms, at_ms, late, own_id, None, OUTCOMES[outcome], runtime_ms)
