"""Reasons say that a run is due exactly at the times of the preview, and which rule decides."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

import pytest
from hypothesis import given, settings

from beatd import config
from beatd.model import Entry, EntryState
from beatd.planning.catchup import ResumePoints
from beatd.planning.preview import new_state, upcoming
from beatd.planning.reason import Reasons, reasons
from beatd.timestamps import to_ms
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
