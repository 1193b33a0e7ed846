"""Moments that people write and read.

They write an instant, a date, a time of today, ``now``, or a distance such as ``+1d``, ``-2h``. They read the schedule
of an entry in its time zone, and what happened in that of the file, always with the name of the zone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

from beatd.config.values import InvalidValue, moment
from beatd.exceptions import ScheduleError
from beatd.schedules import zone
from beatd.schedules.duration import duration_ms
from beatd.schedules.literals import quoted
from beatd.timestamps import from_ms, in_range, to_ms

FORMS = 'expected a time such as 2026-12-31T23:59:00 or 23:59 (today), a date, "now", or a distance such as +1d or -2h'
_TIME_OF_DAY = re.compile(r"\d\d?:\d\d(:\d\d)?")


def read_moment(text: str, *, timezone: str, base_ms: int, now_ms: int) -> int:
    """The moment that ``text`` means, in ms since the epoch.

    A time without an offset is one of ``timezone``, one without a date is of today, a distance counts from
    ``base_ms``. Raises :class:`~beatd.exceptions.ScheduleError`.
    """
    written = text.strip()
    try:
        if written == "now":
            return now_ms
        if written[:1] in {"+", "-"}:
            distance_ms = duration_ms(written[1:])
            moment_ms = base_ms + (distance_ms if written[0] == "+" else -distance_ms)
        else:
            if _TIME_OF_DAY.fullmatch(written):
                time_of_day = written if written[2] == ":" else f"0{written}"
                written = f"{local_time(now_ms, timezone):%Y-%m-%d} {time_of_day}"
            moment_ms = to_ms(moment(written, timezone))
    except (InvalidValue, ScheduleError) as error:
        is_told = written[:1] in {"+", "-"} or "out of range" in str(error)
        raise ScheduleError(str(error) if is_told else f"{quoted(text)}: {FORMS}") from None
    if not in_range(moment_ms):
        raise ScheduleError(f"{quoted(text)} is out of range: expected a moment in the years 1970 to 9998")
    return moment_ms


def local_time(ms: int, timezone: str) -> datetime:
    """A moment on the clocks of a zone."""
    return from_ms(ms).astimezone(zone(timezone).info)


def moment_text(ms: int, timezone: str) -> str:
    """A moment as text: ``2026-11-27 13:00:00 CET``."""
    return f"{local_time(ms, timezone):%Y-%m-%d %H:%M:%S %Z}"


def local_text(text: str, timezone: str) -> str:
    """A text in which moments are written in UTC, with these on the clocks of a zone."""
    return with_moments(text, lambda since, ms: since + moment_text(ms, timezone))


_WRITTEN = re.compile(r"(since )?(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.\d+)?(?: UTC|\+00:00)")


def with_moments(text: str, shown: Callable[[str, int], str]) -> str:
    """A text whose moments in UTC, as :func:`beatd.timestamps.utc_text` and ``iso_ms`` write them, are replaced.

    ``shown`` gets the word before the moment, ``"since "`` or nothing, and the moment (ms).
    """

    def replaced(match: re.Match[str]) -> str:
        try:
            return shown(match[1] or "", to_ms(datetime.fromisoformat(f"{match[2]}T{match[3]}+00:00")))
        except (ValueError, OverflowError):  # a person wrote something that is no moment
            return match[0]

    return _WRITTEN.sub(replaced, text)
