"""Intervals are a grid: they do not drift, whatever they are asked and however often the daemon restarts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd.exceptions import ScheduleError
from beatd.schedules import bind, duration_ms, duration_text, every, latest, parse, period_ms
from beatd.timestamps import LAST_MS, from_ms, to_ms

T = datetime(2026, 3, 1, 10, 3, 7, 250_000, tzinfo=UTC)
INSTANTS = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
ANCHORS = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
DURATIONS = st.integers(10, 400 * 86_400_000)


@given(DURATIONS, ANCHORS, INSTANTS)
def test_runs_lie_on_the_grid_and_none_is_left_out(ms, anchor, t):
    schedule = every(timedelta(milliseconds=ms), anchor=anchor)
    due = schedule.next_after(t)
    assert t < due <= t + timedelta(milliseconds=ms)
    assert (to_ms(due) - to_ms(anchor)) % ms == 0


@given(DURATIONS, ANCHORS, st.integers(1, 10**9))
def test_a_thousand_million_steps_do_not_drift(ms, anchor, steps):
    schedule = every(timedelta(milliseconds=ms), anchor=anchor)
    far = to_ms(anchor) + steps * ms
    assert schedule.next_after_ms(far - 1) == (far if far <= LAST_MS else None)
    assert schedule.next_after_ms(far) == (far + ms if far + ms <= LAST_MS else None)


def test_a_tenth_of_a_second_stays_exact():
    schedule = bind(parse(0.1), datetime(2026, 1, 1, tzinfo=UTC))
    t = datetime(2026, 1, 1, tzinfo=UTC)
    for _ in range(36_000):
        t = schedule.next_after(t)
    assert t == datetime(2026, 1, 1, 1, tzinfo=UTC)


def test_without_anchor_it_counts_from_the_question():
    assert parse("30s").next_after(T) == T + timedelta(seconds=30)
    assert latest(parse("30s"), after=T, until=T + timedelta(seconds=100)) == T + timedelta(seconds=90)


def test_bind_gives_the_phase_of_the_first_sight_once_and_for_all():
    schedule = bind(parse("30s"), T)
    assert schedule.next_after(T) == T + timedelta(seconds=30)
    assert schedule.next_after(T + timedelta(seconds=1)) == T + timedelta(seconds=30)
    assert bind(schedule, T + timedelta(seconds=7)) is schedule
    assert bind(parse("30s"), T + timedelta(days=3)) is schedule
    cron, union = parse("@daily"), parse(["@daily", "@weekly"])
    assert bind(cron, T) is cron
    assert bind(union, T) is union
    assert bind(parse(["@daily", "30s"]), T) == parse(["@daily", schedule.notation])


def test_an_anchor_in_the_future_reaches_back():
    schedule = parse({"every": "1h", "anchor": "2030-01-01T00:15:00Z"})
    assert schedule.next_after(T) == datetime(2026, 3, 1, 10, 15, tzinfo=UTC)


def test_a_naive_anchor_is_in_the_entrys_zone():
    written = {"every": "1d", "anchor": datetime(2026, 1, 1, 6)}
    assert parse(written, timezone="Asia/Tokyo").next_after(T) == datetime(2026, 3, 1, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (30, 30_000),
        (30.0, 30_000),
        (0.1, 100),
        (1.001, 1001),
        (0, 0),
        (timedelta(hours=1, milliseconds=5), 3_600_005),
        ("30", 30_000),
        ("30s", 30_000),
        ("0.5s", 500),
        ("250ms", 250),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        (" 1 hour 30 minutes ", 5_400_000),
        ("1.5h", 5_400_000),
        ("2d", 172_800_000),
        ("1w", 604_800_000),
        ("1D", 86_400_000),
        ("PT30S", 30_000),
        ("PT1H30M", 5_400_000),
        ("P1DT12H", 129_600_000),
        ("P2W", 1_209_600_000),
        ("PT0.25S", 250),
        ("pt5m", 300_000),
    ],
)
def test_notations_of_a_duration(value, ms):
    assert duration_ms(value) == ms


@given(st.integers(0, 36_525 * 86_400_000))
def test_a_duration_reads_back(ms):
    assert duration_ms(duration_text(ms)) == ms


@given(st.integers(1, 10**9))
def test_seconds_with_three_digits_are_exact(ms):
    assert duration_ms(ms / 1000) == ms == Fraction(str(ms / 1000)) * 1000


@pytest.mark.parametrize("text", ["every 30s", "EVERY 30 seconds", "@every 30s", "30s", "PT30S", "30"])
def test_notations_of_an_interval(text):
    assert parse(text) == parse(30) == parse(30.0) == parse(timedelta(seconds=30)) == parse({"every": "30s"})


def test_the_shortest_is_ten_milliseconds():
    assert parse("10ms").next_after(T) == T + timedelta(milliseconds=10)
    with pytest.raises(ScheduleError, match="too short"):
        parse("9ms")


def test_relative_runs_at_full_units_of_the_wall_clock():
    daily = every("1d", relative=True, timezone="Europe/Berlin")
    t = datetime(2026, 3, 28, 15, tzinfo=ZoneInfo("Europe/Berlin"))
    nights = [t := daily.next_after(t).astimezone(ZoneInfo("Europe/Berlin")) for _ in range(3)]
    assert [night.isoformat() for night in nights] == [
        "2026-03-29T00:00:00+01:00",
        "2026-03-30T00:00:00+02:00",
        "2026-03-31T00:00:00+02:00",
    ]
    hourly = every("90m", relative=True, timezone="Asia/Kolkata")
    assert hourly.next_after(T) == datetime(2026, 3, 1, 11, 30, tzinfo=UTC)


@given(
    st.integers(1000, 10**9), INSTANTS, st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Beirut"])
)
def test_relative_is_strictly_later(ms, t, zone):
    schedule = every(timedelta(milliseconds=ms), relative=True, timezone=zone)
    assert schedule.next_after(t) > t


@given(st.integers(1000, 3 * 86_400_000), INSTANTS, st.integers(0, 10**9), st.sampled_from(["UTC", "Europe/Berlin"]))
def test_the_latest_relative_run_is_that_of_the_walk(ms, after, span, zone):
    schedule = every(timedelta(milliseconds=ms), relative=True, timezone=zone)
    until = after + timedelta(milliseconds=min(span, 200 * ms))
    last, t = None, after
    while (t := schedule.next_after(t)) <= until:
        last = t
    assert latest(schedule, after=after, until=until) == last


@pytest.mark.parametrize("start", ["2026-03-26T09:20Z", "2026-10-22T09:20Z", "2026-04-02T23:50Z"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe"])
@pytest.mark.parametrize("every_", ["1d", "2d", "36h", "5h", "90m"])
def test_the_latest_relative_run_over_a_clock_change(every_, zone, start):
    schedule, after = every(every_, relative=True, timezone=zone), datetime.fromisoformat(start)
    runs, t = [], after
    while (t := schedule.next_after(t)) < after + timedelta(days=8):
        runs.append(t)
    for hours in range(8 * 24):
        until = after + timedelta(hours=hours)
        expected = max((run for run in runs if run <= until), default=None)
        assert latest(schedule, after=after, until=until) == expected


@given(
    INSTANTS,
    st.integers(0, 5 * 86_400_000),
    st.sampled_from(["25m", "3h", "1d"]),
    st.sampled_from(["UTC", "Europe/Berlin"]),
)
def test_the_latest_run_of_a_list_with_a_relative_interval_is_that_of_the_walk(after, span, length, zone):
    parts = ["10 */5 * * *", {"every": length, "relative": True}]
    schedule = bind(parse(parts, timezone=zone), after)
    until = after + timedelta(milliseconds=span)
    last, t = None, after
    while (t := schedule.next_after(t)) <= until:
        last = t
    assert latest(schedule, after=after, until=until) == last


def test_the_period_is_the_interval():
    assert period_ms(parse("1h30m"), T) == 5_400_000


@given(st.integers(-(10**13), 10**14))
def test_milliseconds_and_datetimes_are_the_same_instants(ms):
    assert to_ms(from_ms(ms)) == ms
    assert to_ms(from_ms(ms) + timedelta(microseconds=999)) == ms
