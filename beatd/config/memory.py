"""What a load made of each entry, so that the next one reads only what is written differently.

Of a hundred thousand entries, a change touches one. The others are found again by the hash of their text, and are the
same objects as before: they cost no parsing, no second copy in memory, and no comparison later on.
"""

from __future__ import annotations

from array import array

import msgspec

from beatd.model import Entry


class Memory:
    """The entries of one file, each with the mark of its text and with its meaning.

    ``context`` is what they depend on beside their own text. A mark is a 64-bit hash that differs from process to
    process; 0 marks what is to be read again each time.
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
        """It says nothing: configurations are not told apart by what they remember."""
        return isinstance(other, Memory)

    __hash__ = None  # type: ignore[assignment]

    def places(self) -> dict[int, int]:
        """Where the entry of each mark is."""
        found = dict(zip(self._marks, range(len(self._marks)), strict=True))
        found.pop(0, None)
        return found


def moved(entry: Entry, source: str) -> Entry:
    """The entry, at ``source``."""
    return entry if entry.source == source else msgspec.structs.replace(entry, source=source)
