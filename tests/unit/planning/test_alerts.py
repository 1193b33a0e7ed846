"""Alerts: one message for a change, however many runs fail."""

from __future__ import annotations

import pytest

from beatd import config
from beatd.model import NotifyTarget
from beatd.planning.alerts import BriefFailure, Condition, Subject, ToldCondition, changes, is_for

NOW = 1_800_000_000_000
HOUR = 3_600_000
ENTRIES = {
    name: config.entry(name, {"task": "t", "schedule": 30, **more})
    for name, more in {
        "a": {},
        "b": {},
        "billing-x": {},
        "own": {"notify": ["other"]},
        "silent": {"notify": []},
    }.items()
}
FAILURE_OF_A = Subject("failure", "a")


def target(**more) -> NotifyTarget:
    return NotifyTarget(name="ops", webhook="http://x", **more)


def news(one: NotifyTarget, conditions, told=(), now_ms=NOW, **more):
    return changes(one, conditions, dict(told), entry=ENTRIES.get, now_ms=now_ms, **more)


def test_a_failure_is_told_once_and_its_end_too():
    failing = {FAILURE_OF_A: Condition(NOW - 5)}
    assert news(target(), failing).begun == failing
    told = {FAILURE_OF_A: ToldCondition(NOW - 5, NOW)}
    assert news(target(), failing, told).number == 0
    assert news(target(), {}, told).over == told


def test_failures_count_from_after_on():
    one = target(after=3)
    assert not news(one, {FAILURE_OF_A: Condition(NOW, 2)}).number
    assert news(one, {FAILURE_OF_A: Condition(NOW, 3)}).number == 1


def test_only_kinds_that_were_asked_for_are_told():
    one = target(on=("overdue",))
    conditions = {FAILURE_OF_A: Condition(NOW), Subject("overdue", "a"): Condition(NOW)}
    assert list(news(one, conditions).begun) == [Subject("overdue", "a")]
    found = news(one, {}, {Subject("overdue", "a"): ToldCondition(NOW, NOW)})
    assert found.number == 0
    assert found.forgotten == {Subject("overdue", "a")}, "nobody asked for recovery"


@pytest.mark.parametrize("step_ms", [24 * HOUR, -24 * HOUR - 1, 10**12])
def test_what_lasts_is_told_again_also_after_a_step_of_the_clock(step_ms):
    one = target(repeat_ms=24 * HOUR)
    told = {FAILURE_OF_A: ToldCondition(NOW - 5, NOW)}
    assert not news(one, {FAILURE_OF_A: Condition(NOW - 5)}, told, NOW + HOUR).number
    assert news(one, {FAILURE_OF_A: Condition(NOW - 5)}, told, NOW + step_ms).lasting


def test_missed_runs_are_an_event_without_an_end():
    subject = Subject("missed", "a")
    told = {subject: ToldCondition(NOW, NOW)}
    assert not news(target(), {subject: Condition(NOW)}, told).number
    assert news(target(), {subject: Condition(NOW + 1)}, told).begun
    gone = news(target(), {}, told)
    assert (gone.number, gone.forgotten) == (0, {subject})


def test_an_entry_that_left_the_schedule_is_forgotten_without_a_word():
    told = {Subject("failure", "gone"): ToldCondition(NOW, NOW)}
    found = news(target(), {Subject("failure", "gone"): Condition(NOW)}, told)
    assert (found.number, found.forgotten) == (0, set(told))


def test_what_could_not_be_looked_at_is_not_over():
    found = news(target(), {}, {FAILURE_OF_A: ToldCondition(NOW, NOW)}, is_unknown=lambda one: one.kind == "failure")
    assert (found.number, found.forgotten) == (0, set())


def test_entries_that_name_their_targets_are_told_to_these_only():
    one = target(match=("a", "billing-*"))
    assert [name for name, entry in ENTRIES.items() if is_for(one, entry)] == ["a", "billing-x"]
    assert is_for(NotifyTarget(name="other", match=("nothing",)), ENTRIES["own"])


def test_marks_are_read_back():
    subject, told = Subject("held", "a name with blanks"), ToldCondition(5, 7)
    assert (Subject.of(subject.field), ToldCondition.of(told.text)) == (subject, told)
    assert ToldCondition.of("changed by hand") == ToldCondition(0, 0)


def test_a_target_with_tags_is_told_of_entries_that_have_one_of_them():
    tagged = config.entry("tagged", {"task": "t", "schedule": 30, "tags": ["billing", "eu"]})
    assert is_for(target(tags=("eu", "us")), tagged)
    assert not is_for(target(tags=("us",)), tagged)
    assert not is_for(target(tags=("eu",)), ENTRIES["a"])
    assert not is_for(target(tags=("eu",), match=("billing-*",)), tagged), "both must fit"


BRIEF = BriefFailure(NOW - 10, NOW - 5, 2)


@pytest.mark.parametrize(
    ("more", "conditions", "told", "number"),
    [
        ({}, {}, {}, 1),
        ({"on": ("failure",)}, {}, {}, 1),
        ({"on": ("recovery",)}, {}, {}, 0),
        ({"after": 3}, {}, {}, 0),
        ({"match": ("b",)}, {}, {}, 0),
        ({}, {FAILURE_OF_A: Condition(NOW)}, {}, 0),
        ({}, {}, {FAILURE_OF_A: ToldCondition(NOW - 10, NOW)}, 0),
    ],
)
def test_failures_that_are_over_are_told_unless_they_are_told_already(more, conditions, told, number):
    found = news(target(**more), conditions, told, recovered=[("a", BRIEF)])
    assert dict(found.brief) == ({FAILURE_OF_A: BRIEF} if number else {})
