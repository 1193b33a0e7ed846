"""The cache of a file's entries: what the next load of the file takes over of this one."""

from __future__ import annotations

from array import array

import msgspec

from beatd.model import Entry


class EntryCache:
    """The entries of one file, each with the hash of its text (``mark``) and the hash of its meaning.

    ``context`` is all else that they depend on. A mark differs from process to process; 0 marks an entry that is
    read again each time.
    """

    def __init__(self, context: str) -> None:
        self.context = context
        self.entries: list[Entry] = []
        self.meanings = array("Q")
        self._marks = array("q")

    def add(self, mark: int, entry: Entry, meaning: int) -> None:
        """Keep an entry."""
        self._marks.append(mark)
        self.entries.append(entry)
        self.meanings.append(meaning)

    def __eq__(self, other: object) -> bool:
        """Always equal: the cache is no part of a configuration's value."""
        return isinstance(other, EntryCache)

    __hash__ = None  # type: ignore[assignment]

    def keep(self, other: EntryCache, part: slice) -> None:
        """Keep a part of another cache as it is."""
        self._marks += other._marks[part]
        self.entries += other.entries[part]
        self.meanings += other.meanings[part]

    def common(self, marks: array[int]) -> tuple[int, int]:
        """The numbers of entries at the start and at the end of a file that have these marks, as they have here."""
        most = min(len(marks), len(self._marks))
        start = _same(self._marks[:most], marks[:most])
        most -= start
        end = _same(self._marks[: -most - 1 : -1], marks[: -most - 1 : -1])
        return start, end

    def places(self, part: slice) -> dict[int, int]:
        """Map marks of a part to the positions of their entries."""
        found = dict(zip(self._marks[part], range(len(self._marks))[part], strict=True))
        found.pop(0, None)
        return found


def _same(marks: array[int], others: array[int]) -> int:
    """The number of marks, up to the first that differs or is 0."""
    pairs = enumerate(zip(marks, others, strict=True))
    return next((number for number, (mark, other) in pairs if mark != other or not mark), len(marks))


def moved(entry: Entry, line: int) -> Entry:
    """The entry, on another line of its file."""
    return entry if entry.line == line else msgspec.structs.replace(entry, line=line)
