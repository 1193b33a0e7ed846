"""What is true of every cron expression in every zone, with a brute-force walk over the minutes as the oracle.

The oracle shares nothing with the code under test: it asks ``zoneinfo`` about every single minute, and it knows the
fields as sets, from which the expression's text was made.
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beatd.exceptions import ScheduleError
from beatd.schedules import crontab, latest, parse, period_ms

MINUTE = timedelta(minutes=1)
HORIZON = timedelta(days=3)
#: The file names of a tz database that are no places.
ZONES = sorted(available_timezones() - {"localtime", "Factory"})


@dataclass(frozen=True)
class Expression:
    """Five fields as sets of numbers, and as text."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    doms: frozenset[int]
    months: frozenset[int]
    dows: frozenset[int]

    @property
    def fixed(self) -> bool:
        minute, hour, *_ = self.text.split()
        return not (minute.startswith("*") or hour.startswith("*"))

    def matches(self, wall: datetime) -> bool:
        if wall.minute not in self.minutes or wall.hour not in self.hours or wall.month not in self.months:
            return False
        dom, dow = wall.day in self.doms, wall.isoweekday() % 7 in self.dows
        _, _, dom_text, _, dow_text = self.text.split()
        return (dom and dow) if dom_text.startswith("*") or dow_text.startswith("*") else (dom or dow)


@st.composite
def fields(draw, low, high):
    """(text, set) of one field."""
    kind = draw(st.sampled_from(["star", "star", "step", "one", "list", "range", "range/step"]))
    everything = range(low, high + 1)
    if kind == "star":
        return "*", frozenset(everything)
    if kind == "step":
        step = draw(st.integers(1, high))
        return f"*/{step}", frozenset(everything[::step])
    if kind in ("one", "list"):
        values = draw(st.lists(st.sampled_from(everything), min_size=1, max_size=1 if kind == "one" else 4))
        return ",".join(map(str, values)), frozenset(values)
    first, last = draw(st.sampled_from(everything)), draw(st.sampled_from(everything))
    span = list(range(first, last + 1)) if first <= last else [*range(first, high + 1), *range(low, last + 1)]
    if kind == "range":
        return f"{first}-{last}", frozenset(span)
    step = draw(st.integers(1, high))
    return f"{first}-{last}/{step}", frozenset(span[::step])


@st.composite
def expressions(draw, days=True):
    minute, hour = draw(fields(0, 59)), draw(fields(0, 23))
    every = [("*", frozenset(range(1, 32))), ("*", frozenset(range(1, 13))), ("*", frozenset(range(7)))]
    dom, month, dow = (draw(fields(1, 31)), draw(fields(1, 12)), draw(fields(0, 6))) if days else every
    parts = (minute, hour, dom, month, dow)
    return Expression(" ".join(text for text, _ in parts), *(values for _, values in parts))


@cache
def changes(zone: str) -> list[datetime]:
    """Days not long after the changes of the zone's offset, 1960 to 2037, found by asking for every fifth day."""
    info, found = ZoneInfo(zone), []
    day = datetime(1960, 1, 1, tzinfo=UTC)
    before = day.astimezone(info).utcoffset()
    while day.year < 2038:
        day += timedelta(days=5)
        offset = day.astimezone(info).utcoffset()
        if offset != before:
            found.append(day)
        before = offset
    return found


@st.composite
def moments(draw, zone: str):
    """An instant, more often than not within days of a clock change of the zone."""
    near = changes(zone)
    if near and draw(st.integers(0, 3)):
        return draw(st.sampled_from(near)) + timedelta(seconds=draw(st.integers(-6 * 86400, 0)))
    start = datetime(1960, 1, 1, tzinfo=UTC)
    return start + timedelta(seconds=draw(st.integers(0, 77 * 365 * 86400)))


@st.composite
def cases(draw, days=True):
    zone = draw(st.sampled_from(ZONES))
    return draw(expressions(days)), zone, draw(moments(zone))


def is_real(wall: datetime) -> bool:
    return wall.astimezone(UTC).astimezone(wall.tzinfo).replace(tzinfo=None) == wall.replace(tzinfo=None)


def brute_force(expression: Expression, zone: str, t: datetime, skip: bool = False) -> datetime | None:
    """The first run after ``t`` within HORIZON, minute by minute."""
    info = ZoneInfo(zone)
    if not expression.fixed:  # every real minute, by what the clock shows
        at = t.replace(second=0, microsecond=0)
        # A zone's offset may have had odd seconds: look at each instant where the wall clock's seconds are zero.
        while (at := at + MINUTE) <= t + HORIZON:
            odd = at.astimezone(info).second
            shown = at.astimezone(info) - timedelta(seconds=odd)
            real = at - timedelta(seconds=odd)
            if real > t and expression.matches(shown):
                return real
        return None
    wall = (t - timedelta(days=1)).astimezone(info).replace(tzinfo=None, second=0, microsecond=0)
    end = (t + HORIZON).astimezone(info).replace(tzinfo=None)
    while (wall := wall + MINUTE) <= end:  # every minute of the wall clock, the first time it is shown
        if not expression.matches(wall):
            continue
        shown = wall.replace(tzinfo=info)
        if is_real(shown):
            due = shown.astimezone(UTC)
        elif skip:
            continue
        else:
            due = end_of_gap(shown.astimezone(UTC), info)
        if due > t:
            return due
    return None


def end_of_gap(inside: datetime, info: ZoneInfo) -> datetime:
    """The last change of the offset before ``inside``, to the second."""
    new = inside.astimezone(info).utcoffset()
    low, high = inside - timedelta(days=2), inside
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        if middle.astimezone(info).utcoffset() == new:
            high = middle
        else:
            low = middle
    return high


def has_whole_minutes(zone: str, t: datetime) -> bool:
    """Whether the offset has no odd seconds around t: of local mean times one cannot walk the minutes."""
    return all((t + timedelta(days=d)).astimezone(ZoneInfo(zone)).utcoffset().seconds % 60 == 0 for d in (-2, 0, 2, 4))


@given(st.booleans().flatmap(cases), st.sampled_from(["cron", "skip"]))
@example((Expression("30 2 * * *", frozenset({30}), frozenset({2}), frozenset(range(1, 32)), frozenset(range(1, 13)), frozenset(range(7))), "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC)), "cron")  # fmt: skip # noqa: E501
def test_no_run_is_skipped_and_none_is_invented(case, dst):
    expression, zone, t = case
    if not has_whole_minutes(zone, t):
        return
    try:
        schedule = parse(expression.text, timezone=zone, dst=dst)
    except ScheduleError:  # nothing else can be wrong with it
        assert not any(day <= monthrange(2024, month)[1] for month in expression.months for day in expression.doms)
        return
    expected = brute_force(expression, zone, t, skip=dst == "skip")
    found = schedule.next_after(t)
    if expected is None:
        assert found is None or found > t + HORIZON - timedelta(days=1)
    else:
        assert found == expected


@given(cases(days=False))
def test_each_step_is_strictly_later_and_the_steps_agree(case):
    expression, zone, t = case
    schedule = parse(expression.text, timezone=zone)
    first = schedule.next_after(t)
    second = schedule.next_after(first)
    assert t < first < second
    assert schedule.next_after(first - timedelta(milliseconds=1)) == first
    assert schedule.next_after(t + (first - t) / 2) == first
    assert period_ms(schedule, t) == (second - first) / timedelta(milliseconds=1)


@given(cases(days=False), st.integers(1, 40))
def test_the_latest_run_is_the_last_of_the_walk(case, count):
    expression, zone, t = case
    schedule = parse(expression.text, timezone=zone)
    walked = [t]
    for _ in range(count):
        walked.append(schedule.next_after(walked[-1]))
    assert latest(schedule, after=t, until=walked[-1]) == walked[-1]
    just_before = walked[-1] - timedelta(milliseconds=1)
    assert latest(schedule, after=t, until=just_before) == (walked[-2] if count > 1 else None)


@given(cases(), st.sampled_from(["cron", "skip"]))
def test_a_table_runs_as_the_string_with_the_same_fields_where_no_day_field_is_an_alternative(case, dst):
    expression, zone, t = case
    minute, hour, dom, month, dow = expression.text.split()
    if not (dom.startswith("*") or dow.startswith("*")):
        dom = "*"
    try:
        text = parse(f"{minute} {hour} {dom} {month} {dow}", timezone=zone, dst=dst)
    except ValueError:
        with pytest.raises(ValueError, match="never runs"):
            crontab(minute, hour, dow, dom, month)
        return
    table = crontab(minute, hour, dow, dom, month, timezone=zone, dst=dst)
    assert table == text
    assert hash(table) == hash(text)
    assert table.fingerprint == text.fingerprint
    assert table.next_after(t) == text.next_after(t)


def test_every_zone_at_once():
    """A run each night, a run each hour, in each zone there is: strictly later, none missing."""
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    for zone in ZONES:
        nightly, hourly = parse("30 2 * * *", timezone=zone), parse("0 * * * *", timezone=zone)
        t, nights = start, 0
        while (t := nightly.next_after(t)) < end:
            nights += 1
        assert nights == 365, zone
        t, hours = start, 0
        while (t := hourly.next_after(t)) <= start + timedelta(days=3):
            hours += 1
        assert hours == 3 * 24, zone
