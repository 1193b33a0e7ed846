"""What programs may put: checked like a file, and stored without Python's own values."""

from datetime import UTC, date, datetime, timedelta

import pytest

from beatd import config, crontab, every, solar
from beatd.client.schedules import checked
from beatd.exceptions import ConfigError
from beatd.store.runtime_entries import TABLE_MAX


def stored(**fields):
    return checked("a", {"task": "t"} | fields)


@pytest.mark.parametrize(
    ("schedule", "table"),
    [
        (30, {"schedule": 30}),
        ("30 7 * * mon", {"schedule": "30 7 * * mon"}),
        (timedelta(minutes=5), {"schedule": 300.0}),
        (crontab(minute="30", hour="7"), {"schedule": {"minute": "30", "hour": "7"}}),
        (
            crontab(minute="30", timezone="Europe/Berlin"),
            {"schedule": {"minute": "30"}, "timezone": "Europe/Berlin"},
        ),
        (every("90s"), {"schedule": "1m30s"}),
    ],
)
def test_schedules_of_python_are_stored_in_their_notation(schedule, table):
    assert stored(schedule=schedule) == {"task": "t"} | table


@pytest.mark.parametrize(
    "schedule",
    [
        crontab(minute="*/5", timezone="Asia/Baku", dst="skip"),
        every("1h", anchor=datetime(2026, 1, 1, tzinfo=UTC)),
        solar("sunset", 40.4, 49.9),
        ["0 9 * * *", "30 17 * * fri"],
    ],
)
def test_what_is_stored_means_the_same(schedule):
    direct = config.entry("a", {"task": "t", "schedule": schedule})
    assert config.entry("a", stored(schedule=schedule)).schedule == direct.schedule


def test_moments_and_lengths_of_time_survive():
    table = stored(
        schedule=1,
        start=datetime(2027, 1, 1, tzinfo=UTC),
        end=date(2028, 1, 1),
        expires=timedelta(hours=2),
        args=[date(2026, 1, 1), (1, 2)],
    )
    entry = config.entry("a", table)
    assert entry.policies.start == datetime(2027, 1, 1, tzinfo=UTC)
    assert entry.policies.end == datetime(2028, 1, 1, tzinfo=UTC)
    assert entry.options.expires == 7_200_000
    assert entry.args == (date(2026, 1, 1), [1, 2])


def test_none_is_not_stored():
    assert stored(schedule=1, queue=None) == {"task": "t", "schedule": 1}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"schedule": "30 25 * * *"}, "beat_schedule.a.schedule"),
        ({"schedule": 1, "quue": "x"}, 'did you mean "queue"?'),
        ({"schedule": 1, "args": [object()]}, "args[0]"),
        ({"schedule": 1, "args": [float("nan")]}, "args[0]"),
        ({"schedule": 1, "timezone": "Mars/Base"}, "timezone"),
        ({"schedule": 1, "args": ["x" * TABLE_MAX]}, "at most 1,024 KiB"),
        ({}, "schedule is missing"),
    ],
)
def test_what_is_wrong_is_refused_in_the_words_of_the_file(fields, said):
    with pytest.raises(ConfigError) as caught:
        stored(**fields)
    assert all(fault.file == "runtime:a" for fault in caught.value.faults)
    assert said in str(caught.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        checked("a\n", {"task": "", "schedule": "x", "queue": 5})
    assert len(caught.value.faults) == 4


def test_the_defaults_of_the_file_are_minded():
    with pytest.raises(ConfigError, match="expected at most the interval"):
        checked("a", {"task": "t", "schedule": 30}, defaults={"jitter": "5m"})


def test_timedeltas_inside_of_schedules_and_blackouts_are_seconds():
    table = stored(
        schedule=[{"every": timedelta(minutes=5)}, timedelta(hours=1)],
        blackout=[{"cron": "0 22 * * *", "duration": timedelta(hours=8)}],
    )
    assert table["schedule"] == [{"every": 300.0}, 3600.0]
    assert table["blackout"] == [{"cron": "0 22 * * *", "duration": 28_800.0}]
