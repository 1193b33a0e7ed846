"""Blocks of a TOML text: stretches of a hundred entries, by which a later text is found to be the same in part.

A text is cut at the headers of its entries. Of a later one only what lies between its first and its last changed block
is cut: the blocks before and after that are found again by their hashes, without a look at each entry. They are as they
were, as a block begins with a header, and nothing but a header can end it.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

FEWEST = 500
"""Entries from which on a text is cut."""

ENTRIES = 100
"""Entries of a block, about."""

_NAME = r"\[beat_schedule\.([A-Za-z0-9_-]+|\"[^\"\\\n]*\"|'[^'\n]*')"
_END = r"\](?:[ \t]*(?:#[^\n]*)?\r?)(?=\n|\Z)"
HEADER = re.compile(_NAME + _END)
_INSIDE = re.compile(_NAME + r"\.[^\]\n]+" + _END)
_INDENTED = re.compile(r"\n[ \t]+\[")


class Block(NamedTuple):
    """Entries that follow one another. The first block of a text is what comes before its entries, and has none."""

    mark: int | None
    """A hash of the text; None for entries with variables, which are read again each time."""
    length: int
    """Number of characters."""
    lines: int
    entries: int


def lines_of(blocks: Iterable[Block]) -> int:
    """Number of lines of blocks."""
    return sum(block.lines for block in blocks)


class Cut(NamedTuple):
    """A text that was cut at its entries, compared with the blocks of one ``before``."""

    head: Sequence[Block]
    """The blocks at the start that are as they were."""
    tail: Sequence[Block]
    """The blocks at the end that are as they were."""
    starts: array[int]
    """The offsets of the entries between these, and the end of the last one."""
    first: int
    """The offset of the first entry of all."""

    def line(self, text: str) -> int:
        """The line of the first of these entries."""
        return 1 + (lines_of(self.head) if self.head else text.count("\n", 0, self.first))

    def blocks(self, text: str, entries: int = ENTRIES) -> list[Block]:
        """The blocks of the text, for the next one; new ones have about so many ``entries``."""
        starts, count = self.starts, len(self.starts) - 1
        number = max(1, count // entries)
        bounds = [count * each // number for each in range(number + 1)] if count else []
        new = [_block(text[starts[at] : starts[until]], until - at) for at, until in pairwise(bounds)]
        return [*(self.head or [_block(text[: starts[0]], 0)]), *new, *self.tail]


def _block(text: str, entries: int) -> Block:
    has_variables = entries > 0 and "${" in text
    return Block(None if has_variables else hash(text), len(text), text.count("\n"), entries)


def cut(text: str, before: Sequence[Block] = ()) -> Cut | None:
    """Cut a text at the headers of its entries; ``None`` if it must be parsed as a whole.

    It can be cut when from the first header on each line with a leading bracket is such a header, or that of a table
    inside the entry above. Multi-line strings could hide a header: not cut. The same holds of each text with blocks
    ``before``, so only what is new need be looked at.
    """
    head, start = _same_start(text, before)
    tail, end = _same_end(text, before[head:], start)
    starts = _starts(text, start, end)
    if starts is None:
        return None
    known = (*before[:head], *before[len(before) - tail :])
    if len(starts) + sum(block.entries for block in known) < FEWEST:
        return None
    starts.append(end)
    return Cut(before[:head], before[len(before) - tail :], starts, before[0].length if head else starts[0])


def _same_start(text: str, before: Sequence[Block]) -> tuple[int, int]:
    """The number of blocks with which the text begins as before, and where they end.

    What follows them must begin with a header: else it belongs to their last entry. The last block of all does not
    count, as it is not known to end with a line.
    """
    number = at = 0
    for block in before[:-1]:
        if hash(text[at : at + block.length]) != block.mark:
            break
        number, at = number + 1, at + block.length
    if number and not HEADER.match(text, at):
        number -= 1
        at -= before[number].length
    return number, at


def _same_end(text: str, before: Sequence[Block], start: int) -> tuple[int, int]:
    """The number of blocks with which the text ends as before, and where they begin: after ``start``, with a line."""
    number, at = 0, len(text)
    for block in reversed(before):
        first = at - block.length
        if not block.entries or first < start or hash(text[first:at]) != block.mark:
            break
        number, at = number + 1, first
    if number and at and text[at - 1] != "\n":
        at += before[len(before) - number].length
        number -= 1
    return number, at


def _starts(text: str, start: int, end: int) -> array[int] | None:
    """The offsets of the headers of entries in a part of a text; ``None`` if it cannot be cut.

    The part is the whole, or it begins with such a header, and ends with the text or before another one.
    """
    starts = array("I")
    if any(text.find(quotes, start, end) >= 0 for quotes in ('"""', "'''")):
        return None
    for at in _brackets(text, start, end):
        if HEADER.match(text, at):
            starts.append(at)
        elif starts and not _is_inside(text, at, starts[-1]):
            return None
    if starts and _INDENTED.search(text, starts[0], end):
        return None
    return starts


def _brackets(text: str, start: int, end: int) -> Iterator[int]:
    """The offsets of the lines that begin with a bracket."""
    if text.startswith("[", start, end):
        yield start
    while at := text.find("\n[", start, end) + 1:
        yield at
        start = at


def _is_inside(text: str, at: int, start: int) -> bool:
    """True if the line at an offset is the header of a table inside the entry that starts above."""
    inside, entry = _INSIDE.match(text, at), HEADER.match(text, start)
    return inside is not None and entry is not None and inside[1] == entry[1]
