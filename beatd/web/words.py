"""Schedules and moments as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from beatd.epoch import from_ms
from beatd.schedules import Schedule, zone
from beatd.schedules.interval import Interval

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


class Phrase(NamedTuple):
    """A schedule as text. ``is_code`` is true for what stands in the file like that, and not in words."""

    text: str
    is_code: bool = False


class Moment(NamedTuple):
    """A moment three times: from now, on the clocks of a zone, and in UTC (empty for a zone that shows the same)."""

    relative: str
    local: str
    utc: str
    iso: str


def schedule_phrase(schedule: Schedule) -> Phrase:
    """The schedule in words, or else as it is written."""
    return _phrase(schedule.notation, is_interval=isinstance(schedule, Interval))


def _phrase(notation: object, *, is_interval: bool = False) -> Phrase:
    match notation:
        case str() if is_interval:
            return Phrase(f"every {notation}")
        case str():
            return Phrase(notation, is_code=True)
        case {"every": length, "relative": True}:
            return Phrase(f"every {length}, relative")
        case {"every": length}:
            return Phrase(f"every {length}")
        case {"at": moment}:
            return Phrase(f"once, {str(moment).replace('T', ' ').replace('Z', ' UTC')}")
        case {"solar": event, "lat": lat, "lon": lon}:
            return Phrase(f"{str(event).replace('_', ' ')} at {lat}, {lon}")
        case list():
            return Phrase(" or ".join(_phrase(part).text for part in notation))
        case Mapping():
            return Phrase(", ".join(f"{name} {_listed(value)}" for name, value in notation.items()), is_code=True)
    return Phrase(str(notation), is_code=True)


def _listed(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def relative(ms: int) -> str:
    """``in 4 s``, ``12 min ago``: two units at most. Negative is past."""
    if abs(ms) < 1000:
        return "now"
    text = length(abs(ms))
    return f"in {text}" if ms > 0 else f"{text} ago"


def length(ms: int) -> str:
    """``15 ms``, ``4 s``, ``12 min``, ``3 h 10 min``, ``5 days``."""
    if ms < 1000:
        return f"{ms} ms"
    if ms < MINUTE:
        return f"{ms // 1000} s"
    if ms < HOUR:
        return f"{ms // MINUTE} min"
    if ms < 2 * DAY:
        hours, minutes = ms // HOUR, ms % HOUR // MINUTE
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{ms // DAY} days"


def moment(ms: int, timezone: str, now_ms: int) -> Moment:
    """The moment as somebody reads it at ``now_ms``. The day is left out where it is today, in UTC where it is the
    same as in the zone."""
    info = zone(timezone).info
    at, now = from_ms(ms), from_ms(now_ms)
    local = at.astimezone(info)
    shown = f"{_clock(local, now.astimezone(info))} {local:%Z}"
    utc = "" if not local.utcoffset() else f"{_clock(at, local)} UTC"
    return Moment(relative(ms - now_ms), shown, utc, at.isoformat(timespec="milliseconds"))


def _clock(at: datetime, now: datetime) -> str:
    time = f"{at:%H:%M:%S}" + (f".{at.microsecond // 1000:03}" if at.microsecond else "")
    if at.date() == now.date():
        return time
    return f"{at:%d %b} {time}" if at.year == now.year else f"{at:%d %b %Y} {time}"


def instant(text: str) -> datetime:
    """An instant that was written in ISO 8601, with its offset."""
    return datetime.fromisoformat(text)


def milliseconds(ms: int) -> str:
    """A difference of clocks with its sign: ``+12 ms``, ``−3.4 s``."""
    sign = "−" if ms < 0 else "+" if ms else ""
    return f"{sign}{abs(ms)} ms" if abs(ms) < 1000 else f"{sign}{abs(ms) / 1000:.1f} s"
