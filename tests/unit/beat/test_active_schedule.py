"""What a reload has to touch."""

import msgspec

from beatd.beat.active_schedule import ScheduleDiff, known_as
from beatd.model import Policies
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
