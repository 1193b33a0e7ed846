"""Which days match: day of month, month and weekday, with ``L``, ``W`` and ``#``, as masks of a month's days."""

from __future__ import annotations

from calendar import isleap
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

from beatd.exceptions import ScheduleError
from beatd.schedules.fields import CACHED, DAY_OF_MONTH, DAY_OF_WEEK, MONTH, NONE, next_table, render, values_of

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
        """Whether any day matches at all. Every weekday starts every month sooner or later, also in leap years."""
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
        raise ScheduleError(f"it never runs: there is no day with {asked}")
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
