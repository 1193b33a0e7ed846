"""``OnCalendar`` of systemd timers as a schedule of beatd, where it means exactly the same.

Only a time that a clock change skips is another: systemd leaves it out. Grammar: systemd.time(7). Weekday *and* day of
the month must match there, as in Celery's tables; so a schedule with both becomes such a table.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from zoneinfo import available_timezones

_ALIASES = {
    "minutely": "*-*-* *:*:00", "hourly": "*-*-* *:00:00", "daily": "*-*-* 00:00:00", "monthly": "*-*-01 00:00:00",
    "weekly": "Mon *-*-* 00:00:00", "yearly": "*-01-01 00:00:00", "annually": "*-01-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00", "semiannually": "*-01,07-01 00:00:00",
}  # fmt: skip
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NUMBERS = {"month": (1, 12), "day": (1, 31), "hour": (0, 23), "minute": (0, 59), "second": (0, 59)}
_PART = re.compile(r"(\*|\d{1,4})(?:\.\.(\d{1,4}))?(?:/(\d{1,4}))?")


def schedule_of(text: str) -> tuple[Any, str | None]:
    """Return the schedule and its time zone, None for that of the machine. Raises ValueError with the reason."""
    words = text.split()
    if not words:
        raise ValueError("it is empty")
    zone = None
    if len(words) > 1 and (words[-1] == "UTC" or words[-1] in available_timezones()):
        zone = words.pop()
    words = _ALIASES.get(" ".join(words).lower(), " ".join(words)).split()
    days = _weekdays(words.pop(0)) if words and words[0][:3].lower() in _DAYS else "*"
    date = next((word for word in words if "-" in word or "~" in word), "*-*-*")
    time = next((word for word in words if ":" in word), "00:00:00")
    if len(words) != (date in words) + (time in words):
        raise ValueError(f'"{text[:60]}" is no calendar event that is known')
    year, month, day = _date(date)
    hour, minute, second = _time(time)
    if year != "*":
        return _once([year, month, day, hour, minute, second], days), zone
    return _recurring(days, [month, day, hour, minute, second]), zone


def _once(parts: list[str], days: str) -> dict[str, Any]:
    if days != "*" or not all(part.isdigit() for part in parts):
        raise ValueError("a year has no field in a cron string: use start and end")
    year, month, day, hour, minute, second = map(int, parts)
    return {"at": datetime(year, month, day, hour, minute, second)}  # noqa: DTZ001 - on the clocks of the entry's zone


def _recurring(days: str, parts: list[str]) -> Any:
    is_last = parts[1] == "L"
    month, day, hour, minute, second = (
        part if part == "L" else _field(part, name) for part, name in zip(parts, _NUMBERS, strict=True)
    )
    if days == "*" or day == "*":
        times = f"{minute} {hour} {day} {month} {days}"
        return times if second == "0" else f"{second} {times}"
    if second != "0" or is_last:
        raise ValueError("weekday, day of the month and seconds (or a last day) together have no counterpart")
    table = {"minute": minute, "hour": hour, "day_of_month": day, "month_of_year": month, "day_of_week": days}
    return {name: value for name, value in table.items() if value != "*" or name == "minute"}


def _date(text: str) -> tuple[str, str, str]:
    if "~" in text:
        before, _, last = text.partition("~")
        if last.lstrip("0") != "1":
            raise ValueError(f'"~{last}": days counted from the end of the month have no counterpart, but for the last')
        return (*_of_three([*before.split("-"), "L"]),)
    return _of_three(text.split("-"))


def _of_three(parts: list[str]) -> tuple[str, str, str]:
    parts = ["*", *parts] if len(parts) == 2 else parts
    if len(parts) != 3:
        raise ValueError(f'"{"-".join(parts)}": expected year-month-day')
    year, month, day = parts
    if year != "*" and not year.isdigit():
        raise ValueError(f'the year "{year}" has no field in a cron string: use start and end')
    return year, month, day


def _time(text: str) -> tuple[str, str, str]:
    parts = text.split(":")
    if len(parts) == 2:
        parts.append("00")
    if len(parts) != 3:
        raise ValueError(f'"{text}": expected hour:minute:second')
    if "." in parts[2].replace("..", ""):
        raise ValueError("fractions of a second have no counterpart in a cron string")
    return parts[0], parts[1], parts[2]


def _weekdays(text: str) -> str:
    found = []
    for part in text.rstrip(",").split(","):
        ends = part.replace("..", "-").split("-") if part else []
        numbers = [_weekday(end) for end in ends]
        if len(numbers) not in (1, 2):
            raise ValueError(f'"{text}": expected weekdays such as Mon..Fri')
        found.append("-".join(_DAYS[number] for number in numbers))
    return ",".join(found)


def _weekday(text: str) -> int:
    word = text.strip().lower()
    whole = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    if word in _DAYS:
        return _DAYS.index(word)
    if word in whole:
        return whole.index(word)
    raise ValueError(f'"{text}" is no weekday')


def _field(text: str, name: str) -> str:
    """A component as a field of a cron string: ``9..17`` is ``9-17``, ``0/15`` is ``*/15``."""
    low, high = _NUMBERS[name]
    return ",".join(_part(part, name, low, high) for part in text.split(","))


def _part(part: str, name: str, low: int, high: int) -> str:
    found = _PART.fullmatch(part)
    if found is None:
        raise ValueError(f'{name} "{part}" has no counterpart')
    first, last, step = found[1], found[2], found[3]
    if step is not None and int(step) == 0:
        raise ValueError(f'{name} "{part}": a step of 0')
    if first == "*":
        return f"*/{int(step)}" if step else "*"
    numbers = [int(first), int(last) if last else int(first)]
    if not low <= numbers[0] <= numbers[1] <= high:
        raise ValueError(f'{name} "{part}" is out of range: {low} to {high}')
    if step is None:
        return f"{numbers[0]}-{numbers[1]}" if last else str(numbers[0])
    end = numbers[1] if last else high
    if numbers[0] + int(step) > end:
        return str(numbers[0])
    return f"*/{int(step)}" if (numbers[0], end) == (low, high) else f"{numbers[0]}-{end}/{int(step)}"
