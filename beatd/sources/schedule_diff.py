"""Differences of schedules: an entry has changed if anything but its place in the file has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress, count
from operator import attrgetter, eq, is_not
from typing import NamedTuple

from beatd.model import Entry

NAME = attrgetter("name")


class Differences(NamedTuple):
    """The differences from one schedule to another: entries of the latter by name, and names of the former."""

    added: dict[str, Entry]
    changed: dict[str, Entry]
    gone: dict[str, Entry]


def differences(before: Sequence[Entry], after: Sequence[Entry]) -> Differences:
    """Compare two schedules, each with no name twice.

    After a change of a file most entries at its start and at its end are the same objects: no look is taken at these.
    """
    most = min(len(before), len(after))
    head = _same(before, after, most)
    tail = _same(reversed(before), reversed(after), most - head)
    gone = by_name(before[head : len(before) - tail])
    added, changed = dict[str, Entry](), dict[str, Entry]()
    for entry in after[head : len(after) - tail]:
        if (other := gone.pop(entry.name, None)) is None:
            added[entry.name] = entry
        elif other is not entry and not _mean_the_same(entry, other):
            changed[entry.name] = entry
    return Differences(added, changed, gone)


def by_name(entries: Sequence[Entry]) -> dict[str, Entry]:
    """The entries by name, in their order; of two with one name the last."""
    return dict(zip(map(NAME, entries), entries, strict=True))


def renewed(before: Mapping[str, Entry], entries: Sequence[Entry]) -> dict[str, Entry]:
    """The entries by name, each with one of its own. With the names of ``before`` it is a copy of that with what is new
    in it, as a table of a million names takes long to make."""
    if len(before) != len(entries) or not all(map(eq, before, map(NAME, entries))):
        return by_name(entries)
    new = compress(entries, map(is_not, before.values(), entries))
    return {**before, **by_name(tuple(new))}


def _same(entries: Iterable[Entry], others: Iterable[Entry], most: int) -> int:
    """The number of entries that are the same objects, up to the first that are not; at most so many."""
    return min(next(compress(count(), map(is_not, entries, others)), most), most)


def _mean_the_same(entry: Entry, other: Entry) -> bool:
    try:
        return entry.means(other)
    except Exception:  # noqa: BLE001 - values that cannot be compared may have changed
        return False
