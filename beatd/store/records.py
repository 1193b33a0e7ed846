"""What the history keeps of a run: a cell of 20 bytes. Written, read, and nothing else; no I/O.

::

    kind 1 | due 6 | jitter 4 | late 4 | outcome 1 | runtime 4      a run; all times in ms
    kind 1 | after 6 | before 6 | 0 …                               runs between two moments that were missed
    kind 1 | run id 16 | 0 …                                        the id of the run in the cell before

An entry's history is a string of cells, the newest last. They are small and of one size because the claim of a herd
writes ten thousand of them while it is waited for: the store appends, and cuts off without looking inside.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from beatd.model import run_id
from beatd.store.outcomes import FAILURE, IGNORED, REJECTED, REVOKED, SUCCESS

CELL = 20
"""Bytes."""

NONE = bytes(CELL)
"""No record."""

LATE_MS = 1_000
"""A run that leaves so much later than it should is counted as late."""

SENT, BACKFILLED, TRIGGERED, MISSED, RUN_ID = 1, 2, 3, 4, 5
_FIRST_SKIP = 16
OWN_ID = 0x80
"""Added to the kind of a run whose id is not that of its due time: the next cell has it."""

REASONS = ("blackout", "expired", "overlap", "queue_full", "unsendable")
"""Why runs are skipped, in the order of their kinds. The order never changes; new ones go to the end."""

OUTCOMES = ("", SUCCESS, FAILURE, IGNORED, REJECTED, REVOKED)
"""What became of a run, in the order of their numbers; likewise."""

_RUN = struct.Struct(">BHIIIBI")
_END = struct.Struct(">BI")
_MOMENT = struct.Struct(">HI")
_MOST = 0xFFFF_FFFF
_KINDS = {SENT: "scheduled", BACKFILLED: "backfilled", TRIGGERED: "triggered", MISSED: "missed"}


class Record(NamedTuple):
    """One line of an entry's history. Times in ms; instants since the epoch."""

    entry: str
    kind: str
    """``scheduled``, ``backfilled``, ``triggered``, ``skipped``, or ``missed``: runs that were not made up for."""
    due_ms: int
    """Of missed runs: the moment after which they were due."""
    at_ms: int
    """When it was dispatched, or skipped. Of missed runs: the moment before which they were due."""
    late_ms: int = 0
    """How much later than it should, its jitter included, it left."""
    run_id: str | None = None
    reason: str | None = None
    """Why it was skipped."""
    outcome: str | None = None
    """How it ended, as far as that is known: one of Celery's states."""
    runtime_ms: int | None = None
    """How long its last attempt took."""

    @property
    def sent(self) -> bool:
        """Whether there was a message."""
        return self.run_id is not None


class Cells:
    """Writes cells; the last one is remembered, since the runs of a herd have theirs in common."""

    def __init__(self) -> None:
        self._made: tuple[int, ...] = ()
        self._cell = b""

    def sent(self, due_ms: int, fire_ms: int, now_ms: int) -> bytes:
        """The record of a run that leaves now, and with it the word under which it is counted besides."""
        made = (due_ms, fire_ms, now_ms)
        if made != self._made:
            self._made, late = made, b"late" if now_ms - fire_ms >= LATE_MS else b""
            self._cell = run_cell(SENT, due_ms, fire_ms, now_ms) + late
        return self._cell


def run_cell(kind: int, due_ms: int, fire_ms: int, now_ms: int) -> bytes:
    """The cell of a run. Delays beyond 49 days are cut off there."""
    jitter, late = min(max(fire_ms - due_ms, 0), _MOST), min(max(now_ms - fire_ms, 0), _MOST)
    return _RUN.pack(kind, due_ms >> 32, due_ms & _MOST, jitter, late, 0, 0)


def skipped(reason: str, due_ms: int, fire_ms: int, now_ms: int) -> bytes:
    """The record of a run that is not sent, and with it the word under which it is counted."""
    return run_cell(_FIRST_SKIP + REASONS.index(reason), due_ms, fire_ms, now_ms) + reason.encode()


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


def end(outcome: str, runtime_ms: int) -> bytes:
    """How a run ended, as the last five bytes of its cell."""
    return _END.pack(OUTCOMES.index(outcome), min(runtime_ms, _MOST))


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
    facts: dict[str, Any] = {"due_ms": due_ms, "at_ms": due_ms + jitter + late, "late_ms": late}
    if 0 <= kind - _FIRST_SKIP < len(REASONS):
        return Record(entry, "skipped", reason=REASONS[kind - _FIRST_SKIP], **facts)
    if kind & ~OWN_ID not in _KINDS or outcome >= len(OUTCOMES) or (kind & OWN_ID and own_id is None):
        return None
    facts["run_id"] = own_id if kind & OWN_ID else run_id(entry, due_ms)
    if outcome:
        facts |= {"outcome": OUTCOMES[outcome], "runtime_ms": runtime}
    return Record(entry, _KINDS[kind & ~OWN_ID], **facts)
