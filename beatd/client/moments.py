"""Moments that people write: an instant, a date, a time of today, ``now``, or a distance such as ``+1d``, ``-2h``."""

from __future__ import annotations

import re

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
                written = f"{from_ms(now_ms).astimezone(zone(timezone).info):%Y-%m-%d} {time_of_day}"
            moment_ms = to_ms(moment(written, timezone))
    except (InvalidValue, ScheduleError) as error:
        is_told = written[:1] in {"+", "-"} or "out of range" in str(error)
        raise ScheduleError(str(error) if is_told else f"{quoted(text)}: {FORMS}") from None
    if not in_range(moment_ms):
        raise ScheduleError(f"{quoted(text)} is out of range: expected a moment in the years 1970 to 9998")
    return moment_ms
