"""Cron: the walk to the next match, for cron strings and Celery's tables alike.

The wall clock is walked in integers: a day is found on masks (day of month, month and weekday, with ``L``, ``W`` and
``#``), the time of day on tables of next values. Only then is the zone asked, and an ordinary day's answer is a
subtraction. Around a change of the clock the rules are those of Debian's cron(8): a *fixed* time that falls into the
gap runs right after it, one in the repeated hour runs the first time only; what runs by a wildcard hour or minute
follows real time through both.
"""

from __future__ import annotations

from calendar import isleap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Literal

from beatd.exceptions import ScheduleError
from beatd.schedules.schedule import BaseSchedule
from beatd.schedules.timezone import DAY, Zone
from beatd.timestamps import EARLIEST_MS, LAST_MS

#: How many distinct fields, tables and sets of days are remembered: far more than any file has.
CACHED = 16_384

_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip


def _prefixes(names: Iterable[str], first: int) -> dict[str, int]:
    """Each name by its first three letters or more: sun, tues, thurs, sept, monday."""
    return {name[:length]: value for value, name in enumerate(names, first) for length in range(min(3, len(name)), 10)}


@dataclass(frozen=True, slots=True, eq=False)
class CronField:
    """One column of a cron line: its name, its lowest and highest value, its names for values."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)

    @property
    def full(self) -> int:
        """The mask of all values."""
        return (1 << (self.high + 1)) - (1 << self.low)


SECOND = CronField("second", 0, 59)
MINUTE = CronField("minute", 0, 59)
HOUR = CronField("hour", 0, 23)
DAY_OF_MONTH = CronField("day_of_month", 1, 31)
MONTH = CronField("month_of_year", 1, 12, _prefixes(_MONTHS, 1))
DAY_OF_WEEK = CronField("day_of_week", 0, 6, _prefixes(_WEEKDAYS, 0))


def values_of(mask: int) -> list[int]:
    """The values of a mask, ascending."""
    return [value for value in range(mask.bit_length()) if mask >> value & 1]


@lru_cache(maxsize=CACHED)
def render(mask: int, field: CronField) -> str:
    """The shortest plain text of a mask: ``*``, or numbers and ranges; never a step, whose star would mean more."""
    if mask == field.full:
        return "*"
    runs: list[list[int]] = []
    for value in values_of(mask):
        if runs and runs[-1][1] == value - 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


NONE = 255


@lru_cache(maxsize=CACHED)
def next_table(mask: int, size: int) -> bytes:
    """``table[i]`` is the smallest value of the mask that is >= i, or NONE; for i from 0 to ``size`` inclusive."""
    table = bytearray([NONE]) * (size + 1)
    for i in range(size - 1, -1, -1):
        table[i] = i if mask >> i & 1 else table[i + 1]
    return bytes(table)


LAST = -1
EPOCH_DAY = date(1970, 1, 1).toordinal()
LAST_DAY = date.max.toordinal() - EPOCH_DAY
MONTH_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
#: A weekday mask times this repeats it for five weeks.
_FIVE_WEEKS = 1 | 1 << 7 | 1 << 14 | 1 << 21 | 1 << 28


@dataclass(frozen=True, slots=True)
class Days:
    """A set of days without end, counted from 1970-01-01. Build it with ``days``.

    Day of month d is bit d of ``dom``, month m bit m of ``months``, Sunday bit 0 of ``dow``.
    """

    dom: int
    months: int
    dow: int
    last: bool = False
    """``L``: the last day of the month."""
    near: tuple[int, ...] = ()
    """``15W``: the weekday (Monday to Friday) nearest to that day, within the month; LAST for ``LW``."""
    nth: tuple[tuple[int, int], ...] = ()
    """``fri#2`` is (5, 2), ``L5`` is (5, LAST)."""
    either: bool = False
    """Whether day of month *or* weekday suffices (Vixie cron, both restricted), or both must match."""
    week: bytes | None = field(init=False, compare=False)
    """Days to wait from each weekday on, where only the weekday counts."""
    next_month: bytes = field(init=False, compare=False)
    masks: tuple[int, ...] = field(init=False, compare=False)
    """The matching days of each kind of month, by 7·(length - 28) + the weekday that it starts on."""
    meaning: str = field(init=False, compare=False)
    """Day of month, month and weekday in canonical text."""

    def __post_init__(self) -> None:
        weekly = self.months == MONTH.full and self.any_dom and not self.nth
        waits = next_table(self.dow | self.dow << 7, 14)
        masks = (self._mask(starts_on, length) for length in range(28, 32) for starts_on in range(7))
        object.__setattr__(self, "week", bytes(waits[i] - i for i in range(7)) if weekly and self.dow else None)
        object.__setattr__(self, "next_month", next_table(self.months, 14))
        object.__setattr__(self, "meaning", self._canonical())
        object.__setattr__(self, "masks", () if self.week else tuple(masks))

    @property
    def any_dom(self) -> bool:
        return self.dom == DAY_OF_MONTH.full

    @property
    def any_dow(self) -> bool:
        return self.dow == DAY_OF_WEEK.full

    def first_from(self, day: int) -> int | None:
        """The first matching day that is ``day`` or later; None beyond the year 9999."""
        if self.week is not None:
            return day + self.week[(day + 4) % 7]
        if day > LAST_DAY:
            return None
        on = date.fromordinal(day + EPOCH_DAY)
        year, month, dom = on.year, on.month, on.day
        first = day - dom + 1
        while True:
            if self.next_month[month] == month:
                length = 29 if month == 2 and isleap(year) else MONTH_LENGTHS[month]
                if mask := self.masks[7 * (length - 28) + (first + 4) % 7] >> dom:
                    return first + dom - 2 + (mask & -mask).bit_length()
            dom = 1
            if (month := self.next_month[month + 1]) == NONE:
                year, month = year + 1, self.next_month[1]
                if year > 9999:
                    return None
            first = date(year, month, 1).toordinal() - EPOCH_DAY

    def _mask(self, starts_on: int, length: int) -> int:
        """The matching days of a month that starts on that weekday (Sunday is 0): day d is bit d."""
        dom = self.dom
        if self.last:
            dom |= 1 << length
        for day in self.near:
            dom |= 1 << _nearest_weekday(day, starts_on, length)
        dow = self.dow
        week = ((dow | dow << 7) >> starts_on & 127) * _FIVE_WEEKS << 1
        for weekday, n in self.nth:
            first = 1 + (weekday - starts_on) % 7
            if n == LAST:
                week |= 1 << first + (length - first) // 7 * 7
            elif first + 7 * (n - 1) <= length:
                week |= 1 << first + 7 * (n - 1)
        return (dom | week if self.either else dom & week) & (1 << length + 1) - 1

    def ever(self) -> bool:
        """True if any day matches at all. Every weekday starts every month sooner or later, also in leap years."""
        if self.week:
            return True
        lengths = {MONTH_LENGTHS[month] for month in values_of(self.months)} | ({29} if self.months & 1 << 2 else set())
        return any(any(self.masks[7 * (length - 28) : 7 * (length - 27)]) for length in lengths)

    def _canonical(self) -> str:
        dom = [render(self.dom, DAY_OF_MONTH)] if self.dom else []
        dom += ["L"] * self.last + ["LW" if day == LAST else f"{day}W" for day in self.near]
        dow = [render(self.dow, DAY_OF_WEEK)] if self.dow else []
        dow += [f"L{weekday}" if n == LAST else f"{weekday}#{n}" for weekday, n in self.nth]
        month = render(self.months, MONTH)
        both = not (self.any_dom or self.any_dow)
        return f"{','.join(dom)} {month} {','.join(dow)}" + (" or" if self.either else " and") * both


@lru_cache(maxsize=CACHED)
def days(
    dom: int,
    months: int,
    dow: int,
    *,
    last: bool = False,
    near: tuple[int, ...] = (),
    nth: tuple[tuple[int, int], ...] = (),
    either: bool = False,
) -> Days:
    """The shared ``Days`` of these fields, in canonical form: what a full field makes superfluous is left out.

    Raises ScheduleError when no day ever matches.
    """
    full_dom, full_dow = DAY_OF_MONTH.full, DAY_OF_WEEK.full
    if dom == full_dom:
        last, near = False, ()
    if dow == full_dow:
        nth = ()
    if either and (dom == full_dom or dow == full_dow):
        dom, dow, last, near, nth = full_dom, full_dow, False, (), ()
    either = either and dom != full_dom
    found = Days(dom, months, dow, last, tuple(sorted(set(near))), tuple(sorted(set(nth))), either)
    if not found.ever():
        fields = zip((DAY_OF_MONTH, MONTH, DAY_OF_WEEK), found.meaning.split(), strict=False)
        asked = " and ".join(f"{each.name} {text}" for each, text in fields if text != "*")
        raise ScheduleError(f"the schedule never runs: there is no day with {asked}")
    return found


def _nearest_weekday(day: int, starts_on: int, length: int) -> int:
    """The Monday to Friday nearest to that day of the month, or to its last one, never in another month (croniter)."""
    day = length if day == LAST else min(day, length)
    weekday = (starts_on + day - 1) % 7
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day


Dst = Literal["cron", "skip"]


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Cron(BaseSchedule):
    """Times of day on certain days, on the wall clock of a zone. Build it with ``parse`` or ``crontab``."""

    written: object
    canonical: str
    zone: Zone
    fixed: bool
    """Neither minute nor hour is a wildcard: Debian's "runs at a specific time", with its rules at a clock change."""
    skip: bool
    """Whether a fixed time in the gap is left out rather than moved behind it."""
    days: Days
    seconds: bytes
    minutes: bytes
    hours: bytes
    first: int
    """The first second of the day that matches."""
    last: int
    """The last one."""
    hashed: bool = False
    """Whether it was written with ``H``: its notation has the values of its entry instead."""

    @property
    def notation(self) -> object:
        return self.written

    @property
    def meaning(self) -> str:
        return self.canonical

    def next_after_ms(self, t_ms: int, /) -> int | None:
        if not EARLIEST_MS <= t_ms < LAST_MS:
            return None if t_ms >= LAST_MS else self.next_after_ms(EARLIEST_MS)
        t = t_ms // 1000
        _, end, offset, fresh = self.zone.span(t)
        wall = self.wall_after(t + offset)
        if wall is None:
            return None
        due: int | None = wall - offset
        if wall - offset >= end or (self.fixed and wall < fresh):
            due = self._fixed_after(t, wall) if self.fixed else self._real_after(t, wall)
        return due * 1000 if due is not None and due * 1000 <= LAST_MS else None

    def wall_after(self, wall: int) -> int | None:
        """The next match on the wall clock strictly after ``wall`` (seconds), as if the clock were never changed."""
        day, second = divmod(wall + 1, DAY)
        if second > self.last:
            day, second = day + 1, 0
        week = self.days.week
        match = day + week[(day + 4) % 7] if week is not None else self.days.first_from(day)
        if match == day and second > self.first:
            return day * DAY + self._time_from(second)
        return None if match is None else match * DAY + self.first

    def _time_from(self, second: int) -> int:
        """The first matching second of the day that is ``second`` or later; there is one."""
        minute, second = divmod(second, 60)
        hour, minute = divmod(minute, 60)
        if self.hours[hour] == hour:
            if self.minutes[minute] == minute and (at := self.seconds[second]) != NONE:
                return hour * 3600 + minute * 60 + at
            if (at := self.minutes[minute + 1]) != NONE:
                return hour * 3600 + at * 60 + self.seconds[0]
        return self.hours[hour + 1] * 3600 + self.minutes[0] * 60 + self.seconds[0]

    def _fixed_after(self, t: int, wall: int | None) -> int | None:
        """Each wall time once: the first time it is shown, or when the clock has jumped over it."""
        while wall is not None:
            due, jumped = self.zone.instant(wall)
            if due > t and not (jumped and self.skip):
                return due
            # Nothing else can come of what is shown again, or of what was jumped over: go to the end of it.
            span = self.zone.span(max(due, t))
            wall = self.wall_after(max(wall, (span.start + span.offset if jumped else span.fresh) - 1))
        return None

    def _real_after(self, t: int, wall: int | None) -> int | None:
        """Each instant whose wall time matches, span by span."""
        span = self.zone.span(t)
        while wall is not None:
            if wall - span.offset < span.end:
                return wall - span.offset
            before, span = span, self.zone.span(span.end)
            if span.offset < before.offset or wall < span.start + span.offset:
                wall = self.wall_after(span.start + span.offset - 1)
        return None


def cron(
    notation: object,
    days: Days,
    *,
    hours: int,
    minutes: int,
    seconds: int = 1,
    fixed: bool,
    zone: Zone,
    dst: Dst,
    hashed: bool = False,
) -> Cron:
    """The Cron of these masks."""
    clock = f"{render(seconds, SECOND)} {render(minutes, MINUTE)} {render(hours, HOUR)}"
    rule = "" if zone.is_utc else f" {dst}" if fixed else " real"
    second_table, minute_table, hour_table = next_table(seconds, 60), next_table(minutes, 60), next_table(hours, 24)
    return Cron(
        notation,
        f"cron {clock} {days.meaning} {zone.name}{rule}",
        zone,
        fixed,
        dst == "skip",
        days,
        second_table,
        minute_table,
        hour_table,
        first=hour_table[0] * 3600 + minute_table[0] * 60 + second_table[0],
        last=(hours.bit_length() - 1) * 3600 + (minutes.bit_length() - 1) * 60 + seconds.bit_length() - 1,
        hashed=hashed,
    )
