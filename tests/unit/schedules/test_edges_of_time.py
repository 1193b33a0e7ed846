"""Every schedule answers for every instant: a run within the years that can be shown, or none; never an error."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beatd.exceptions import ScheduleError
from beatd.schedules import (
    bind,
    dst_note,
    duration_ms,
    every,
    jittered_ms,
    latest_ms,
    once,
    parse,
    parse_blackout,
    period_ms,
    zone,
)
from beatd.timestamps import EARLIEST_MS, LAST_MS, LONGEST_MS, from_ms, iso_ms, to_ms

ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Pacific/Kiritimati", "Etc/GMT+12", "Australia/Lord_Howe")
VALUES = (
    30,
    "36525d",
    "10ms",
    {"every": "1d", "anchor": "9998-12-31"},
    {"every": "36525d", "anchor": "1970-01-01"},
    {"every": "1s", "relative": True},
    {"every": "1d", "relative": True},
    {"every": "36525d", "relative": True},
    {"at": "1970-01-01T12:00:00"},
    {"at": "9998-12-31"},
    "* * * * *",
    "* * * * * *",
    "30 2 * * *",
    "0 0 29 2 *",
    "0 0 31 12 mon",
    "0 0 L 12 *",
    "59 59 23 31 12 *",
    "0 0 * * fri#5",
    "0 0 15W * *",
    {"minute": "59", "hour": "23", "day_of_month": "31", "month_of_year": "12"},
    {"day_of_week": "mon"},
    {"solar": "sunset", "lat": 40.4, "lon": 49.9},
    {"solar": "sunrise", "lat": 89, "lon": 0},
    ["0 0 1 1 *", "90d", {"at": "9998-01-01"}],
)
SCHEDULES = [parse(value, timezone=name) for value in VALUES for name in ZONES]
EDGES = (EARLIEST_MS, 0, LAST_MS, to_ms(datetime.fromisoformat("9999-12-31T23:59:59Z")), 1 << 63, -(1 << 63), 10**30)
instants = st.integers(-(10**18), 10**18) | st.builds(
    int.__add__, st.sampled_from(EDGES), st.integers(-(10**11), 10**11) | st.integers(-2000, 2000)
)


@given(st.sampled_from(SCHEDULES), instants)
@example(parse("* * * * *", timezone="Etc/GMT+12"), LAST_MS - 1)
@example(parse({"every": "1d", "relative": True}, timezone="Pacific/Kiritimati"), LAST_MS - 86_400_000)
def test_the_next_run_of_any_schedule_after_any_instant(schedule: object, t_ms: int) -> None:
    for each in (schedule, bind(schedule, from_ms(t_ms))):  # type: ignore[arg-type]
        due_ms = each.next_after_ms(t_ms)
        assert due_ms is None or t_ms < due_ms <= LAST_MS
        if due_ms is not None:
            assert from_ms(due_ms).astimezone(zone("Pacific/Kiritimati").info)
            assert dst_note(each, from_ms(due_ms)) in (None, "gap", "overlap")
        period = period_ms(each, from_ms(t_ms))
        assert period is None or period > 0


@given(st.sampled_from(SCHEDULES), instants, st.integers(0, 10**10) | st.integers(0, 10**18))
def test_the_latest_run_of_any_schedule_in_any_window(schedule: object, after_ms: int, length_ms: int) -> None:
    found = latest_ms(schedule, after_ms, after_ms + length_ms)  # type: ignore[arg-type]
    assert found is None or after_ms < found <= min(after_ms + length_ms, LAST_MS)


@given(instants, st.integers(0, LONGEST_MS), st.none() | instants)
def test_jitter_stays_within_the_range(due_ms: int, jitter_ms: int, next_due_ms: int | None) -> None:
    due_ms = min(max(due_ms, 0), LAST_MS)
    assert due_ms <= jittered_ms("a", due_ms, jitter_ms, next_due_ms) <= LAST_MS


@given(
    instants,
    st.sampled_from(
        ["22:00-06:00", "9998-12-31", "1970-01-01/9998-12-31", {"cron": "0 0 1 1 *", "duration": "36525d"}]
    ),
)
def test_a_blackout_answers_for_any_instant(t_ms: int, value: object) -> None:
    try:
        blackout = parse_blackout(value, timezone="America/New_York")
    except ScheduleError as error:
        assert "covers everything" in str(error)  # noqa: PT017 - the other outcome is checked below
    else:
        assert blackout.covers_ms(t_ms) in (True, False)


@given(st.integers())
def test_any_number_of_milliseconds_can_be_shown(ms: int) -> None:
    assert EARLIEST_MS <= to_ms(from_ms(ms)) <= LAST_MS
    assert iso_ms(ms).endswith("+00:00")


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize(
    "at", ["9999-12-31T23:59:59", "9999-01-01T00:00:00+00:00", "0001-01-01", "1969-12-30", datetime.max, datetime.min]
)
def test_moments_outside_of_the_range_are_refused(at: object, name: str) -> None:
    with pytest.raises(ScheduleError, match="expected a moment in the years 1970 to 9998"):
        once(at, timezone=name)
    with pytest.raises(ScheduleError, match="expected a moment in the years 1970 to 9998"):
        every("1d", anchor=at, timezone=name)
    with pytest.raises(ScheduleError, match=r"is not a blackout|years 1970 to 9998"):
        parse_blackout(str(at), timezone=name)


@pytest.mark.parametrize(
    "value",
    [999_999_999_999, "3000000d", "36526d", "99999999999999999999w", 1e308, 10**5000, 2**63, "1e5d", "9" * 100 + "d"],
    ids=lambda value: type(value).__name__,
)
def test_durations_that_are_too_long_are_refused(value: object) -> None:
    with pytest.raises(ScheduleError, match=r"too long: a duration is at most 36525d|is not a duration|not a unit"):
        duration_ms(value)


def test_a_text_of_any_length_is_refused_at_once() -> None:
    with pytest.raises(ScheduleError) as caught:
        duration_ms("9" * 2_000_000 + "d")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "value",
    [
        f"{'9' * 5000} * * * *",
        f"*/{'9' * 5000} * * * *",
        f"H({'9' * 5000}-1) * * * *",
        f"H/{'9' * 5000} * * * *",
        f"* * {'9' * 5000}W * *",
        {"minute": "9" * 5000},
        {"minute": 10**5000},
        {"minute": [10**5000]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_cron_numbers_of_any_length_are_refused(value: object) -> None:
    with pytest.raises(ScheduleError):
        parse(value)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("5/15 * * * *", "5-59/15 * * * *"),
        ("0 3/6 * * *", "0 3-23/6 * * *"),
        ("0 0 1/10 * *", "0 0 1-31/10 * *"),
        ("0 0 * 2/3 *", "0 0 * 2-12/3 *"),
        ("0 0 * * 1/2", "0 0 * * 1-6/2"),
        ("0/20 * * * * *", "0-59/20 * * * * *"),
        ("0 0 * * 7/2", "0 0 * * 7"),
    ],
)
def test_a_value_with_a_step_goes_on_to_the_end(short: str, long: str) -> None:
    assert parse(short) == parse(long)


def test_celerys_tables_need_a_range_for_a_step() -> None:
    with pytest.raises(ScheduleError, match='a step needs a range; write "5-59/15"'):
        parse({"minute": "5/15"})
