"""Pending runs: those whose ends are not known, packed.

While workers are behind there are tens of thousands. As objects each would take 400 bytes, in memory that the process
does not get rid of afterwards; packed, a run takes 45.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from struct import Struct
from typing import NamedTuple

from beatd.model import run_id
from beatd.store.history import OpenRun

_CELL = Struct(">16sqqqIB")
"""Run id, due time, when it was sent, when it is tried again (all ms), the pause before that, flags."""
_SIZE = _CELL.size
_SCHEDULED, _OWN_ID = 1, 2


class PendingRun(NamedTuple):
    """A run whose end is not known. Instants in ms."""

    entry: str
    run_id: str
    due_ms: int
    at_ms: int
    """When it was sent."""
    is_scheduled: bool
    pause_ms: int
    """Pause before the next attempt to find its end."""


class PendingRuns:
    """Pending runs by entry, ``most`` at most: of more, those of the entries that wait longest for their turn go."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._cells: dict[str, bytes] = {}
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def clear(self) -> None:
        """Forget all of them."""
        self._cells, self._number = {}, 0

    def add(self, entry: str, runs: Iterable[OpenRun], *, try_at_ms: int, pause_ms: int) -> int:
        """Add runs of an entry, unless they are known; returns how many were not."""
        known, new = self._cells.get(entry, b""), dict[bytes, bytes]()
        dues = {due_ms for _, due_ms, *_, flags in _CELL.iter_unpack(known) if not flags & _OWN_ID}
        for run in runs:
            if run.own_id is None and run.due_ms in dues:
                continue
            id_ = _packed(run.own_id or run_id(entry, run.due_ms))
            if id_ in new or (run.own_id is not None and _place(known, id_) >= 0):
                continue
            flags = (_SCHEDULED if run.is_scheduled else 0) | (0 if run.own_id is None else _OWN_ID)
            new[id_] = _CELL.pack(id_, run.due_ms, run.at_ms, try_at_ms, pause_ms, flags)
        if new:
            self._put(entry, known + b"".join(new.values()))
            self._trim()
        return len(new)

    def due(self, now_ms: int, at_most: int) -> list[PendingRun]:
        """The runs that are to be tried now, at most so many: entries take turns."""
        found: list[PendingRun] = []
        for entry in list(self._cells):
            found += islice(self._due_of(entry, now_ms), at_most - len(found))
            if len(found) >= at_most:
                break
            self._cells[entry] = self._cells.pop(entry)  # to the end of the line
        return found

    def _due_of(self, entry: str, now_ms: int) -> Iterator[PendingRun]:
        for id_, due_ms, at_ms, try_at_ms, pause_ms, flags in _CELL.iter_unpack(self._cells[entry]):
            if try_at_ms <= now_ms:
                yield PendingRun(entry, _unpacked(id_), due_ms, at_ms, bool(flags & _SCHEDULED), pause_ms)

    def put_off(self, run: PendingRun, try_at_ms: int, pause_ms: int) -> None:
        """Try a run again at that instant."""
        cells, id_ = self._cells.get(run.entry, b""), _packed(run.run_id)
        if (place := _place(cells, id_)) >= 0:
            _, due_ms, at_ms, _, _, flags = _CELL.unpack_from(cells, place)
            cell = _CELL.pack(id_, due_ms, at_ms, try_at_ms, pause_ms, flags)
            self._put(run.entry, cells[:place] + cell + cells[place + _SIZE :])

    def remove(self, run: PendingRun) -> None:
        """Forget a run: its end is known."""
        cells = self._cells.get(run.entry, b"")
        if (place := _place(cells, _packed(run.run_id))) >= 0:
            self._put(run.entry, cells[:place] + cells[place + _SIZE :])

    def try_all(self, now_ms: int) -> None:
        """Try all of them as soon as there is time: the clock was set."""
        for entry, cells in self._cells.items():
            fields = _CELL.iter_unpack(cells)
            self._cells[entry] = b"".join([_CELL.pack(*one[:3], now_ms, *one[4:]) for one in fields])

    def _put(self, entry: str, cells: bytes) -> None:
        self._number += (len(cells) - len(self._cells.get(entry, b""))) // _SIZE
        if cells:
            self._cells[entry] = cells
        else:
            self._cells.pop(entry, None)

    def _trim(self) -> None:
        while self._number > self._most:
            entry = next(iter(self._cells))
            surplus = self._number - self._most
            self._put(entry, self._cells[entry][surplus * _SIZE :])


def _packed(run_id: str) -> bytes:
    return bytes.fromhex(run_id.replace("-", ""))


def _unpacked(id_: bytes) -> str:
    digits = id_.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _place(cells: bytes, id_: bytes) -> int:
    """The first byte of a run's cell; -1 if there is none."""
    place = cells.find(id_)
    while place % _SIZE and place >= 0:
        place = cells.find(id_, place + 1)
    return place
