"""Comparison with croniter: where a user of croniter, or of a program built on it, would be surprised by a cron string.

It is for ``check`` and ``explain`` alone: croniter never decides when a run is due. Times of day are compared as sets,
days by the next ones on the calendar, each pattern once. A string that croniter refuses has no other meaning there.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import islice

from beatd.schedules import parse
from beatd.schedules.cron import HOUR, MINUTE, values_of
from beatd.schedules.cron_parser import ALIASES, read_field
from beatd.timestamps import from_ms, to_ms

_CACHED = 4096
_DAYS_COMPARED = 40
_LONGEST_TEXT = 200
_FIRST = datetime(2027, 12, 31, tzinfo=UTC)
"""The days compared begin in a leap year."""


def differences(text: str, *, with_seconds: bool = True) -> Iterator[str]:
    """Sentences that tell where croniter reads a cron string in another way; without them it reads it as beatd does.

    ``with_seconds`` also tells of the order of six fields, which a schedule that was written for beatd means as it is.
    """
    fields = ALIASES.get(text.strip().lower(), text).lower().split()
    if len(fields) not in {5, 6} or len(text) > _LONGEST_TEXT:
        return
    if len(fields) == 6 and with_seconds:
        yield f'croniter reads the last of six fields as the seconds: "{" ".join([*fields[1:], fields[0]])}" there'
    minute, hour, *days = fields[-5:]
    for part, field in ((minute, MINUTE), (hour, HOUR)):
        if theirs := _other_values(part, 0 if field is MINUTE else 1):
            yield f'croniter reads {field.name} "{part}" as "{theirs}"'
    if other := _other_days(*days):
        yield other


@lru_cache(maxsize=_CACHED)
def _other_values(part: str, column: int) -> str:
    """Values that croniter reads in a field of minutes (0) or hours (1), if they are not ours."""
    from croniter import croniter  # noqa: PLC0415 - slow to import, and only for people who ask

    field = (MINUTE, HOUR)[column]
    columns = ["0", "0", "*", "*", "*"]
    columns[column] = part
    try:
        expanded, _ = croniter.expand(" ".join(columns))
    except (ValueError, KeyError):
        return ""
    theirs = range(field.high + 1) if expanded[column] == ["*"] else expanded[column]
    if sorted(theirs) == list(values_of(read_field(part, field))):
        return ""
    return ",".join(map(str, theirs))


@lru_cache(maxsize=_CACHED)
def _other_days(day_of_month: str, month: str, day_of_week: str) -> str:
    """The first day on which only one of both runs, and why where that is known."""
    from croniter import croniter  # noqa: PLC0415 - slow to import, and only for people who ask

    text = f"0 0 {day_of_month} {month} {day_of_week}"
    try:
        walk = croniter(text, _FIRST)
        theirs = [walk.get_next(datetime).date() for _ in range(_DAYS_COMPARED)]
    except (ValueError, KeyError):
        return ""
    ours = list(islice(_days(text), _DAYS_COMPARED))
    end = min(ours[-1:] + theirs[-1:], default=date.max)
    only = sorted(day for day in set(ours) ^ set(theirs) if day <= end)
    if not only:
        return ""
    who = "beatd runs" if only[0] in ours else "croniter runs"
    fact = f'croniter reads the days "{day_of_month} {month} {day_of_week}" in another way: only {who} on {only[0]}'
    if "*" in (day_of_month[0], day_of_week[0]) and "*" not in (day_of_month, day_of_week):
        return f"{fact}; there either the day of the month or the weekday suffices, here both must match"
    return fact


def _days(text: str) -> Iterator[date]:
    schedule = parse(text, timezone="UTC", name="")
    due_ms = schedule.next_after_ms(to_ms(_FIRST))
    while due_ms is not None:
        yield from_ms(due_ms).date()
        due_ms = schedule.next_after_ms(due_ms)
