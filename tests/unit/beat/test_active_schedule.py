"""What a reload has to touch."""

import copy
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import msgspec

from beatd.beat.active_schedule import ScheduleDiff, known_as
from beatd.model import Options, Policies
from beatd.store.entry_state import Fingerprints


def by_name(*entries):
    return {entry.name: entry for entry in entries}


def test_only_what_means_something_else_is_put(entry):
    before = by_name(entry("kept", 1.0), entry("changed", 1.0), entry("gone", 1.0))
    moved = msgspec.structs.replace(before["kept"], line=99)
    after = by_name(moved, entry("changed", 2.0), entry("new", 1.0))
    changes = ScheduleDiff.between(before, after)
    assert sorted(changes.put) == ["changed", "new"]
    assert changes.gone == {"gone"}


def test_nothing_changed_is_nothing(entry):
    schedule = by_name(entry("a"), entry("b"))
    assert not ScheduleDiff.between(schedule, dict(schedule))


def test_changes_add_up_to_the_change_between_first_and_last(entry):
    first = by_name(entry("a", 1.0), entry("b", 1.0))
    second = by_name(entry("a", 2.0), entry("c", 1.0))
    third = by_name(entry("b", 5.0), entry("a", 2.0))
    both = ScheduleDiff.between(first, second).then(ScheduleDiff.between(second, third))
    assert dict(both.put) == {"a": third["a"], "b": third["b"]}
    assert both.gone == {"c"}


def test_the_fingerprint_tells_whether_an_entry_is_enabled(entry):
    on = entry("a", 30.0)
    off = msgspec.structs.replace(on, policies=Policies(enabled=False))
    fingerprints = Fingerprints()
    assert [known_as(each, fingerprints) for each in (on, off)] == [("a", "every 30s"), ("a", "off every 30s")]


def test_values_that_only_python_takes_for_equal_are_changes(entry):
    """A worker gets 1, 1.0 or true as it stands in the message."""
    values = [0, 0.0, False, 1, 1.0, True]
    places = [
        lambda value: {"args": (value,)},
        lambda value: {"args": ([{"deep": [value]}],)},
        lambda value: {"kwargs": {"dry_run": value}},
        lambda value: {"options": Options(headers={"x": value})},
        lambda value: {"options": Options(link=[{"task": "u", "args": [value]}])},
    ]
    for place in places:
        for number, value in enumerate(values):
            made = [msgspec.structs.replace(entry("a"), **place(other)) for other in values]
            differ = [bool(ScheduleDiff.between(by_name(made[number]), by_name(other))) for other in made]
            assert differ == [number != other for other in range(len(values))], value


def test_the_order_of_named_arguments_is_no_change(entry):
    one, other = (msgspec.structs.replace(entry("a"), kwargs=kwargs) for kwargs in ({"x": 1, "y": 2}, {"y": 2, "x": 1}))
    assert not ScheduleDiff.between(by_name(one), by_name(other))


def test_values_whose_texts_differ_are_changes_and_others_are_none(entry):
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    values = [moment, moment.astimezone(timezone(timedelta(hours=2))), Decimal("1.0"), Decimal("1.00"), Decimal("sNaN")]
    for number, value in enumerate(values):
        before = by_name(msgspec.structs.replace(entry("a"), args=(value,)))
        after = [msgspec.structs.replace(entry("a"), args=(copy.copy(other),)) for other in values]
        differ = [bool(ScheduleDiff.between(before, by_name(other))) for other in after]
        assert differ == [number != other for other in range(len(values))], value
