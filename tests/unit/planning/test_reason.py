"""Reasons say that a run is due exactly at the times of the preview, and which rule decides."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

import pytest
from hypothesis import given, settings

from beatd import config
from beatd.client.entries import waiting_run
from beatd.model import Entry, EntryState
from beatd.planning.catchup import ResumePoints
from beatd.planning.preview import new_state, upcoming
from beatd.planning.reason import Reasons, reasons
from beatd.timestamps import to_ms
from tests.unit.beat.conftest import Rig
from tests.unit.planning.test_next_run import HOUR, NOW, entries, states


@given(entries, states)
@settings(max_examples=200, deadline=None)
def test_due_at_the_times_of_the_preview_and_at_no_other(entry: Entry, state: EntryState | None) -> None:
    known = state or new_state(NOW)
    runs = list(islice(upcoming(entry, known, ResumePoints(NOW)), 12))
    dues = {run.due_ms: run.skip is None for run in runs}
    for due_ms, sent in dues.items():
        answer = reasons(entry, known, due_ms, NOW)
        assert (answer.due_ms, answer.sent) == (due_ms, sent), answer
    end_ms = max(dues, default=NOW + 30 * 24 * HOUR)
    others = {known.last_due_ms + 1, NOW, *(due_ms + step for due_ms in dues for step in (-60_000, -1, 1, 1_000))}
    for at_ms in others - dues.keys():
        if known.last_due_ms < at_ms <= end_ms:
            assert not reasons(entry, known, at_ms, NOW).due, (at_ms, reasons(entry, known, at_ms, NOW))


def answer(text: str, at: str, **fields: object) -> Reasons:
    entry = config.entry("e", {"task": "t", "schedule": text, "timezone": "Europe/Berlin", **fields})
    return reasons(entry, EntryState(NOW, NOW - 24 * HOUR, 3), to_ms(datetime.fromisoformat(at)), NOW, span_ms=60_000)


@pytest.mark.parametrize(
    ("text", "at", "fields", "cause"),
    [
        ("30 7 * * mon-fri", "2026-03-31T07:30:00+02:00", {}, None),
        ("30 7 * * mon-fri", "2026-04-04T07:30:00+02:00", {}, "schedule"),
        ("30 7 * * *", "2026-03-31T07:30:00+02:00", {"enabled": False}, "enabled"),
        ("30 7 * * *", "2026-03-31T07:30:00+02:00", {"start": "2026-04-01"}, "start"),
        ("30 7 * * *", "2026-03-31T07:30:00+02:00", {"end": "2026-03-30"}, "end"),
        ("30 7 * * *", "2026-03-31T07:30:00+02:00", {"max_runs": 3}, "max_runs"),
        ("30 7 * * *", "2026-03-31T07:30:00+02:00", {"max_runs": 5}, "max_runs"),
        ("30 7 * * *", "2026-03-31T07:30:00+02:00", {"max_runs": 6}, None),
        ("30 7 * * *", "2026-03-31T07:30:00+02:00", {"blackout": "07:00-08:00"}, "blackout"),
        ("30 7 * * *", "2026-03-31T07:30:00+02:00", {"options": {"expires": "2026-03-30T00:00:00Z"}}, "expires"),
    ],
)
def test_the_rule_that_decides(text: str, at: str, fields: dict[str, object], cause: str | None) -> None:
    found = answer(text, at, **fields)
    assert (found.cause and found.cause.name) == cause
    assert found.sent == (cause is None)


@pytest.mark.parametrize(
    ("at", "fields", "rule", "ok", "text"),
    [
        (-HOUR, {"catch_up": "none"}, "catch_up", False, "missed, and not caught up"),
        (-HOUR, {"catch_up": "all", "catch_up_window": "1d"}, "catch_up", True, "it leaves as soon as a daemon leads"),
        (-2 * HOUR, {"catch_up": "latest"}, "catch_up", False, "not caught up"),
        (-2 * HOUR, {"catch_up": "all", "catch_up_window": "1d", "overlap": "queue_one"}, "overlap", False, "dropped"),
        (HOUR, {"overlap": "skip"}, "overlap", None, "decided when it leaves"),
        (HOUR, {"max_queue_depth": 1_000}, "queue depth", None, "holds 1,000 messages"),
        (HOUR, {"jitter": "5m"}, "jitter", None, "after it is due"),
        (HOUR, {"max_runs": 3}, "max_runs", False, "3 in all, 3 sent so far, 0 left"),
        (HOUR, {"blackout": "13:30-14:30"}, "blackout", False, "covers it"),
        (HOUR, {"expires": "1m"}, "expires", True, "not expired"),
    ],
)
def test_every_policy_is_told(at: int, fields: dict[str, object], rule: str, ok: bool | None, text: str) -> None:
    entry = config.entry("e", {"task": "t", "schedule": "0 * * * *", "timezone": "Europe/Berlin", **fields})
    due_ms = NOW // HOUR * HOUR + at
    state = EntryState(NOW // HOUR * HOUR - 4 * HOUR, NOW - 24 * HOUR, 3)
    found = reasons(entry, state, due_ms, NOW, span_ms=60_000)
    told = [one for one in found.rules if one.name == rule]
    assert [one.ok for one in told] == [ok], found
    assert text in told[0].text


def test_fields_of_a_cron_string_are_told_one_by_one() -> None:
    texts = [
        rule.text for rule in answer("30 7 * * mon-fri", "2026-04-04T07:30:00+02:00").rules if rule.name == "field"
    ]
    assert texts == [
        "second 00: matches",
        "minute 30: matches",
        "hour 07: matches",
        "month 4 (April): matches",
        "day 4, Saturday: does not match",
    ]


def test_a_run_that_a_clock_change_moves() -> None:
    found = answer("30 2 * * *", "2026-03-29T03:00:00+02:00")
    assert found.due
    assert any(rule.name == "clock change" and "skips its time" in rule.text for rule in found.rules)


def test_an_hour_that_is_repeated_runs_once() -> None:
    assert answer("30 2 * * *", "2026-10-25T02:30:00+02:00").due
    second = answer("30 2 * * *", "2026-10-25T02:30:00+01:00")
    assert not second.due
    assert any(rule.name == "clock change" for rule in second.rules)


def test_a_run_that_is_passed_over_is_not_one_too_many() -> None:
    entry = config.entry("e", {"task": "t", "schedule": "0 * * * *", "catch_up": "none", "max_runs": 10})
    state = EntryState(NOW // HOUR * HOUR - 4 * HOUR, NOW - 24 * HOUR, 3)
    found = reasons(entry, state, NOW // HOUR * HOUR - HOUR, NOW)
    assert (found.due, found.cause and found.cause.name) == (False, "catch_up")
    assert [rule.ok for rule in found.rules if rule.name == "max_runs"] == [True]


def test_a_run_that_waits_for_the_one_before_is_the_one_of_the_daemon() -> None:
    """The run before never ends. A run waits, whatever catch-up would do, and those after it are dropped with it."""
    entry = config.entry("e", {"task": "t", "schedule": "*/10 * * * *", "overlap": "queue_one"})
    rig = Rig(NOW)
    rig.beat.schedule.replace([entry])
    rig.jump_to(NOW + 35 * 60_000)
    assert len(rig.claims.pushed) == 1
    instant = rig.heap.next_fire_ms()
    assert instant is not None
    [run] = rig.heap.runs_at(instant)

    state, now_ms = rig.claims.states["e"][0], rig.clock.ms
    waiting_ms = waiting_run(entry, state, (), now_ms)
    assert waiting_ms == run.due_ms < now_ms - 10 * 60_000
    found = reasons(entry, state, waiting_ms, now_ms, waiting_ms=waiting_ms)
    assert (found.due_ms, found.cause) == (waiting_ms, None)
    later = reasons(entry, state, waiting_ms + 10 * 60_000, now_ms, waiting_ms=waiting_ms)
    assert later.cause is not None
    assert (later.cause.name, later.due) == ("overlap", False)
    to_come = reasons(entry, state, waiting_ms + 20 * 60_000, now_ms, waiting_ms=waiting_ms)
    assert (to_come.due_ms, to_come.cause) == (waiting_ms + 20 * 60_000, None)


def test_the_first_run_of_a_day_is_told_with_a_start_too() -> None:
    entry = config.entry("e", {"task": "t", "schedule": "0 */6 * * *", "start": "2026-01-01"})
    midnight = to_ms(datetime.fromisoformat("2026-04-04T00:00:00+00:00"))
    assert reasons(entry, None, midnight, NOW, span_ms=24 * HOUR).due_ms == midnight


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": {"at": "2026-03-26T00:00:00Z"}},
        {"schedule": {"at": "2026-03-26T00:00:00Z"}, "max_runs": 5},
        {"end": "2026-03-26T01:30:00Z"},
    ],
)
def test_a_last_run_that_is_not_caught_up_does_not_leave_as_soon_as_a_daemon_leads(fields: dict[str, object]) -> None:
    entry = config.entry("e", {"task": "t", "schedule": "0 * * * *", **fields})
    midnight = to_ms(datetime.fromisoformat("2026-03-26T00:00:00+00:00"))
    state = EntryState(midnight - HOUR, midnight - 24 * HOUR, 3)
    assert list(upcoming(entry, state, ResumePoints(NOW))) == []
    found = reasons(entry, state, midnight, NOW)
    assert (found.due, found.sent, found.cause and found.cause.name) == (False, False, "catch_up")


def test_the_run_before_is_one_that_was_made() -> None:
    hourly = config.entry("e", {"task": "t", "schedule": "1h"})
    seen = EntryState(NOW, NOW, 0)
    assert reasons(hourly, seen, NOW + HOUR // 2, NOW + 1).before_ms is None, "it was first seen then, and did not run"
    assert reasons(hourly, seen, NOW + HOUR + 1, NOW + 1).before_ms == NOW + HOUR
    relative = config.entry("e", {"task": "t", "schedule": {"every": "3h", "relative": True}})
    noon = NOW // HOUR * HOUR
    made = EntryState(noon, noon - 7 * HOUR, 3)
    assert reasons(relative, made, noon + 2 * HOUR, NOW).before_ms == noon
    assert reasons(relative, made, noon + 4 * HOUR, NOW).before_ms == noon + 3 * HOUR


def test_runs_that_depend_on_each_other_are_known_from_the_last_one_on() -> None:
    """Each is due three hours after the one before; also those that are missed."""
    noon = NOW // HOUR * HOUR
    for schedule in ({"every": "3h", "relative": True}, ["50 1 * * *", {"every": "3h", "relative": True}]):
        relative = config.entry("e", {"task": "t", "schedule": schedule, "catch_up": "none"})
        made = EntryState(noon - 8 * HOUR, noon - 24 * HOUR, 3)
        assert reasons(relative, made, noon - 8 * HOUR, NOW).due, "the last one"
        assert not reasons(relative, made, noon - 7 * HOUR, NOW).due
        missed = reasons(relative, made, noon - 2 * HOUR, NOW)
        assert (missed.on_line_ms, missed.cause and missed.cause.name) == (noon - 2 * HOUR, "catch_up")
        assert reasons(relative, made, noon + 3 * HOUR, NOW).due, "three hours from now, rounded down"
        assert not reasons(relative, made, noon + 4 * HOUR, NOW).due
