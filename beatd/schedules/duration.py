"""Durations and instants as they are written: lengths in whole milliseconds, and points in time.

An instant is an aware datetime, a naive one in the entry's zone, a date, or ISO 8601 text.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache

from beatd.exceptions import ScheduleError
from beatd.schedules.literals import quoted, shown
from beatd.schedules.timezone import Zone
from beatd.timestamps import EPOCH, LONGEST_MS, from_ms, in_range, to_ms

UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
UNIT_NAMES = {
    **dict.fromkeys(("w", "week", "weeks"), "w"),
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), "ms"),
}
_NUMBER = r"\d+(?:\.\d+)?"
_PART = re.compile(rf"\s*({_NUMBER})\s*([a-zA-Z]+)")
_PLAIN = re.compile(_NUMBER)
_ISO = re.compile(
    rf"P(?:({_NUMBER})W)?(?:({_NUMBER})D)?(?:T(?=\d)(?:({_NUMBER})H)?(?:({_NUMBER})M)?(?:({_NUMBER})S)?)?",
    re.IGNORECASE,
)
_LONGEST_TEXT = 100
_RIGHT = 'expected seconds or a duration such as "30s", "1h30m", "500ms" or "PT30S"'


def duration_ms(value: object) -> int:
    """``"1h30m"``, ``"PT30S"``, ``30``, ``0.5`` (seconds) or a timedelta, as whole milliseconds.

    Raises ScheduleError when it is not a duration, negative, longer than 100 years, or finer than a millisecond. Zero
    is a duration.
    """
    ms = _milliseconds(value)
    if ms < 0:
        raise ScheduleError(f"a duration must not be negative, got {shown(value)}")
    if ms > LONGEST_MS:
        raise ScheduleError(f"{shown(value)} is too long: a duration is at most 36525d, which is 100 years")
    if ms != ms.to_integral_value():
        raise ScheduleError(
            f"{_plain(value)} is finer than a millisecond; expected whole milliseconds, such as 1ms or 0.001"
        )
    return int(ms)


def _milliseconds(value: object) -> Decimal:
    match value:
        case bool():
            pass
        case int():
            return Decimal(max(min(value, LONGEST_MS), -1) * 1000)  # beyond the bounds, its digits do not matter
        case float() if math.isfinite(value):
            return Decimal(str(value)) * 1000
        case timedelta():
            return Decimal(value // timedelta(microseconds=1)) / 1000
        case str():
            return _read(value)
    raise ScheduleError(f"{shown(value)} is not a duration: {_RIGHT}")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else shown(value)


@lru_cache(maxsize=4_096)
def duration_text(ms: int) -> str:
    """The short way to write it: 5_400_000 is ``"1h30m"``."""
    parts = []
    for unit, size in UNITS.items():
        if unit != "w":
            count, ms = divmod(ms, size)
            if count:
                parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _read(text: str) -> Decimal:
    stripped = text.strip()
    if len(stripped) > _LONGEST_TEXT:
        raise ScheduleError(f"{shown(text)} is not a duration: {_RIGHT}")
    if _PLAIN.fullmatch(stripped):
        return Decimal(stripped) * 1000
    if (iso := _ISO.fullmatch(stripped)) and any(iso.groups()):
        sizes = [UNITS[unit] for unit in "wdhms"]
        counts = (Decimal(count or 0) for count in iso.groups())
        return sum((count * size for count, size in zip(counts, sizes, strict=True)), Decimal(0))
    total, at, last = Decimal(0), 0, math.inf
    while part := _PART.match(stripped, at):
        if part[2] == "M":
            raise ScheduleError(
                f'"{text}": M could mean minutes or months; write "{part[1]}m" for minutes, and a cron string such as '
                '"0 0 1 * *" for months'
            )
        unit = UNIT_NAMES.get(part[2] if part[2] in UNIT_NAMES else part[2].lower())
        if unit is None:
            raise ScheduleError(f'"{text}": "{part[2]}" is not a unit of time; expected w, d, h, m, s or ms')
        if UNITS[unit] >= last:
            raise ScheduleError(f'"{text}": units go from large to small, each once, as in "1h30m"')
        last = UNITS[unit]
        total += Decimal(part[1]) * UNITS[unit]
        at = part.end()
    if not at or at < len(stripped):
        raise ScheduleError(f'"{text}" is not a duration: {_RIGHT}')
    return total


class OutOfRange(ScheduleError):
    """A moment outside of the years that can be written."""


def instant_ms(value: object, zone: Zone, what: str) -> int:
    """Milliseconds since the epoch. A naive value is the wall time of ``zone``: one in a gap is moved to its end, one
    that is shown twice is the first. Raises ScheduleError that names ``what``, also outside of the years 1970 to 9998
    in UTC."""
    moment = _read_instant(value, what)
    due_ms = to_ms(moment) if moment.tzinfo is not None else wall_ms(moment, zone)
    if not in_range(due_ms):
        raise OutOfRange(f"{what} = {shown(value)}: expected a moment in the years 1970 to 9998 (UTC)")
    return due_ms


def wall_ms(moment: datetime, zone: Zone) -> int:
    """``instant_ms`` of a naive datetime, wherever it lies."""
    seconds, ms = divmod(to_ms(moment.replace(tzinfo=EPOCH.tzinfo)), 1000)
    due, jumped = zone.instant(seconds)
    return due * 1000 + (0 if jumped else ms)


def instant_text(ms: int) -> str:
    """ISO 8601 in UTC, with milliseconds only where there are some."""
    moment = from_ms(ms)
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")


def _read_instant(value: object, what: str) -> datetime:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.strip())
        except ValueError as error:
            raise ScheduleError(
                f"{what} = {quoted(value)}: not a date and time{_why(error)}; expected one such as 2026-12-31T23:59:00"
            ) from None
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    raise ScheduleError(f"{what} = {shown(value)}: expected a date and time such as 2026-12-31T23:59:00")


def _why(error: ValueError) -> str:
    """The parser's reason in brackets, unless it only repeats the text in Python's spelling."""
    return "" if "isoformat" in str(error) else f" ({error})"
