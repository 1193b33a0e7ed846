"""Comparison of two schedules: entries that come, go and change, and runs that appear and vanish with that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from beatd.config.writer import Unwritable, entry_table
from beatd.model import Entry, alike
from beatd.planning.catchup import ResumePoints
from beatd.planning.preview import Upcoming, new_state, upcoming

RUNS_COMPARED = 20_000
"""Runs of an entry that are planned at most; what comes later is not compared."""
FIRST_SHOWN = 3


class Change(NamedTuple):
    """One key of an entry; ``None`` stands for a key that is not set."""

    key: str
    old: Any
    new: Any


class Runs(NamedTuple):
    """Runs of a window that only one of the schedules has, in ms; counts, and the first of them.

    A run moves if one vanishes and another appears at the same place in their order.
    """

    appear: int
    vanish: int
    first_appearing: tuple[int, ...]
    first_vanishing: tuple[int, ...]
    end_ms: int
    """Runs that are due later are not compared."""

    @property
    def moved(self) -> int:
        """Runs that appear in the place of others."""
        return min(self.appear, self.vanish)


class Difference(NamedTuple):
    """Difference of one entry."""

    name: str
    what: str
    """``added``, ``removed`` or ``changed``."""
    changes: tuple[Change, ...]
    runs: Runs


def compare(old: Iterable[Entry], new: Iterable[Entry], from_ms: int, until_ms: int) -> list[Difference]:
    """Return the differences by name; runs are those that are due after ``from_ms`` and before ``until_ms``."""
    olds, news = {entry.name: entry for entry in old}, {entry.name: entry for entry in new}
    differences = []
    for name in sorted(olds.keys() | news.keys()):
        before, after = olds.get(name), news.get(name)
        if before is not None and after is not None and before.means(after):
            continue
        what = "added" if before is None else "removed" if after is None else "changed"
        changes = tuple(_changes(before, after)) if before and after else ()
        differences.append(Difference(name, what, changes, _runs(before, after, from_ms, until_ms)))
    return differences


def _changes(before: Entry, after: Entry) -> Iterable[Change]:
    old, new = table_of(before), table_of(after)
    keys = dict.fromkeys((*old, *new))
    found = [Change(key, old.get(key), new.get(key)) for key in keys if not alike(old.get(key), new.get(key))]
    # without any: the same notation with another meaning
    return found or [Change("schedule", str(before.schedule), str(after.schedule))]


def table_of(entry: Entry) -> Mapping[str, Any]:
    """The table of an entry with its time zone; a value that TOML cannot have is shown as Python does."""
    try:
        table = entry_table(entry, "")
    except Unwritable:
        table = {**entry_table(entry, "", leave_out={"args", "kwargs"}), "args": repr(entry.args)}
        table["kwargs"] = repr(entry.kwargs)
    return table


def _runs(before: Entry | None, after: Entry | None, from_ms: int, until_ms: int) -> Runs:
    old, new = plan(before, from_ms, until_ms), plan(after, from_ms, until_ms)
    end_ms = min(old.end_ms, new.end_ms)
    olds, news = ({ms for ms in one.dues if ms < end_ms} for one in (old, new))
    appearing, vanishing = sorted(news - olds), sorted(olds - news)
    first_appearing, first_vanishing = tuple(appearing[:FIRST_SHOWN]), tuple(vanishing[:FIRST_SHOWN])
    return Runs(len(appearing), len(vanishing), first_appearing, first_vanishing, end_ms)


class Plan(NamedTuple):
    """When the runs of an entry are due that are sent, before ``end_ms``."""

    dues: Sequence[int]
    end_ms: int


def plan(entry: Entry | None, from_ms: int, until_ms: int) -> Plan:
    """The plan of an entry for a window, which ends early if there are more than :data:`RUNS_COMPARED` runs in it."""
    dues: list[int] = []
    runs: Iterable[Upcoming] = ()
    if entry is not None:
        runs = upcoming(entry, new_state(from_ms), ResumePoints(from_ms))
    for number, run in enumerate(runs):
        if run.due_ms >= until_ms:
            break
        if number == RUNS_COMPARED:
            return Plan(dues, run.due_ms)
        if run.skip is None:
            dues.append(run.due_ms)
    return Plan(dues, until_ms)


def total(differences: Sequence[Difference]) -> tuple[int, int, int]:
    """The numbers of runs that appear, vanish and move, in all."""
    moved = sum(difference.runs.moved for difference in differences)
    appear, vanish = (
        sum(difference.runs.appear for difference in differences),
        sum(difference.runs.vanish for difference in differences),
    )
    return appear - moved, vanish - moved, moved
