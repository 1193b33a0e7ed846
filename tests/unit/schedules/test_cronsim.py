"""cronsim, which mimics Debian's cron, reads and walks five-field strings as beatd does: also where clocks change.

Left out, because there cronsim answers with times that no clock shows or has to be told more than an instant:

* it starts from a wall time and does not look at ``fold``, so for fixed times it may not be asked from a second pass;
* at a clock change at midnight a wildcard schedule makes it name the midnight that was jumped over;
* of a range of one value with a step (``5-5/2``) it makes ``5-59/2``;
* it walks whole hours of the wall clock over a change of half an hour (Lord Howe), and whole minutes over offsets with
  odd seconds (local mean times, up to 1972).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from hypothesis import assume, example, given
from hypothesis import strategies as st

from beatd.exceptions import ScheduleError
from beatd.schedules import parse

ZONES = sorted(available_timezones() - {"localtime", "Factory"})
#: Where clocks change often, oddly, or at midnight.
TROUBLE = (
    "Europe/Berlin", "America/New_York", "Australia/Sydney", "America/Santiago", "Africa/Casablanca", "Africa/Cairo",
    "Asia/Beirut", "America/Havana", "Asia/Gaza", "Asia/Tehran", "Pacific/Apia", "Pacific/Chatham", "Etc/GMT+5",
)  # fmt: skip
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]


@st.composite
def field(draw, low, high, names=(), special=()):
    def value():
        number = draw(st.integers(low, high))
        return names[number - low] if names and number - low < len(names) and draw(st.booleans()) else str(number)

    def part():
        kind = draw(st.sampled_from(["star", "one", "one", "range", "step", "range step", *special]))
        if kind == "star":
            return "*"
        if kind == "one":
            return value()
        if kind == "step":
            return f"*/{draw(st.integers(1, high))}"
        if kind in ("range", "range step"):
            first = draw(st.integers(low, high - 1))
            last = draw(st.integers(first + 1, high))
            return f"{first}-{last}" + (f"/{draw(st.integers(1, high))}" if kind == "range step" else "")
        if kind == "nth":
            return f"{draw(st.sampled_from(DAYS))}#{draw(st.integers(1, 5))}"
        if kind == "last weekday":
            return f"{draw(st.integers(0, 6))}L"
        return kind

    return ",".join(part() for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))))


EXPRESSIONS = st.tuples(
    field(0, 59),
    field(0, 23),
    st.one_of(st.just("*"), field(1, 31, special=["L", "LW"])),
    st.one_of(st.just("*"), field(1, 12, names=MONTHS)),
    st.one_of(st.just("*"), field(0, 7, names=DAYS, special=["nth", "last weekday"])),
).map(" ".join)


@st.composite
def starts(draw):
    zone = draw(st.one_of(st.sampled_from(TROUBLE), st.sampled_from(ZONES)))
    first = datetime(1975, 1, 1, tzinfo=UTC)
    t = first + timedelta(minutes=draw(st.integers(0, 62 * 365 * 1440)))
    change = next_change(zone, t)
    if change is not None and draw(st.integers(0, 2)):
        t = change + timedelta(minutes=draw(st.integers(-1500, 300)))
    return zone, t


def next_change(zone: str, t: datetime) -> datetime | None:
    info = ZoneInfo(zone)
    offset = t.astimezone(info).utcoffset()
    for day in range(1, 400):
        if (later := t + timedelta(days=day)).astimezone(info).utcoffset() != offset:
            minutes = range(-1440, 1)
            return next(
                at for m in minutes if (at := later + timedelta(minutes=m)).astimezone(info).utcoffset() != offset
            )
    return None


def is_odd(zone: str, t: datetime) -> bool:
    """Whether offsets around t have odd seconds, or change by a part of an hour."""
    info = ZoneInfo(zone)
    offsets = {(t + timedelta(days=d)).astimezone(info).utcoffset() for d in range(-2, 3)}
    spread = max(offsets) - min(offsets)
    return any(o.seconds % 60 for o in offsets) or bool(spread.seconds % 3600)


def is_shown(wall: datetime) -> bool:
    return wall == wall.astimezone(UTC).astimezone(wall.tzinfo)


@given(EXPRESSIONS, starts())
@example("30 2 * * *", ("Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC)))
@example("30 2 * * *", ("Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC)))
@example("*/15 * * * *", ("Europe/Berlin", datetime(2026, 10, 25, 0, tzinfo=UTC)))
@example("0 0 */2 * MON", ("UTC", datetime(2026, 10, 25, 0, tzinfo=UTC)))
@example("0 0 1 * MON#1", ("UTC", datetime(2026, 10, 25, 0, tzinfo=UTC)))
def test_cronsim_agrees(text, start):
    zone, t = start
    assume(not is_odd(zone, t))
    info = ZoneInfo(zone)
    try:
        theirs = CronSim(text, t.astimezone(info))
    except CronSimError:
        assume(False)
    try:
        ours = parse(text, timezone=zone)
    except ScheduleError as error:
        # A set that is for ever empty, a step that never steps: said when read, where cronsim walks for 50 years.
        if "never" in str(error):
            return
        raise
    fixed = theirs.fixup_tz is not None
    for _ in range(6):
        assume(not (fixed and t.astimezone(info).fold))
        try:
            expected = next(CronSim(text, t.astimezone(info)))
        except StopIteration:
            return
        assume(is_shown(expected))
        found = ours.next_after(t)
        midnight = found.astimezone(info).replace(hour=0, minute=0)
        assume(not is_odd(zone, found) and (fixed or is_shown(midnight)))
        assert found == expected.astimezone(UTC), (text, zone, t)
        t = found
