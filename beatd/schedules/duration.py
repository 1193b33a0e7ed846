"""Lengths of time: read into whole milliseconds, written the short way."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from decimal import Decimal

from beatd.exceptions import ScheduleError

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
_RIGHT = 'expected seconds or a duration such as "30s", "1h30m", "500ms" or "PT30S"'


def duration_ms(value: object) -> int:
    """``"1h30m"``, ``"PT30S"``, ``30``, ``0.5`` (seconds) or a timedelta, as whole milliseconds.

    Raises ScheduleError when it is not a duration, negative, or finer than a millisecond. Zero is a duration.
    """
    if isinstance(value, bool):
        raise ScheduleError(f"{str(value).lower()} is not a duration: {_RIGHT}")
    if isinstance(value, int):
        ms = value * 1000
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ScheduleError(f"{value} is not a duration: {_RIGHT}")
        ms = _whole(Decimal(str(value)) * 1000, value)
    elif isinstance(value, timedelta):
        ms = _whole(Decimal(value // timedelta(microseconds=1)) / 1000, value)
    elif isinstance(value, str):
        ms = _read(value)
    else:
        raise ScheduleError(f"{value!r} is not a duration: {_RIGHT}")
    if ms < 0:
        raise ScheduleError(f"a duration cannot be negative, got {value!r}")
    return ms


def duration_text(ms: int) -> str:
    """The short way to write it: 5_400_000 is ``"1h30m"``."""
    parts = []
    for unit, size in UNITS.items():
        if unit != "w":
            count, ms = divmod(ms, size)
            if count:
                parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _read(text: str) -> int:
    stripped = text.strip()
    if _PLAIN.fullmatch(stripped):
        return _whole(Decimal(stripped) * 1000, text)
    if (iso := _ISO.fullmatch(stripped)) and any(iso.groups()):
        sizes = [UNITS[unit] for unit in "wdhms"]
        counts = (Decimal(count or 0) for count in iso.groups())
        return _whole(sum((count * size for count, size in zip(counts, sizes, strict=True)), Decimal(0)), text)
    total, at, last = Decimal(0), 0, math.inf
    while part := _PART.match(stripped, at):
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
    return _whole(total, text)


def _whole(ms: Decimal, value: object) -> int:
    if ms != ms.to_integral_value():
        raise ScheduleError(f"{value!s} is finer than a millisecond: durations are whole milliseconds, 1ms or 0.001")
    return int(ms)
