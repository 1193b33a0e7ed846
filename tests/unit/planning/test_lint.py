"""The warnings of ``beatd check``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from beatd import config
from beatd.model import Settings
from beatd.planning.lint import find_warnings
from beatd.timestamps import to_ms

Warnings = Callable[[str], list[str]]

EMPTY = config.Config(settings=Settings(), entries=(), files=(), globs=(), digest="", defaults={})
NOW_MS = to_ms(datetime(2026, 1, 1, 12, tzinfo=UTC))


@pytest.fixture
def warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warnings:
    """Calls with the text of a file; gives its warnings."""
    monkeypatch.chdir(tmp_path)

    def of(text: str) -> list[str]:
        Path("beat.toml").write_text(text)
        return [str(warning) for warning in find_warnings(config.load("beat.toml", env={}), NOW_MS)]

    return of


def entry(schedule: str, more: str = "", name: str = "a") -> str:
    return f'[beat_schedule.{name}]\ntask = "t"\nschedule = {schedule}\n{more}\n'


@pytest.mark.parametrize(
    "text",
    [
        entry("30", 'expires = "30s"\njitter = 30'),
        entry('"0 0 1 * *"') + entry("{ day_of_month = 1, day_of_week = 1 }", name="c"),
        entry('"30 2 * * *"', 'timezone = "Asia/Baku"'),
        entry('"0 * * * *"', 'timezone = "Europe/Berlin"'),
        entry('"0 4 * * *"', 'timezone = "Europe/Berlin"'),
        entry("{ at = 2026-06-01 }"),
        entry('"0 */3 * * *"', 'blackout = "02:00-04:00"'),
        entry('"30 2 * * *"', 'timezone = "America/New_York"\ndst = "skip"'),
        entry('"0,30 9-17 * * mon-fri"', 'expires = "30m"'),
        "".join(entry('"0 0 * * *"', 'blackout = "2026-01-02"', name=f"e{n}") for n in range(1500)),
        entry("{ at = 2020-06-01 }", "enabled = false"),
        entry('"*/5 * * * *"', 'blackout = "2026-01-01/2026-01-03"'),
        entry('"0 3 * * *"', 'blackout = "2026-01-01/2027-12-31"\nstart = 2028-01-01'),
        "".join(entry('"0 0 * * *"', name=f"e{n}") for n in range(1000)),
        "".join(entry('"0 0 * * *"', 'jitter = "1m"', name=f"e{n}") for n in range(1500)),
    ],
)
def test_nothing_to_say(warnings: Warnings, text: str) -> None:
    assert warnings(text) == []


def test_another_reading_by_croniter_is_told(warnings: Warnings) -> None:
    [said] = warnings(entry('"0 0 */2 * mon"'))
    assert 'croniter reads the days "*/2 * mon" in another way' in said


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            entry("30", "expires = 31"),
            "expires: 31s is longer than the period of 30s: runs pile up when no worker takes them",
        ),
        (
            entry('"@hourly"', 'jitter = "2h"'),
            "jitter: 2h is longer than the period of 1h: it is cut to end before the next run",
        ),
        (
            entry('"0 0 13 * fri"'),
            'schedule: "0 0 13 * fri" runs on each of these days of the month and also on each of these weekdays',
        ),
        (
            entry('"30 2 * * *"', 'timezone = "Europe/Berlin"'),
            "schedule: the clock skips its time in Europe/Berlin: the run is at 2026-03-29 03:00 instead; "
            "the clock shows 2026-10-25 02:30 twice in Europe/Berlin: it runs the first time only",
        ),
        (
            entry('"30 1 * * *"', 'timezone = "America/New_York"'),
            "schedule: the clock shows 2026-11-01 01:30 twice in America/New_York: it runs the first time only",
        ),
        (entry("{ at = 2020-06-01 }"), "schedule: its time has passed: it never runs again"),
        (
            entry('["0 9 * * *", "30 2 * * *"]', 'timezone = "Europe/Berlin"'),
            "schedule: the clock skips its time in Europe/Berlin: the run is at 2026-03-29 03:00 instead; "
            "the clock shows 2026-10-25 02:30 twice in Europe/Berlin: it runs the first time only",
        ),
        (
            entry('["0 9 * * *", "0 0 13 * fri"]'),
            'schedule: "0 0 13 * fri" runs on each of these days of the month and also on each of these weekdays',
        ),
        (
            entry('"0,5 * * * *"', 'jitter = "10m"'),
            "jitter: 10m is longer than the period of 5m: it is cut to end before the next run",
        ),
        (
            entry('"0 3 * * *"', 'blackout = "02:00-04:00"'),
            "blackout: it covers all of the coming runs: none is sent",
        ),
        (
            entry('"0 3 * * *"', 'blackout = "2026-01-01/2026-06-30"\nend = 2026-05-01'),
            "blackout: it covers all of the coming runs: none is sent",
        ),
        (
            entry('"0 3 * * *"', "expires = 2026-01-01"),
            "expires: that was at 2026-01-01T00:00:00+00:00: no run is sent any more",
        ),
        (
            entry('"0 3 * * *"', "start = 2026-02-01T04:00:00\nend = 2026-02-02T02:00:00"),
            "schedule: no run is left between its start and its end: it never runs again",
        ),
        (
            entry("30", 'routing_key = "a.b"'),
            "routing_key: it says nothing without an exchange: the message goes to default_queue of [broker]",
        ),
        (
            entry("30", 'options = { routing_key = "a.b", queue = "q" }'),
            "routing_key: it says nothing without an exchange: the message goes to the queue q",
        ),
        (entry("30", "end = 2026-01-01"), "end: it ended at 2026-01-01T00:00:00+00:00 and never runs again"),
    ],
)
def test_warning(warnings: Warnings, text: str, warning: str) -> None:
    line = 3 if warning.startswith("schedule:") else 4
    column = text.splitlines()[line - 1].index("routing_key") + 1 if "options = {" in text else 1
    assert warnings(text) == [f"beat.toml:{line}:{column}: beat_schedule.a.{warning}"]


def test_a_herd_of_one_schedule(warnings: Warnings) -> None:
    text = "".join(entry('"0 3 * * *"', name=f"e{n}") for n in range(1001))
    assert warnings(text) == [
        "beat.toml: beat_schedule: 1,001 runs are due in one second, at 2026-01-02T03:00:00.000+00:00; "
        'jitter = "30s" would spread them'
    ]


def test_an_entry_that_an_app_registers_has_no_line(warnings: Warnings) -> None:
    registered = config.entry("a", {"task": "t", "schedule": 30, "expires": 60}, source="proj/tasks.py")
    loaded = msgspec.structs.replace(EMPTY, entries=(registered,))
    (warning,) = find_warnings(loaded, NOW_MS)
    assert str(warning).startswith("proj/tasks.py: beat_schedule.a.expires: 1m is longer")


def test_a_herd_that_meets_from_several_schedules(warnings: Warnings) -> None:
    text = "".join(
        entry(schedule, name=f"{name}{n}")
        for name, schedule in {"a": '"0 * * * *"', "b": '"*/15 18 * * *"', "c": '"0 18 * * *"'}.items()
        for n in range(400)
    )
    (warning,) = warnings(text)
    assert "1,200 runs are due in one second, at 2026-01-01T18:00:00.000+00:00" in warning


def test_intervals_that_are_first_seen_together_run_together(warnings: Warnings) -> None:
    (warning,) = warnings("".join(entry("30", name=f"e{n}") for n in range(1001)))
    assert "1,001 runs are due in one second, at 2026-01-01T12:00:30.000+00:00" in warning


def test_many_warnings_of_one_kind_are_cut_short(warnings: Warnings) -> None:
    found = warnings("".join(entry("30", "expires = 31", name=f"e{n}") for n in range(25)))
    assert len(found) == 11
    assert found[-1].endswith("beat_schedule: and 15 more like the last one")


@pytest.mark.parametrize(
    ("schedule", "warning"),
    [
        ('"* */15 * * * *"', '"* */15 * * * *" has six fields, the second first: it runs every second'),
        ('"5/15 * * * *"', '"5/15" is read as "5-59/15"'),
        ('"0 3/6 * * *"', '"3/6" is read as "3-23/6"'),
        ('"*/7 * * * *"', '"*/7" starts again at each hour: the last step is shorter than the others'),
        ('"0 */5 * * *"', '"*/5" starts again at each day: the last step is shorter than the others'),
        ('"0 0 31 * *"', 'there is no day 31 in some months; write "L" for the last day of each month'),
        ("{ hour = 9 }", "minute is not set: it runs every minute of these hours; write minute = 0 for once"),
    ],
)
def test_cron_notations_that_surprise(warnings: Warnings, schedule: str, warning: str) -> None:
    assert warnings(entry(schedule)) == [f"beat.toml:3:1: beat_schedule.a.schedule: {warning}"]
