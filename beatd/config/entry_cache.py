"""The cache of a file's entries: what the next load of the file takes over of this one."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import msgspec

from beatd.config.toml_blocks import Block
from beatd.model import Entry


class EntryCache:
    """The entries of one file, each with the hash of its text (``mark``) and the hash of its meaning.

    ``context`` is all else that they depend on. A mark differs from process to process; 0 marks an entry that is
    read again each time.
    """

    def __init__(self, context: str) -> None:
        self.context = context
        self.blocks: Sequence[Block] = ()
        """Those of the text; none if it is parsed as a whole."""
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

    def keep(self, other: EntryCache, part: slice, lines: int = 0) -> None:
        """Keep a part of another cache, so many lines further down in the file."""
        entries = other.entries[part]
        self._marks += other._marks[part]
        self.entries += [moved(entry, entry.line + lines) for entry in entries] if lines else entries
        self.meanings += other.meanings[part]

    def places(self, part: slice) -> dict[int, int]:
        """Map marks of a part to the positions of their entries."""
        found = dict(zip(self._marks[part], range(len(self._marks))[part], strict=True))
        found.pop(0, None)
        return found


def moved(entry: Entry, line: int) -> Entry:
    """The entry, on another line of its file."""
    return entry if entry.line == line else msgspec.structs.replace(entry, line=line)
