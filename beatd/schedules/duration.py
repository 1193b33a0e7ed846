"""Lengths of time: read into whole milliseconds, written the short way."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from decimal import Decimal

from beatd.epoch import LONGEST_MS
from beatd.exceptions import ScheduleError
from beatd.schedules.literals import shown

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
        raise ScheduleError(f"a duration cannot be negative, got {shown(value)}")
    if ms > LONGEST_MS:
        raise ScheduleError(f"{shown(value)} is too long: a duration is at most 36525d, which is 100 years")
    if ms != ms.to_integral_value():
        raise ScheduleError(
            f"{_plain(value)} is finer than a millisecond: durations are whole milliseconds, 1ms or 0.001"
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
            raise ScheduleError(f'"{text}": "{part[2]}" is not a unit of time; known are w, d, h, m, s and ms')
        if UNITS[unit] >= last:
            raise ScheduleError(f'"{text}": units go from large to small, each once, as in "1h30m"')
        last = UNITS[unit]
        total += Decimal(part[1]) * UNITS[unit]
        at = part.end()
    if not at or at < len(stripped):
        raise ScheduleError(f'"{text}" is not a duration: {_RIGHT}')
    return total
