"""Comparison of schedules: keys that change, and the runs that appear, vanish and move."""

from __future__ import annotations

from typing import Any

from beatd import config
from beatd.model import Entry
from beatd.planning.comparison import Change, compare, total
from beatd.timestamps import from_ms
from tests.unit.planning.test_next_run import DAY, NOW


def entry(name: str = "e", schedule: Any = "0 3 * * *", **fields: Any) -> Entry:
    return config.entry(name, {"task": "t", "schedule": schedule, **fields})


def test_equal_schedules_have_no_difference_however_written() -> None:
    assert compare([entry(schedule="@daily")], [entry(schedule="0 0 * * *")], NOW, NOW + 7 * DAY) == []


def test_runs_that_move() -> None:
    [found] = compare([entry()], [entry(schedule="30 3 * * *")], NOW, NOW + 7 * DAY)
    assert (found.what, found.changes) == ("changed", (Change("schedule", "0 3 * * *", "30 3 * * *"),))
    assert (found.runs.appear, found.runs.vanish, found.runs.moved) == (7, 7, 7)
    assert total([found]) == (0, 0, 7)


def test_entries_that_come_and_go() -> None:
    added, removed = compare([entry("b")], [entry("a", "0 3 * * sun")], NOW, NOW + 7 * DAY)
    assert (added.name, added.what, added.runs.appear, added.runs.vanish) == ("a", "added", 1, 0)
    assert (removed.name, removed.what, removed.runs.appear, removed.runs.vanish) == ("b", "removed", 0, 7)


def test_a_change_that_moves_no_run() -> None:
    [found] = compare([entry(queue="a")], [entry(queue="b", kwargs={"x": None})], NOW, NOW + 7 * DAY)
    changes = {change.key: (change.old, change.new) for change in found.changes}
    assert (changes["queue"], changes["kwargs"][0]) == (("a", "b"), None)
    assert (found.runs.appear, found.runs.vanish) == (0, 0)


def test_a_zone_moves_runs_and_disabling_takes_them() -> None:
    [zone] = compare([entry()], [entry(timezone="Europe/Berlin")], NOW, NOW + 7 * DAY)
    assert ([change.key for change in zone.changes], zone.runs.moved) == (["timezone"], 7)
    [off] = compare([entry()], [entry(enabled=False)], NOW, NOW + 7 * DAY)
    assert (off.runs.appear, off.runs.vanish) == (0, 7)


def test_entries_with_very_many_runs_are_compared_as_far_as_both_are_planned() -> None:
    before, after = (entry(schedule={"every": every, "anchor": from_ms(NOW)}) for every in ("10s", "20s"))
    [found] = compare([before], [after], NOW, NOW + 7 * DAY)
    assert (found.runs.appear, found.runs.vanish, found.runs.end_ms) == (0, 10_000, NOW + 200_010_000)
    [moved] = compare([entry()], [entry(schedule="30 3 * * *")], NOW, NOW + 7 * DAY)
    assert moved.runs.end_ms == NOW + 7 * DAY


def test_values_that_only_python_takes_for_equal_are_shown() -> None:
    [found] = compare([entry(kwargs={"x": 1})], [entry(kwargs={"x": True})], NOW, NOW + DAY)
    [change] = found.changes
    assert (change.key, change.old["x"], change.new["x"]) == ("kwargs", 1, True)
    assert change.new["x"] is True
