"""Blackouts: stretches of time in which an entry does not run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Protocol
from weakref import WeakValueDictionary

from beatd.exceptions import ScheduleError
from beatd.schedules.calendars import days_off, event_window
from beatd.schedules.cron_parser import read_cron
from beatd.schedules.duration import OutOfRange, duration_ms, duration_text, instant_ms, wall_ms
from beatd.schedules.literals import quoted, toml
from beatd.schedules.schedule import Schedule
from beatd.schedules.timezone import DAY, Zone, zone
from beatd.timestamps import to_ms

_TIME_RANGE = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*-\s*(\d{1,2}):(\d{2})(?::(\d{2}))?")
_EXPECTED = (
    'expected times ("22:00-06:00"), dates ("2026-12-24" or "2026-12-24/2026-12-26"), a cron window '
    '({ cron = "0 22 * * fri", duration = "8h" }), { holidays = "DE-BY" }, { ics = "maintenance.ics" } or the name '
    "of a shared blackout"
)


class Window(Protocol):
    """One part of a blackout."""

    def covers_ms(self, t_ms: int, /) -> bool: ...

    def end_ms(self, t_ms: int, /) -> int:
        """Given that it covers ``t_ms``: a moment later than that, up to which it covers all."""

    @property
    def notation(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Daily:
    """Each day from ``start`` to ``end``, in seconds of the wall clock's day; over midnight where end is not later."""

    start: int
    end: int
    zone: Zone

    def covers_ms(self, t_ms: int, /) -> bool:
        t = t_ms // 1000
        second = (t + self.zone.span(t).offset) % DAY
        if self.start < self.end:
            return self.start <= second < self.end
        return second >= self.start or second < self.end

    def end_ms(self, t_ms: int, /) -> int:
        t = t_ms // 1000
        _, until, offset, _ = self.zone.span(t)
        left = (self.end - t - offset) % DAY or DAY
        return min(t + left, until) * 1000

    @property
    def notation(self) -> object:
        return f"{_clock(self.start)}-{_clock(self.end)}"


@dataclass(frozen=True, slots=True)
class Period:
    """One stretch, from ``start_ms`` until before ``until_ms`` (milliseconds since the epoch)."""

    start_ms: int
    until_ms: int
    notation: object

    @property
    def lasts_for_ever(self) -> bool:
        """Longer than anybody's schedule: 50 years."""
        return self.until_ms - self.start_ms > 50 * _TRIED_MS

    def covers_ms(self, t_ms: int, /) -> bool:
        return self.start_ms <= t_ms < self.until_ms

    def end_ms(self, t_ms: int, /) -> int:  # noqa: ARG002 - the end is the same from wherever one looks
        return self.until_ms


@dataclass(frozen=True, slots=True)
class CronWindow:
    """From each run of ``schedule`` on, for ``duration_ms`` of real time."""

    schedule: Schedule
    duration_ms: int

    def covers_ms(self, t_ms: int, /) -> bool:
        start = self.schedule.next_after_ms(t_ms - self.duration_ms)
        return start is not None and start <= t_ms

    def end_ms(self, t_ms: int, /) -> int:
        start = self.schedule.next_after_ms(t_ms - self.duration_ms)
        return t_ms if start is None else start + self.duration_ms

    @property
    def notation(self) -> object:
        return {"cron": self.schedule.notation, "duration": duration_text(self.duration_ms)}


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Blackout:
    """When an entry does not run: inside any of ``windows``. Build it with ``parse_blackout``."""

    windows: tuple[Window, ...]

    def covers(self, t: datetime, /) -> bool:
        """True if a run at the aware datetime ``t`` is left out."""
        return self.covers_ms(to_ms(t))

    def covers_ms(self, t_ms: int, /) -> bool:
        """``covers`` in milliseconds since the epoch."""
        return any(window.covers_ms(t_ms) for window in self.windows)

    def end_ms(self, t_ms: int, /) -> int:
        """The first moment from ``t_ms`` on that it does not cover, or one on the way there when that is far."""
        for _ in range(_JUMPS):
            ends = [window.end_ms(t_ms) for window in self.windows if window.covers_ms(t_ms)]
            if not ends:
                break
            t_ms = max(ends)
        return t_ms

    @property
    def notation(self) -> object:
        """The notation that ``parse_blackout`` reads back as an equal value."""
        return [window.notation for window in self.windows]


def joined_blackout(first: Blackout | None, second: Blackout) -> Blackout:
    """Both together."""
    return second if first is None else Blackout(tuple(dict.fromkeys((*first.windows, *second.windows))))


_known: WeakValueDictionary[tuple[str, str], Blackout] = WeakValueDictionary()


def parse_blackout(value: object, *, timezone: str = "UTC") -> Blackout:
    """The blackout that ``value`` denotes, on the wall clock of ``timezone``.

    ``value`` is a time range (``"22:00-06:00"``), a date, a range of dates with both ends included
    (``"2026-12-24/2026-12-26"``; with times of day the end is excluded), a table (``{ cron = "0 22 * * fri", duration =
    "8h" }``, ``{ holidays = "DE-BY" }``, ``{ only_on = "business-days" }``, ``{ ics = "maintenance.ics" }``), or a list
    of these. Raises ScheduleError, also when nothing is left outside of it.
    """
    try:
        key = (repr(value), timezone)
    except ValueError:  # Python writes out numbers of 4,300 digits, not more
        raise ScheduleError("a number with more than 4,300 digits is out of range") from None
    if (known := _known.get(key)) is None:
        known = _known[key] = _read_all(value, zone(timezone))
    return known


def _read_all(value: object, where: Zone) -> Blackout:
    parts = value if isinstance(value, list | tuple) else [value]
    if not parts:
        raise ScheduleError(f"an empty blackout: leave it out, or {_EXPECTED}")
    blackout = Blackout(tuple(_read(part, where) for part in parts))
    if _covers_everything(blackout):
        raise ScheduleError(f"the blackout {toml(value)} covers everything: the entry would never run")
    return blackout


def _read(value: object, where: Zone) -> Window:
    if isinstance(value, Mapping):
        return _read_table({str(key): part for key, part in value.items()}, where)
    if isinstance(value, str) and (times := _TIME_RANGE.fullmatch(value.strip())):
        start, end = _second(times[1], times[2], times[3], value), _second(times[4], times[5], times[6], value)
        if start % DAY == end % DAY:
            raise ScheduleError(f'the blackout "{value}" covers everything: the entry would never run')
        return Daily(start % DAY, end % DAY, where)
    if isinstance(value, str):
        first, slash, last = value.partition("/")
        return _read_period(first.strip(), last.strip() if slash else first.strip(), value, where)
    if isinstance(value, date):
        return _read_period(value, value, value.isoformat(), where)
    raise ScheduleError(f"{toml(value)} is not a blackout: {_EXPECTED}")


_CALENDARS = ({"holidays"}, {"only_on"}, {"ics"})


def _read_table(table: dict[str, object], where: Zone) -> Window:
    if set(table) in _CALENDARS:
        return event_window(table["ics"], where) if "ics" in table else days_off(table, where)
    if set(table) != {"cron", "duration"} or not isinstance(table["cron"], str):
        raise ScheduleError(f"{toml(table)} is not a blackout: {_EXPECTED}")
    duration = duration_ms(table["duration"])
    if not duration:
        raise ScheduleError('duration = 0: a blackout needs a length, such as duration = "8h"')
    return CronWindow(read_cron(table["cron"], where.name, "", "cron"), duration)


def _read_period(first: str | date, last: str | date, written: str, where: Zone) -> Period:
    start, _ = _edge(first, written, where)
    _, until = _edge(last, written, where)
    if until <= start:
        raise ScheduleError(f'the blackout "{written}" ends before it begins; write the earlier date first')
    return Period(start, until, written)


def _edge(value: str | date, written: str, where: Zone) -> tuple[int, int]:
    """Start and end of that date or moment."""
    try:
        moment = date.fromisoformat(value) if isinstance(value, str) and len(value) == 10 else value
        if isinstance(moment, date) and not isinstance(moment, datetime):
            start = instant_ms(moment, where, "blackout")
            return start, wall_ms(datetime.combine(moment + timedelta(days=1), time()), where)
        return (instant := instant_ms(moment, where, "blackout")), instant
    except OutOfRange:
        raise
    except (ScheduleError, ValueError, OverflowError):
        raise ScheduleError(f"{quoted(written)} is not a blackout: {_EXPECTED}") from None


def _second(hour: str, minute: str, second: str | None, written: str) -> int:
    at = int(hour) * 3600 + int(minute) * 60 + int(second or 0)
    if int(minute) > 59 or int(second or 0) > 59 or at > DAY:
        raise ScheduleError(f'the blackout "{written}" has an invalid time of day; expected 00:00 to 24:00')
    return at


def _clock(second: int) -> str:
    text = f"{second // 3600:02}:{second // 60 % 60:02}"
    return f"{text}:{second % 60:02}" if second % 60 else text


#: Where a blackout is tried: from Monday 2024-01-01 on, for a leap year, every 6 h 7 min; then step by step.
_TRIED_FROM_MS = to_ms(datetime.fromisoformat("2024-01-01T00:00:00Z"))
_TRIED_MS = 366 * DAY * 1000
_TRIED_EVERY_MS = (6 * 60 + 7) * 60_000
_STEPS = 20_000
_JUMPS = 100


def _covers_everything(blackout: Blackout) -> bool:
    """True if no moment of a year is free. Nearly always one of the first tries finds a free one."""
    windows = blackout.windows
    lasting = Blackout(tuple(each for each in windows if not isinstance(each, Period) or each.lasts_for_ever))
    end = _TRIED_FROM_MS + _TRIED_MS
    if not all(lasting.covers_ms(t) for t in range(_TRIED_FROM_MS, end, _TRIED_EVERY_MS)):
        return False
    return all(lasting.covers_ms(t) for t in _walk(lasting, end))


def _walk(blackout: Blackout, end: int) -> Iterator[int]:
    """From one end of a window to the next, through all that overlap."""
    t = _TRIED_FROM_MS
    for _ in range(_STEPS):
        if t >= end:
            return
        yield t
        t = max((window.end_ms(t) for window in blackout.windows if window.covers_ms(t)), default=end)
