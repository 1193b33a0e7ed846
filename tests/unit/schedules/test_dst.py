"""What happens when clocks change, to be read by people: spring and autumn in pairs.

Times are the zone's wall clock with its offset; ``gap`` and ``overlap`` is what a preview says about the run. The rules
are those of Debian's cron(8), section "Notes"; with ``dst = "skip"`` the runs marked gap are left out.
"""

# ruff: noqa: E501 - a table's row is one line

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from beatd.schedules import dst_note, once, parse

CASES = """
# A fixed time inside the gap runs right after it; inside the overlap it runs once, the first time.
Europe/Berlin       | 30 2 * * *      | 2026-03-28 12:00 | 03-29 03:00+02:00 gap, 03-30 02:30+02:00
Europe/Berlin       | 30 2 * * *      | 2026-10-24 12:00 | 10-25 02:30+02:00 overlap, 10-26 02:30+01:00
America/New_York    | 30 2 * * *      | 2026-03-07 12:00 | 03-08 03:00-04:00 gap, 03-09 02:30-04:00
America/New_York    | 30 1 * * *      | 2026-10-31 12:00 | 11-01 01:30-04:00 overlap, 11-02 01:30-05:00

# The hour before and the hour after are what they always are.
Europe/Berlin       | 59 1 * * *      | 2026-03-28 12:00 | 03-29 01:59+01:00, 03-30 01:59+02:00
Europe/Berlin       | 0 3 * * *       | 2026-03-28 12:00 | 03-29 03:00+02:00, 03-30 03:00+02:00
Europe/Berlin       | 59 1 * * *      | 2026-10-24 12:00 | 10-25 01:59+02:00, 10-26 01:59+01:00
Europe/Berlin       | 0 3 * * *       | 2026-10-24 12:00 | 10-25 03:00+01:00, 10-26 03:00+01:00

# Several fixed times in the gap become one run; in the overlap each runs once, in order, and the second pass is quiet.
Europe/Berlin       | 0,20,40 2 * * * | 2026-03-28 12:00 | 03-29 03:00+02:00 gap, 03-30 02:00+02:00, 03-30 02:20+02:00
Europe/Berlin       | 0,20,40 2 * * * | 2026-10-24 12:00 | 10-25 02:00+02:00 overlap, 10-25 02:20+02:00 overlap, 10-25 02:40+02:00 overlap, 10-26 02:00+01:00

# A run moved to 03:00 and the one that is due at 03:00 anyway are one.
Europe/Berlin       | 0 2,3 * * *     | 2026-03-28 12:00 | 03-29 03:00+02:00, 03-30 02:00+02:00
Europe/Berlin       | 0 2,3 * * *     | 2026-10-24 12:00 | 10-25 02:00+02:00 overlap, 10-25 03:00+01:00

# A wildcard hour or minute follows real time: nothing is moved, no hour is silent.
Europe/Berlin       | */30 * * * *    | 2026-03-29 01:00 | 03-29 01:30+01:00, 03-29 03:00+02:00, 03-29 03:30+02:00
Europe/Berlin       | */30 * * * *    | 2026-10-25 01:30 | 10-25 02:00+02:00 overlap, 10-25 02:30+02:00 overlap, 10-25 02:00+01:00 overlap, 10-25 02:30+01:00 overlap, 10-25 03:00+01:00
Europe/Berlin       | 15 * * * *      | 2026-03-29 01:00 | 03-29 01:15+01:00, 03-29 03:15+02:00
Europe/Berlin       | 15 * * * *      | 2026-10-25 01:30 | 10-25 02:15+02:00 overlap, 10-25 02:15+01:00 overlap, 10-25 03:15+01:00
Europe/Berlin       | */20 2 * * *    | 2026-03-29 01:00 | 03-30 02:00+02:00, 03-30 02:20+02:00
Europe/Berlin       | */20 2 * * *    | 2026-10-25 02:10 | 10-25 02:20+02:00 overlap, 10-25 02:40+02:00 overlap, 10-25 02:00+01:00 overlap, 10-25 02:20+01:00 overlap

# Six fields follow the same rules.
Europe/Berlin       | 30 30 2 * * *   | 2026-03-28 12:00 | 03-29 03:00+02:00 gap, 03-30 02:30+02:00
Europe/Berlin       | 0 30 2 * * *    | 2026-10-24 12:00 | 10-25 02:30+02:00 overlap, 10-26 02:30+01:00

# South of the equator it is the other way round.
Australia/Sydney    | 30 2 * * *      | 2026-10-03 12:00 | 10-04 03:00+11:00 gap, 10-05 02:30+11:00
Australia/Sydney    | 30 2 * * *      | 2026-04-04 12:00 | 04-05 02:30+11:00 overlap, 04-06 02:30+10:00
America/Santiago    | 15 0 * * *      | 2026-09-05 12:00 | 09-06 01:00-03:00 gap, 09-07 00:15-03:00
America/Santiago    | 15 23 * * *     | 2026-04-03 12:00 | 04-03 23:15-03:00, 04-04 23:15-03:00 overlap, 04-05 23:15-04:00

# Lord Howe moves its clocks by half an hour.
Australia/Lord_Howe | 15 2 * * *      | 2026-10-03 12:00 | 10-04 02:30+11:00 gap, 10-05 02:15+11:00
Australia/Lord_Howe | 45 1 * * *      | 2026-04-04 12:00 | 04-05 01:45+11:00 overlap, 04-06 01:45+10:30
Australia/Lord_Howe | 15 * * * *      | 2026-10-04 01:00 | 10-04 01:15+10:30, 10-04 03:15+11:00
Australia/Lord_Howe | 45 * * * *      | 2026-04-05 01:00 | 04-05 01:45+11:00 overlap, 04-05 01:45+10:30 overlap, 04-05 02:45+10:30

# Casablanca sets its clocks back for Ramadan, and forward after it.
Africa/Casablanca   | 30 2 * * *      | 2026-03-21 12:00 | 03-22 03:00+01:00 gap, 03-23 02:30+01:00
Africa/Casablanca   | 30 2 * * *      | 2026-02-14 12:00 | 02-15 02:30+01:00 overlap, 02-16 02:30+00:00

# Beirut jumps over midnight: what is due at midnight runs at one.
Asia/Beirut         | 0 0 * * *       | 2026-03-28 12:00 | 03-29 01:00+03:00 gap, 03-30 00:00+03:00
Asia/Beirut         | 30 23 * * *     | 2026-10-24 12:00 | 10-24 23:30+03:00 overlap, 10-25 23:30+02:00
Asia/Beirut         | 0 0 * * *       | 2026-10-24 12:00 | 10-25 00:00+02:00, 10-26 00:00+02:00

# Samoa left out 2011-12-30 altogether, and Kwajalein 1993-08-21: the run of that day comes when the clock is back.
Pacific/Apia        | 0 9 * * *       | 2011-12-29 08:00 | 12-29 09:00-10:00, 12-31 00:00+14:00 gap, 12-31 09:00+14:00
Pacific/Kwajalein   | 0 9 * * *       | 1993-08-20 08:00 | 08-20 09:00-12:00, 08-22 00:00+12:00 gap, 08-22 09:00+12:00

# Zones that keep still, and one whose sign is not what it seems.
Asia/Kolkata        | 30 2 * * *      | 2026-03-28 12:00 | 03-29 02:30+05:30, 03-30 02:30+05:30
Etc/GMT+5           | 30 2 * * *      | 2026-03-28 12:00 | 03-29 02:30-05:00, 03-30 02:30-05:00
UTC                 | 30 2 * * *      | 2026-10-24 12:00 | 10-25 02:30+00:00, 10-26 02:30+00:00

# Zones that changed their rules: Moscow stopped in 2011 and set back in 2014, Mexico stopped in 2022, Turkey in 2016.
Europe/Moscow       | 30 2 * * *      | 2011-03-26 12:00 | 03-27 03:00+04:00 gap, 03-28 02:30+04:00
Europe/Moscow       | 30 1 * * *      | 2014-10-25 12:00 | 10-26 01:30+04:00 overlap, 10-27 01:30+03:00
Europe/Moscow       | 30 2 * * *      | 2026-03-28 12:00 | 03-29 02:30+03:00, 03-30 02:30+03:00
America/Mexico_City | 30 2 * * *      | 2022-04-02 12:00 | 04-03 03:00-05:00 gap, 04-04 02:30-05:00
America/Mexico_City | 30 2 * * *      | 2023-04-01 12:00 | 04-02 02:30-06:00, 04-03 02:30-06:00
Europe/Istanbul     | 30 3 * * *      | 2016-03-26 12:00 | 03-27 04:00+03:00 gap, 03-28 03:30+03:00
Europe/Istanbul     | 30 3 * * *      | 2016-10-29 12:00 | 10-30 03:30+03:00, 10-31 03:30+03:00

# Double summer time, London 1941: two hours ahead and back by one.
Europe/London       | 30 2 * * *      | 1941-05-03 12:00 | 05-04 03:00+02:00 gap, 05-05 02:30+02:00
Europe/London       | 30 2 * * *      | 1941-08-09 12:00 | 08-10 02:30+02:00 overlap, 08-11 02:30+01:00
"""


def rows(text: str) -> list[tuple[str, ...]]:
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [tuple(part.strip() for part in line.split("|")) for line in lines]


def local(text: str, zone: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def shown(schedule, due: datetime, zone: str) -> str:
    note = dst_note(schedule, due)
    text = due.astimezone(ZoneInfo(zone)).isoformat(sep=" ", timespec="minutes")[5:]
    return f"{text} {note}" if note else text


def walk(schedule, t: datetime, zone: str, count: int) -> list[str]:
    runs = []
    for _ in range(count):
        t = schedule.next_after(t)
        runs.append(shown(schedule, t, zone))
    return runs


@pytest.mark.parametrize(("zone", "schedule", "start", "runs"), rows(CASES))
def test_runs_around_a_clock_change(zone, schedule, start, runs):
    expected = runs.split(", ")
    assert walk(parse(schedule, timezone=zone), local(start, zone), zone, len(expected)) == expected


@pytest.mark.parametrize(("zone", "schedule", "start", "runs"), [row for row in rows(CASES) if "gap" in row[3]])
def test_skip_leaves_the_gap_out(zone, schedule, start, runs):
    expected = [run for run in runs.split(", ") if "gap" not in run]
    assert walk(parse(schedule, timezone=zone, dst="skip"), local(start, zone), zone, len(expected)) == expected


@pytest.mark.parametrize(("zone", "schedule", "start", "runs"), [row for row in rows(CASES) if "gap" not in row[3]])
def test_skip_changes_nothing_else(zone, schedule, start, runs):
    expected = runs.split(", ")
    assert walk(parse(schedule, timezone=zone, dst="skip"), local(start, zone), zone, len(expected)) == expected


@pytest.mark.parametrize("minute", range(0, 60, 7))
def test_asked_in_the_second_pass_a_fixed_time_waits_for_tomorrow(minute):
    """Where celery's answer lies in the past, and its beat fires until the hour is over."""
    second_pass = datetime(2026, 10, 25, 1, minute, tzinfo=UTC)
    assert second_pass.astimezone(ZoneInfo("Europe/Berlin")).hour == 2
    for text in ("30 2 * * *", "59 2 * * *", "0 2 * * *"):
        due = parse(text, timezone="Europe/Berlin").next_after(second_pass)
        assert due.astimezone(ZoneInfo("Europe/Berlin")).day == 26


def test_the_note_of_a_union_is_that_of_the_part_that_runs():
    union = parse(["30 2 * * *", "0 9 * * *", "1h"], timezone="Europe/Berlin")
    runs = walk(union.parts[0], local("2026-03-28 12:00", "Europe/Berlin"), "Europe/Berlin", 1)
    assert runs == ["03-29 03:00+02:00 gap"]
    assert dst_note(union, datetime(2026, 3, 29, 1, tzinfo=UTC)) == "gap"
    assert dst_note(union, datetime(2026, 3, 29, 7, tzinfo=UTC)) is None
    assert dst_note(union, datetime(2026, 10, 25, 0, 30, tzinfo=UTC)) == "overlap"


def test_intervals_do_not_know_of_clock_changes():
    t = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)
    schedule = parse({"every": "1h", "anchor": "2026-01-01T00:30:00Z"}, timezone="Europe/Berlin")
    for _ in range(5):
        assert schedule.next_after(t) == (t := t + timedelta(hours=1))


def test_once_in_the_gap_is_at_its_end_and_in_the_overlap_the_first_time():
    assert once(datetime(2026, 3, 29, 2, 30), timezone="Europe/Berlin") == once(datetime(2026, 3, 29, 1, tzinfo=UTC))
    assert once("2026-10-25T02:30:00", timezone="Europe/Berlin") == once(datetime(2026, 10, 25, 0, 30, tzinfo=UTC))


def test_a_year_has_as_many_nights_as_days_and_as_many_hours_as_pass():
    for zone in ("Europe/Berlin", "Australia/Lord_Howe", "Africa/Casablanca", "America/Santiago", "UTC"):
        start, end = (datetime(year, 1, 1, tzinfo=ZoneInfo(zone)) for year in (2026, 2027))
        hours = 365 * 24 - (zone == "Australia/Lord_Howe")  # whose full hours are twice an hour and a half apart
        for text, expected in (("30 2 * * *", 365), ("0 0 * * *", 365), ("0 * * * *", hours)):
            schedule, runs, t = parse(text, timezone=zone), 0, start - timedelta(milliseconds=1)
            while (t := schedule.next_after(t)) < end:
                runs += 1
            assert runs == expected, (zone, text)
