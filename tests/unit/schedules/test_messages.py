"""Each kind of wrong input has a message of its own, with the place and the near right value."""

# ruff: noqa: E501 - a table's row is one line

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from beatd.exceptions import BeatdError, ScheduleError
from beatd.schedules import crontab, duration_ms, every, once, parse, parse_blackout, solar

SCHEDULES = [
    # cron strings
    ("CRON_TZ=UTC * * * * *", 'set timezone = "Europe/Berlin" beside schedule'),
    ("TZ=UTC 0 0 * * *", 'set timezone = "Europe/Berlin" beside schedule'),
    ("0~30 * * * *", 'a random value with "~" is not supported; write "H" or "H(0-29)"'),
    ("0 0 L-3 * *", 'days before the last one are not supported; write "L"'),
    ("? * * * *", '"?" stands alone, in day_of_month or day_of_week; write "*"'),
    ("* * * * * * 2026", "a year field is not supported, use start and end of the entry"),
    ("1M", 'write "1m" for minutes, and a cron string such as "0 0 1 * *" for months'),
    ("* * * *", '"* * * *": 4 fields, expected 5 (minute hour day-of-month month day-of-week) or 6 (second first)'),
    ("0 0 * * * * 2026", "7 fields, expected 5 (minute hour day-of-month month day-of-week) or 6 (second first); a year"),
    ("@dayly", '"@dayly": unknown alias; did you mean @daily?'),
    ("@reboot", "@reboot is not supported; for one run at a set time write { at ="),
    ("@blue", "unknown alias; expected @yearly"),
    ("daily", 'did you mean "@daily"?'),
    ("60 * * * *", 'minute "60": 60 is out of range; minute goes from 0 to 59'),
    ("0 24 * * *", 'hour "24": 24 is out of range; hour goes from 0 to 23'),
    ("0 0 0 * *", 'day_of_month "0": 0 is out of range; day_of_month goes from 1 to 31'),
    ("0 0 * 13 *", 'month_of_year "13": 13 is out of range; month_of_year goes from 1 to 12 or jan to dec'),
    ("0 0 * * 8", "8 is out of range; day_of_week goes from 0 to 6 (0 and 7 are Sunday) or sun to sat"),
    ("99 0 0 * * *", 'second "99": 99 is out of range; second goes from 0 to 59'),
    ("0 0 * * mun", 'day_of_week "mun": "mun" is not a day of week; did you mean "mon"?'),
    ("0 0 * ja *", 'month_of_year "ja": "ja" is not a month of year; did you mean "jan"?'),
    ("x * * * *", 'minute "x": "x" is not a minute; minute goes from 0 to 59'),
    ("*/0 * * * *", '"/0" is not a step; a step is a whole number from 1 on, as in "*/5"'),
    ("*/x * * * *", '"/x" is not a step'),
    ("*/ * * * *", '"/" is not a step'),
    ("*/90 * * * *", 'a step of 90 never comes to a second value, minute goes from 0 to 59; for other periods use an'),
    ("1-2-3 * * * *", '"1-2-3" is not a range; a range has two ends, as in "0-59"'),
    ("0 0 * * mon-", '"mon-" is not a range; a range has two ends, as in "mon-fri"'),
    ("-5 * * * *", '"-5" is not a range'),
    ("1,,2 * * * *", 'minute "1,,2": an empty part'),
    ("1, 2 * * * *", '"1,": an empty part; values are separated by single commas, without spaces'),
    ("²  * * * *", '"²" is not a minute'),
    ("0 0 30 2 *", '"0 0 30 2 *": the schedule never runs: there is no day with day_of_month 30 and month_of_year 2'),
    ("0 0 31 2,4,jun *", "there is no day with day_of_month 31 and month_of_year 2,4,6"),
    ("0 0 */25 * mon#2", "there is no day with day_of_month 1,26 and day_of_week 1#2"),
    ("0 0 * * fri#6", '"#6": a month has the first to the fifth of a weekday, #1 to #5'),
    ("0 0 * * fri#", '"#": a month has the first to the fifth'),
    ("0 0 * * L", 'L needs a weekday: "L5" is the last Friday of the month'),
    ("0 0 32W * *", "32 is out of range; day_of_month goes from 1 to 31"),
    ("L * * * *", 'minute "l": "l" is not a minute'),
    ("H(50-70) * * * *", "the range of H has to lie within 0 to 59"),
    ("H/0 * * * *", "the step has to be between 1 and 59"),
    ("H/60 * * * *", 'minute "H/60": the step has to be between 1 and 59'),
    ("", "an empty text is not a schedule"),
    # intervals
    (0, "an interval of 0s is too short; expected at least 10ms"),
    (0.005, "an interval of 5ms is too short"),
    (-1, "a duration must not be negative, got -1"),
    ("-1", '"-1" is not a duration: expected seconds or a duration such as'),
    ("10x", '"10x": "x" is not a unit of time; expected w, d, h, m, s or ms'),
    ("1m1h", "units go from large to small, each once"),
    ("30 sx", '"30 sx": "sx" is not a unit of time'),
    ("every", '"every" is not a duration'),
    ("every other day", '"other day" is not a duration'),
    ("PT", '"PT" is not a duration'),
    (float("nan"), "nan is not a duration"),
    (float("inf"), "inf is not a duration"),
    (0.0105, "0.0105 is finer than a millisecond"),
    (timedelta(microseconds=10_500), "finer than a millisecond"),
    ({"every": "30s", "anchor": "soon"}, 'anchor = "soon": not a date and time'),
    ({"every": "30s", "anchor": 5}, "anchor = 5: expected a date and time such as"),
    ({"every": "30s", "ancor": 5}, 'unknown key "ancor" in a table with "every"; did you mean "anchor"?'),
    ({"every": "30s", "relative": "yes"}, "relative = \"yes\": expected true or false"),
    ({"every": "30s", "relative": True, "anchor": "2026-01-01"}, "either anchored or relative"),
    ({"every": 0.5, "relative": True}, 'relative needs an interval of at least "1s"'),
    # Celery's tables
    ({"hour": 25}, 'hour "25": 25 is out of range; hour goes from 0 to 23'),
    ({"day_of_week": "mun"}, 'day_of_week "mun": "mun" is not a day of week; did you mean "mon"?'),
    ({"minuet": 5}, 'unknown key "minuet" in a crontab table; did you mean "minute"?'),
    ({"second": 5}, 'unknown key "second" in a crontab table'),
    ({"minute": True}, 'minute = true: expected a number, a text such as "*/5" or a list of numbers'),
    ({"minute": []}, "minute = []: expected a number"),
    ({"minute": 1.5}, "minute = 1.5: expected a number"),
    ({"minute": [1, None]}, "minute = [1, nothing]: expected a number"),
    ({"day_of_month": 31, "month_of_year": "feb"}, "the schedule never runs: there is no day with day_of_month 31 and month_of_year 2"),
    # the other kinds
    ({"solar": "sunset", "lat": 95, "lon": 0}, "lat = 95 is out of range: expected degrees from -90 to 90"),
    ({"solar": "sunset", "lat": 0, "lon": 181}, "lon = 181 is out of range: expected degrees from -180 to 180"),
    ({"solar": "sunset", "lat": 0}, "solar needs lon: expected degrees from -180 to 180"),
    ({"solar": "sunset", "lat": "north", "lon": 0}, "lat = \"north\" is not a number: expected degrees"),
    ({"solar": "sunrize", "lat": 0, "lon": 0}, 'solar = "sunrize": no such event; did you mean "sunrise"?'),
    ({"at": "tomorrow"}, 'at = "tomorrow": not a date and time'),
    ({"at": "2026-02-30T00:00:00"}, "at = \"2026-02-30T00:00:00\": not a date and time (day is out of range for month)"),
    ({"at": "2026-01-01", "every": 5}, 'unknown key "at" in a table with "every"'),
    ({"cron": 5}, 'cron = 5: expected a cron string such as "30 7 * * mon"'),
    ({}, "an empty table is not a schedule"),
    ([], "an empty list of schedules never runs"),
    (["0 0 * * *", "@dayly"], "did you mean @daily?"),
    (True, "true is not a schedule: expected seconds (30), a duration"),
    (None, "nothing is not a schedule"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "message"), SCHEDULES, ids=[str(value) for value, _ in SCHEDULES])
def test_a_wrong_schedule_says_what_is_wrong(value, message):
    with pytest.raises(ScheduleError) as caught:
        parse(value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, BeatdError)


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        ("Europe/Berln", 'unknown time zone "Europe/Berln": expected an IANA name; did you mean Europe/Berlin'),
        ("Berlin", "did you mean Europe/Berlin?"),
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("America/New York", "did you mean America/New_York?"),
        ("Mars/Olympus", 'expected an IANA name, such as "Europe/Berlin" or "UTC"'),
        ("America", 'unknown time zone "America"'),
        ("../../etc/passwd", "unknown time zone"),
        ("", "expected an IANA name"),
        ("Europe/Berlin\0", "unknown time zone"),
    ],
)
def test_an_unknown_zone_names_the_near_ones(zone, message):
    for make in (
        lambda: parse("@daily", timezone=zone),
        lambda: crontab(timezone=zone),
        lambda: parse(30, timezone=zone),
    ):
        with pytest.raises(ScheduleError) as caught:
            make()
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("00:00-24:00", "covers everything: the entry would never run"),
        ("06:00-06:00", "covers everything"),
        (["00:00-12:00", "12:00-24:00"], "covers everything"),
        (["22:00-06:00", "05:00-23:00"], "covers everything"),
        ({"cron": "* * * * *", "duration": "1m"}, "covers everything"),
        (["1970-01-01/9998-12-31"], "covers everything"),
        ("25:00-26:00", "has an invalid time of day; expected 00:00 to 24:00"),
        ("10:60-11:00", "invalid time of day"),
        ("2026-12-26/2026-12-24", "ends before it begins; write the earlier date first"),
        ("2026-02-30", '"2026-02-30" is not a blackout: expected times ("22:00-06:00"), dates'),
        ("2026-12-24T10:00", "ends before it begins"),
        ("weekends", '"weekends" is not a blackout'),
        (5, "5 is not a blackout"),
        ([], "an empty blackout"),
        ({"cron": "0 22 * * fri"}, "is not a blackout"),
        ({"cron": "0 25 * * fri", "duration": "8h"}, 'hour "25": 25 is out of range'),
        ({"cron": "0 22 * * fri", "duration": "8y"}, '"y" is not a unit of time'),
        ({"cron": "0 22 * * fri", "duration": 0}, "duration = 0: a blackout needs a length"),
    ],
)
def test_a_wrong_blackout_says_what_is_wrong(value, message):
    with pytest.raises(ScheduleError) as caught:
        parse_blackout(value, timezone="Europe/Berlin")
    assert message in str(caught.value)


def test_wrong_python_calls():
    with pytest.raises(ScheduleError, match='dst = "both"'):
        parse("@daily", dst="both")
    with pytest.raises(ScheduleError, match="no such event; expected dawn_astronomical"):
        solar("tea", 0, 0)
    with pytest.raises(ScheduleError, match="finer than a millisecond"):
        duration_ms("0.5ms")
    with pytest.raises(ScheduleError, match="at = 5"):
        once(5)
    with pytest.raises(ScheduleError, match="true is not a duration"):
        every(True)
    with pytest.raises(TypeError, match="aware"):
        parse("@daily").next_after(datetime(2026, 1, 1))
    assert once(date(2026, 1, 1)) == once("2026-01-01")


def test_without_astral_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "astral.sun", None)
    with pytest.raises(ScheduleError, match=r"pip install 'beatd\[solar\]'"):
        solar("sunset", 40.4, 49.9)
