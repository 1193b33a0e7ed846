"""The sun: astral's times, each exactly once, also where they wander over midnight UTC or stay away for months."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import pairwise

import pytest
from astral import Observer, sun
from hypothesis import given, settings
from hypothesis import strategies as st

from beatd.schedules import latest, parse, period_ms, solar
from beatd.schedules.solar import EVENTS

T = datetime(2026, 1, 1, tzinfo=UTC)
PLACES = {"London": (51.5, -0.13), "Baku": (40.4, 49.9), "Sydney": (-33.9, 151.2), "Quito": (-0.2, -78.5)}
DEPRESSIONS = {"civil": 6, "nautical": 12, "astronomical": 18}
ASTRAL = {
    "sunrise": sun.sunrise,
    "solar_noon": sun.noon,
    "sunset": sun.sunset,
    "solar_midnight": sun.midnight,
    **{f"dawn_{kind}": partial(sun.dawn, depression=angle) for kind, angle in DEPRESSIONS.items()},
    **{f"dusk_{kind}": partial(sun.dusk, depression=angle) for kind, angle in DEPRESSIONS.items()},
}


@pytest.mark.parametrize(
    ("event", "place", "day", "almanac"),
    [  # from almanacs, to the minute
        ("sunrise", "London", "2024-06-20", "03:43"),
        ("sunset", "London", "2024-06-20", "20:21"),
        ("sunrise", "London", "2024-12-21", "08:04"),
        ("sunset", "London", "2024-12-21", "15:53"),
    ],
)
def test_an_almanac(event, place, day, almanac):
    due = solar(event, *PLACES[place]).next_after(datetime.fromisoformat(f"{day}T00:00Z"))
    expected = datetime.fromisoformat(f"{day}T{almanac}Z")
    assert abs(due - expected) <= timedelta(seconds=90)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("event", EVENTS)
def test_each_event_of_a_year_once_and_where_astral_says(event, place):
    schedule, t, runs = solar(event, *PLACES[place]), T, []
    while (t := schedule.next_after(t)) < T + timedelta(days=365):
        runs.append(t)
    gaps = [later - earlier for earlier, later in pairwise(runs)]
    nights_all_year = place != "London" or event not in ("dawn_astronomical", "dusk_astronomical")
    if nights_all_year:
        assert 364 <= len(runs) <= 366
        assert max(gaps) < timedelta(hours=24, minutes=6)
        assert min(gaps) > timedelta(hours=23, minutes=50)
    observer = Observer(*PLACES[place])
    for run in runs[::9]:
        near = [run.date() + timedelta(days=d) for d in (-1, 0, 1)]
        astrals = [found for day in near if (found := astral_time(event, observer, day))]
        assert min(abs(run - each) for each in astrals) < timedelta(seconds=70)


def astral_time(event, observer, day):
    try:
        return ASTRAL[event](observer, day)
    except ValueError:
        return None


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(EVENTS)),
    st.floats(-90, 90),
    st.floats(-180, 180),
    st.dates(date(1950, 1, 1), date(2100, 1, 1)),
)
def test_strictly_later_everywhere(event, lat, lon, day):
    schedule, t = solar(event, lat, lon), datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    for _ in range(4):
        due = schedule.next_after(t)
        if due is None:
            return
        assert due > t
        assert schedule.next_after(due - timedelta(milliseconds=1)) == due
        if t.hour != 12 or t.minute:
            assert due - t > timedelta(hours=10)
        t = due


def test_a_polar_night_is_waited_out():
    tromsoe = solar("sunrise", 69.65, 18.96)
    due = tromsoe.next_after(datetime(2026, 12, 1, tzinfo=UTC))
    assert (due.year, due.month) == (2027, 1)
    assert solar("sunset", 90, 0).next_after(T) is None or solar("sunset", 90, 0).next_after(T) > T


def test_searching_and_periods_work_for_the_sun():
    schedule = parse({"solar": "sunset", "lat": 40.4, "lon": 49.9}, timezone="Asia/Baku")
    t = T
    runs = [t := schedule.next_after(t) for _ in range(30)]
    assert latest(schedule, after=T, until=runs[-1] + timedelta(hours=3)) == runs[-1]
    assert abs(period_ms(schedule, T) - 86_400_000) < 120_000
