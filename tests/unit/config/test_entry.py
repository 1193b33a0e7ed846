"""Entries from plain fields, as an app registers them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from beatd import config
from beatd.exceptions import ConfigError
from beatd.schedules import crontab, every


def test_what_python_has_for_the_values() -> None:
    schedule = crontab(hour=7, minute=30, day_of_week=1)
    entry = config.entry(
        "a",
        {
            "task": "t",
            "schedule": schedule,
            "args": (1, None),
            "kwargs": {"x": {1, 2}},
            "options": {"expires": timedelta(minutes=1), "countdown": timedelta(seconds=2), "queue": None},
            "start": datetime(2026, 1, 1, tzinfo=UTC),
            "max_runs": None,
        },
        source="proj.tasks",
    )
    assert entry.schedule == schedule
    assert (entry.args, entry.kwargs) == ((1, None), {"x": [1, 2]})
    assert (entry.options.expires, entry.options.countdown_ms, entry.options.queue) == (60_000, 2000, None)
    assert entry.source == "proj.tasks"


def test_a_timedelta_and_defaults() -> None:
    entry = config.entry("a", {"task": "t", "schedule": timedelta(seconds=30)}, defaults={"expires": "auto"})
    assert entry.schedule == every(30)
    assert entry.options.expires == "auto"


def test_faults_have_the_source_for_a_file() -> None:
    with pytest.raises(ConfigError) as caught:
        config.entry("a b", {"task": "t", "schedule": "61 * * * *", "args": [object()]}, source="proj.tasks")
    assert [str(fault).partition(": ")[2].split(": ")[0] for fault in caught.value.faults] == [
        'beat_schedule."a b".args[0]',
        'beat_schedule."a b".schedule',
    ]
    assert str(caught.value).count("proj.tasks: ") == 2


def test_arguments_inside_of_themselves() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ConfigError, match="args: nested too deeply, or contains itself"):
        config.entry("a", {"task": "t", "schedule": 1, "args": loop})


def test_keys_that_json_cannot_carry() -> None:
    with pytest.raises(ConfigError, match=r"kwargs\.x: the key 1 cannot be encoded as JSON; expected a string"):
        config.entry("a", {"task": "t", "schedule": 1, "kwargs": {"x": {1: 2}}})
