"""Calendars as parts of a blackout: public holidays, days that are no business days, and events of iCalendar files.

Nothing here reads a file or a clock. An :class:`EventCalendar` is filled by :mod:`beatd.sources.calendars`, which reads
it again from time to time; until then it covers nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from beatd.exceptions import ScheduleError
from beatd.schedules.duration import wall_ms
from beatd.schedules.literals import quoted
from beatd.schedules.timezone import DAY, Zone

_EPOCH = date(1970, 1, 1).toordinal()
_MISSING = 'holidays and calendars need an extra: pip install "beatd[calendars]"'
_CODE = re.compile(r"[A-Za-z]{2,6}(?:-[A-Za-z0-9 ]{1,40})?")
BUSINESS_DAYS = "business-days"
_WEEKEND = frozenset({5, 6})
_PART_CODE = 3
"""Longest code of a part of a country; longer ones are names, such as Augsburg."""


class Country(NamedTuple):
    """A country, a part of one, or a market, such as ``DE``, ``DE-BY``, ``US-CA``, ``NYSE``."""

    code: str

    def holidays(self, year: int) -> frozenset[int]:
        """The holidays of a year, in days since 1970-01-01."""
        return _holidays(self.code, year)

    def is_off(self, day: int) -> bool:
        """True for a holiday and for a day of the weekend there."""
        moment = date.fromordinal(day + _EPOCH)
        return moment.weekday() in _weekend(self.code) or day in self.holidays(moment.year)


def country(value: object) -> Country:
    """The country that ``value`` names. Raises ScheduleError."""
    if not isinstance(value, str) or not _CODE.fullmatch(value.strip()):
        raise ScheduleError(f'expected a country such as "DE", or a part of one such as "DE-BY", got {_shown(value)}')
    name, hyphen, part = value.strip().partition("-")
    code = f"{name.upper()}{hyphen}{part.upper() if len(part) <= _PART_CODE else part}"
    _calendar(code)
    return Country(code)


def _shown(value: object) -> str:
    return quoted(value) if isinstance(value, str) else str(value)


@lru_cache(maxsize=256)
def _calendar(code: str) -> Any:
    try:
        import holidays  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise ScheduleError(_MISSING) from None
    name, _, part = code.partition("-")
    try:
        return holidays.country_holidays(name, subdiv=part or None)
    except NotImplementedError as error:
        if not part:
            try:
                return holidays.financial_holidays(name)
            except NotImplementedError:
                pass
        known = holidays.list_supported_countries().get(name)
        more = f"; parts of {name}: {', '.join(known)}" if known else "; expected an ISO code such as DE or DE-BY"
        raise ScheduleError(f"no holidays are known for {quoted(code)}{more}"[:500]) from error


@lru_cache(maxsize=1024)
def _holidays(code: str, year: int) -> frozenset[int]:
    found = _calendar(code)
    start, end = date(year, 1, 1), date(year, 12, 31)
    return frozenset(day.toordinal() - _EPOCH for day in found[start:end])


@lru_cache(maxsize=256)
def _weekend(code: str) -> frozenset[int]:
    return frozenset(getattr(_calendar(code), "weekend", None) or _WEEKEND)


@dataclass(frozen=True, slots=True)
class DaysOff:
    """Whole days on the wall clock of ``zone``: holidays of a country, or all that are no business days.

    Without a country business days are Monday to Friday.
    """

    country: Country | None
    only_business_days: bool
    zone: Zone

    def covers_ms(self, t_ms: int, /) -> bool:
        return self._is_off(self._day(t_ms))

    def end_ms(self, t_ms: int, /) -> int:
        """The end of that day."""
        after = date.fromordinal(self._day(t_ms) + _EPOCH) + timedelta(days=1)
        return max(wall_ms(datetime.combine(after, time()), self.zone), t_ms + 1)

    def _day(self, t_ms: int) -> int:
        t = t_ms // 1000
        return (t + self.zone.span(t).offset) // DAY

    def _is_off(self, day: int) -> bool:
        if self.country is None:
            return date.fromordinal(day + _EPOCH).weekday() in _WEEKEND
        if self.only_business_days:
            return self.country.is_off(day)
        return day in self.country.holidays(date.fromordinal(day + _EPOCH).year)

    @property
    def notation(self) -> object:
        if not self.only_business_days:
            return {"holidays": self.country.code if self.country else ""}
        return {"only_on": BUSINESS_DAYS if self.country is None else {BUSINESS_DAYS: self.country.code}}


def days_off(table: Mapping[str, object], zone: Zone) -> DaysOff:
    """The window of ``{ holidays = … }`` or ``{ only_on = … }``. Raises ScheduleError."""
    if "holidays" in table:
        return DaysOff(country(table["holidays"]), False, zone)
    match table["only_on"]:
        case str(word) if word == BUSINESS_DAYS:
            return DaysOff(None, True, zone)
        case {"business-days": code, **rest} if not rest:
            return DaysOff(country(code), True, zone)
    raise ScheduleError(f'only_on: expected "{BUSINESS_DAYS}" or {{ {BUSINESS_DAYS} = "DE-BY" }}')


_YEARS_KEPT = 2
"""Years before and after the current one that are expanded as soon as a calendar is read again."""
Stretch = tuple[int, int]
"""From a moment until before another, in ms."""
Expand = Callable[[int, Zone], Sequence[Stretch]]
"""The events that touch a year, on the wall clock of a zone."""


class EventCalendar:
    """Events of an iCalendar file or URL, as they were when it was read last without an error."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.error = ""
        """Why it could not be read the last time; empty if it could."""
        self.read_ms: int | None = None
        """When it was read last without an error."""
        self.tried_s: float | None = None
        """When it was fetched last, with an error or without, by the monotonic clock (s)."""
        self._expand: Expand | None = None
        self._years: dict[tuple[int, str], Sequence[Stretch]] = {}
        self.zones: dict[str, Zone] = {}
        """The zones of the blackouts that name it."""

    def fill(self, expand: Expand, read_ms: int) -> None:
        """Take over what was read. The years in use are expanded here: that may take seconds, and runs wait for it.

        Years far from that of ``read_ms``, which somebody has looked at, are expanded when they are asked for again.
        """
        self.error = ""
        now = date.fromordinal(read_ms // (DAY * 1000) + _EPOCH).year
        known = [
            (year, self.zones[name])
            for year, name in list(self._years)
            if name in self.zones and abs(year - now) <= _YEARS_KEPT
        ]
        years = {(year, zone.name): self._expanded(expand, year, zone) for year, zone in known}
        self._expand = expand  # first: who sees the new years is not to add one of the old events
        self._years, self.read_ms = years, read_ms

    def make_ready(self, now_ms: int) -> None:
        """Expand the year of now, and that of two days later, so that no run waits for it."""
        for moment_ms in (now_ms, now_ms + 2 * DAY * 1000):
            for zone in list(self.zones.values()):
                self.stretches(date.fromordinal(moment_ms // (DAY * 1000) + _EPOCH).year, zone)

    def stretches(self, year: int, zone: Zone) -> Sequence[Stretch]:
        """The events that touch a year, sorted and without overlaps."""
        years, expand = self._years, self._expand
        if expand is None:
            return ()
        key = (year, zone.name)
        if key not in years:
            years[key] = self._expanded(expand, year, zone)
        return years[key]

    def _expanded(self, expand: Expand, year: int, zone: Zone) -> Sequence[Stretch]:
        try:
            return merged(expand(year, zone))
        except Exception as error:  # noqa: BLE001 - a rule that breaks the library in this year only
            self.error = f"its events of {year}: {type(error).__name__}: {error}"[:300]
            return ()


def merged(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The same time, sorted and without overlaps."""
    found: list[Stretch] = []
    for start, end in sorted(stretches):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif start < end:
            found.append((start, end))
    return found


@dataclass(frozen=True, slots=True)
class EventWindow:
    """The events of a calendar."""

    calendar: EventCalendar
    zone: Zone

    def covers_ms(self, t_ms: int, /) -> bool:
        return self._stretch(t_ms) is not None

    def end_ms(self, t_ms: int, /) -> int:
        stretch = self._stretch(t_ms)
        return t_ms + 1 if stretch is None else stretch[1]

    def _stretch(self, t_ms: int) -> Stretch | None:
        t = t_ms // 1000
        year = date.fromordinal((t + self.zone.span(t).offset) // DAY + _EPOCH).year
        stretches = self.calendar.stretches(year, self.zone)
        place = bisect_right(stretches, (t_ms, t_ms)) if stretches else 0
        for start, end in stretches[max(place - 1, 0) : place + 1]:
            if start <= t_ms < end:
                return start, end
        return None

    @property
    def notation(self) -> object:
        return {"ics": self.calendar.place}


_calendars: WeakValueDictionary[str, EventCalendar] = WeakValueDictionary()


def event_window(value: object, zone: Zone) -> EventWindow:
    """The window of ``{ ics = … }``; the same calendar for all that name the same place. Raises ScheduleError."""
    if not isinstance(value, str) or not value.strip():
        raise ScheduleError('ics: expected a file or an https URL, such as "maintenance.ics"')
    place = str(value).strip()
    scheme, found, _ = place.partition("://")
    if found and scheme not in ("http", "https"):
        raise ScheduleError(f'ics: expected a file or an http or https URL, got one of "{scheme}"')
    calendar = _calendars.get(place)
    if calendar is None:
        calendar = _calendars[place] = EventCalendar(place)
    calendar.zones[zone.name] = zone
    return EventWindow(calendar, zone)


def calendars_in_use() -> list[EventCalendar]:
    """All calendars that a blackout of this process has."""
    return sorted(_calendars.values(), key=lambda one: one.place)
