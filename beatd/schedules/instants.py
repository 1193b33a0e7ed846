"""Points in time as they are written: an aware datetime, a naive one in the entry's zone, a date, or ISO 8601 text."""

from __future__ import annotations

from datetime import date, datetime, time

from beatd.epoch import EPOCH, from_ms, in_range, to_ms
from beatd.exceptions import ScheduleError
from beatd.schedules.literals import quoted, shown
from beatd.schedules.zone import Zone


class OutOfRange(ScheduleError):
    """A moment outside of the years that can be written."""


def instant_ms(value: object, zone: Zone, what: str) -> int:
    """Milliseconds since the epoch. A naive value is the wall time of ``zone``: one in a gap is moved to its end, one
    that is shown twice is the first. Raises ScheduleError that names ``what``, also outside of the years 1970 to 9998
    in UTC."""
    moment = _read(value, what)
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


def _read(value: object, what: str) -> datetime:
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
