"""``crontab()`` is Celery's: the same arguments, the same fields, the same next run wherever no clock changes."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import celery.schedules
import pytest
from celery.schedules import crontab as celery_crontab
from celery.schedules import crontab_parser, schedule
from celery.utils.time import remaining

from beatd import schedules
from beatd.exceptions import ScheduleError
from beatd.schedules import crontab, every
from beatd.schedules.cron import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH, values_of
from beatd.schedules.cron_parser import mask_of, read_field

FIELDS = {
    "minute": MINUTE,
    "hour": HOUR,
    "day_of_week": DAY_OF_WEEK,
    "day_of_month": DAY_OF_MONTH,
    "month_of_year": MONTH,
}
NAMES = {
    "day_of_week": ["sun", "Mon", "tuesday", "wed", "THU", "friday", "Saturday"],
    "month_of_year": ["jan", "Feb", "march", "apr", "may", "JUNE", "jul", "aug", "september", "oct", "nov", "Dec"],
}
CASES = 6000


def random_value(choice: random.Random, name: str) -> object:
    field = FIELDS[name]

    def number() -> str:
        value = choice.randint(field.low, field.high)
        if name in NAMES and choice.random() < 0.5:
            return NAMES[name][value - field.low]
        return str(value)

    def part() -> str:
        step = choice.randint(1, field.high)
        return choice.choice(
            ["*", f"*/{step}", number(), number(), f"{number()}-{number()}", f"{number()}-{number()}/{step}"]
        )

    kind = choice.random()
    if kind < 0.15:
        return choice.randint(field.low, field.high)
    if kind < 0.25:
        return [choice.randint(field.low, field.high) for _ in range(choice.randint(1, 4))]
    return ",".join(part() for _ in range(choice.choice([1, 1, 1, 2, 3])))


def random_table(choice: random.Random) -> dict[str, object]:
    return {name: random_value(choice, name) for name in FIELDS if choice.random() < 0.5}


def celery_next(table: dict[str, object], t: datetime) -> datetime:
    """Celery's own answer: its delta from the last run, added in its zone."""
    schedule = celery_crontab(**table, nowfun=lambda: t)
    schedule.tz = t.tzinfo
    last, delta, _ = schedule.remaining_delta(t)
    return last + delta


def test_the_next_run_is_celerys():
    choice = random.Random(20260301)
    compared = 0
    while compared < CASES:
        table = random_table(choice)
        zone = choice.choice(["UTC", "Etc/GMT+5", "Asia/Kolkata"])
        t = datetime(2020, 1, 1, tzinfo=ZoneInfo(zone)) + timedelta(minutes=choice.randint(0, 20 * 365 * 1440))
        t += timedelta(seconds=choice.choice([0, 0, 17, 59]))
        try:
            expected = celery_next(table, t)
        except ValueError:  # the only thing that is wrong with these tables
            with pytest.raises(ScheduleError, match="never runs"):
                crontab(**table)
            continue
        assert crontab(**table, timezone=zone).next_after(t) == expected.astimezone(UTC), (table, t)
        compared += 1


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_means_the_same_set(name):
    choice, field = random.Random(name), FIELDS[name]
    size = field.high - field.low + 1
    for _ in range(1000):
        value = random_value(choice, name)
        if isinstance(value, str):
            theirs = crontab_parser(size, field.low).parse(value)
            assert set(values_of(read_field(value, field, celery=True))) == theirs, value
            assert schedules.crontab_parser(size, field.low).parse(value) == theirs, value
        else:
            values = [value] if isinstance(value, int) else value
            assert set(values_of(mask_of(values, field))) == set(values)


@pytest.mark.parametrize("text", ["", "1,,2", "*/", "-20", "61-0", "x", "mox", "*/x", "/5"])
def test_a_field_that_celery_refuses_is_refused(text):
    with pytest.raises((celery.schedules.ParseException, ValueError)):
        crontab_parser(60).parse(text)
    with pytest.raises(schedules.ParseException):
        schedules.crontab_parser(60).parse(text)


def test_numbers_become_schedules():
    assert schedules.maybe_schedule(30) == schedules.schedule(30)
    assert schedules.maybe_schedule(timedelta(minutes=1), relative=True) == schedules.schedule(60, relative=True)
    assert schedules.maybe_schedule(crontab()) == crontab()
    assert schedules.maybe_schedule(None) is None


def test_the_order_of_arguments_is_celerys():
    assert crontab(0, 7, 1) == crontab(minute=0, hour=7, day_of_week="mon")
    assert crontab(0, 7, 1) == crontab(*map(str, (0, 7, 1)))


@pytest.mark.parametrize(
    "table",
    [
        {"minute": "*/90"},  # a step beyond the range is minute 0
        {"minute": "5, 10"},
        {"hour": "22-2"},
        {"day_of_week": "fri-mon"},
        {"month_of_year": "nov-feb/2"},
        {"day_of_week": {1, 3}},
        {"minute": range(0, 60, 7)},
        {"minute": "0,0,*/30"},
    ],
)
def test_what_celery_accepts_is_accepted(table):
    t = datetime(2026, 5, 5, 5, 5, tzinfo=UTC)
    assert crontab(**table).next_after(t) == celery_next(table, t)


@pytest.mark.parametrize("value", ["1-2-3", "*/2-3", "1-5/2/3", "*/2x"])
def test_what_slips_through_celerys_regular_expressions_is_refused(value):
    with pytest.raises(ScheduleError, match="minute"):
        crontab(minute=value)


@pytest.mark.parametrize("value", ["mon-", "-mon", "jan", "m", "mondae", "8", "mon tue"])
def test_odd_weekdays_are_refused(value):
    with pytest.raises(ScheduleError, match="day_of_week"):
        crontab(day_of_week=value)


def test_seven_is_sunday_too():
    assert crontab(day_of_week=7) == crontab(day_of_week=0) == crontab(day_of_week="sunday")
    assert crontab(day_of_week="5-7") == crontab(day_of_week="fri,sat,sun")


@pytest.mark.parametrize("seconds", [1, 7, 59, 60, 90, 3599, 3600, 5400, 86399, 86400, 100_000, 7 * 86400])
def test_relative_rounds_as_celery_does(seconds):
    choice = random.Random(seconds)
    for zone in (UTC, timezone(timedelta(hours=-5))):
        name = "UTC" if zone is UTC else "Etc/GMT+5"
        ours = every(seconds, relative=True, timezone=name)
        for _ in range(50):
            t = datetime(2026, 1, 1, tzinfo=zone) + timedelta(milliseconds=choice.randint(0, 10**10))
            theirs = schedule(timedelta(seconds=seconds), relative=True, nowfun=lambda t=t: t)
            assert ours.next_after(t) == t + theirs.remaining_estimate(t)


CHANGES = {
    "Australia/Lord_Howe": ("2026-04-04T15:00Z", "2026-10-03T15:30Z"),  # by half an hour
    "Europe/Berlin": ("2026-03-29T01:00Z", "2026-10-25T01:00Z"),
    "America/Havana": ("2026-03-08T05:00Z", "2026-11-01T05:00Z"),  # at midnight
    "Antarctica/Troll": ("2026-03-29T01:00Z", "2026-10-25T01:00Z"),  # by two hours
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("seconds", [60, 5400, 3600, 9000, 10_800, 86_400])
def test_relative_rounds_as_celery_does_over_a_change_of_the_clock(seconds, name):
    choice = random.Random(seconds)
    ours = every(seconds, relative=True, timezone=name)
    for change in map(datetime.fromisoformat, CHANGES[name]):
        for _ in range(100):
            t = (change + timedelta(seconds=choice.randint(-90_000, 10_000))).astimezone(ZoneInfo(name))
            left = remaining(t, timedelta(seconds=seconds), now=t, relative=True)
            assert ours.next_after(t) == t.astimezone(UTC) + left, t
