"""Phrases: a schedule in plain words, from its meaning; so equal schedules have the same words, however written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from beatd.schedules import Schedule, duration_text
from beatd.schedules.cron import DAY_OF_MONTH, LAST, MONTH, Cron, Days, values_of
from beatd.schedules.interval import Interval, Relative
from beatd.schedules.schedule import Once, Union
from beatd.schedules.solar import Solar
from beatd.timestamps import from_ms

WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS = (
    "", "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_ORDINALS = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", LAST: "last"}
_SUFFIXES = {2: "nd", 3: "rd"}
_TIMES_SHOWN = 6
"""Times of day that are listed one by one."""


def in_words(schedule: Schedule) -> str:
    """``every day at 07:30, Europe/Berlin``; of a union all parts."""
    match schedule:
        case Cron():
            zone = "" if schedule.zone.is_utc else f", {schedule.zone.name} time"
            return f"{_times(schedule)}{_days(schedule.days)}{zone}"
        case Interval(every_ms, phase_ms):
            since = "when the entry is first seen" if phase_ms is None else f"{_moment(phase_ms)} on"
            return f"every {duration_text(every_ms)}, counted from {since}"
        case Relative():
            unit = {86_400_000: "day", 3_600_000: "hour", 60_000: "minute"}.get(schedule.unit_ms, "second")
            return f"{duration_text(schedule.every_ms)} after the last run, rounded down to the {unit}"
        case Once(at_ms):
            return f"once, at {_moment(at_ms)}"
        case Solar(event, lat, lon):
            return f"every day at {event.replace('_', ' ')} at latitude {lat:g}, longitude {lon:g}"
        case Union(parts):
            return "; and ".join(map(in_words, parts))
    return str(schedule.notation)


def _moment(ms: int) -> str:
    moment = from_ms(ms)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if ms % 60_000 else f"{moment:%Y-%m-%d %H:%M} UTC"


def _values(table: bytes) -> list[int]:
    """The values of a table of next values."""
    return [value for value in range(len(table) - 1) if table[value] == value]


def _times(cron: Cron) -> str:
    seconds, minutes, hours = _values(cron.seconds), _values(cron.minutes), _values(cron.hours)
    if len(seconds) * len(minutes) * len(hours) <= _TIMES_SHOWN:
        clocks = [
            f"{hour:02}:{minute:02}" + (f":{second:02}" if seconds != [0] else "")
            for hour, minute, second in product(hours, minutes, seconds)
        ]
        return f"at {_listed(clocks)}"
    parts = []
    if seconds != [0]:
        parts.append(_unit(seconds, 60, "second", "minute"))
    if not parts:
        parts.append(_unit(minutes, 60, "minute", "hour"))
    elif len(minutes) < 60:
        parts.append(_of_minutes(minutes))
    elif parts[0].startswith("at"):
        parts.append("every minute")
    clock = " of ".join(parts)
    if len(hours) == 24:
        return f"{clock} of every hour" if parts[-1].startswith(("at", "minute")) else clock
    if _is_even(hours, 24):
        return f"{clock}, in every {_nth(hours[1])} hour from 00 on"
    return f"{clock}, in the hour{'s' if hours[1:] else ''} {_ranges(hours, '{:02}'.format)}"


def _unit(values: Sequence[int], size: int, name: str, outer: str) -> str:
    """``every minute``, ``every 15 minutes``, ``at minute 5``; a step that does not divide says where it begins."""
    if len(values) == size:
        return f"every {name}"
    if _is_even(values, size):
        return f"every {values[1] - values[0]} {name}s"
    if (step := _step(values, size)) and values[0] == 0:
        numbers = f"{', '.join(map(str, values[:3]))}, … {values[-1]}"
        return f"every {step} {name}s from the start of each {outer} ({name}s {numbers})"
    return f"at {name}{'s' if values[1:] else ''} {_ranges(values, str)}"


def _of_minutes(minutes: Sequence[int]) -> str:
    """The minutes in which there are several seconds, or one that is named."""
    if _is_even(minutes, 60):
        return f"every {_nth(minutes[1])} minute"
    return _unit(minutes, 60, "minute", "hour").removeprefix("at ")


def _nth(step: int) -> str:
    """``2nd``, ``15th``: of a step that divides an hour or a day."""
    return f"{step}{_SUFFIXES.get(step, 'th')}"


def _is_even(values: Sequence[int], size: int) -> bool:
    """True if the values go on with the same step over the end of the field."""
    step = _step(values, size)
    return step > 1 and size % step == 0 and values[0] == 0


def _step(values: Sequence[int], size: int) -> int:
    """The step of three values or more that run to the end of the field; 0 if they have none."""
    if len(values) < 3:
        return 0
    step = values[1] - values[0]
    return step if step > 1 and list(values) == list(range(values[0], size, step)) else 0


def _days(days: Days) -> str:
    months = values_of(days.months)
    in_months = "" if days.months == MONTH.full else f" in {_ranges(months, MONTHS.__getitem__)}"
    of_month, of_week = _days_of_month(days), _days_of_week(days)
    if days.any_dom and days.any_dow:
        return f" every day{in_months}" if in_months else ", every day"
    if days.any_dow:
        return f" {of_month}{in_months}"
    if days.any_dom:
        return f" {of_week}{in_months}"
    if days.either:
        return f" {of_month} and also {of_week}{in_months}"
    return f" {of_month}, if that is {of_week.removeprefix('on ')},{in_months}".removesuffix(",")


def _days_of_month(days: Days) -> str:
    parts = []
    if numbers := values_of(days.dom & DAY_OF_MONTH.full):
        parts.append(f"day{'s' if numbers[1:] else ''} {_ranges(numbers, str)}")
    if days.last:
        parts.append("the last day")
    parts += [
        "the last weekday (Monday to Friday)" if day == LAST else f"the weekday nearest to day {day}"
        for day in days.near
    ]
    return f"on {_listed(parts)} of the month"


def _days_of_week(days: Days) -> str:
    parts = []
    if numbers := values_of(days.dow):
        if 0 in numbers and 1 not in numbers:  # the week of people ends with Sunday
            numbers = [*numbers[1:], 7]
        parts.append(_ranges(numbers, lambda number: WEEKDAYS[number % 7]))
    parts += [f"the {_ORDINALS.get(n, f'{n}th')} {WEEKDAYS[day]} of the month" for day, n in days.nth]
    return f"on {_listed(parts)}"


def _ranges(values: Sequence[int], name: Callable[[int], str]) -> str:
    """``1, 3 to 5 and 9``: three in a row or more are a range."""
    runs: list[list[int]] = []
    for value in values:
        if runs and runs[-1][-1] == value - 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    parts: list[str] = []
    for run in runs:
        parts += [f"{name(run[0])} to {name(run[-1])}"] if len(run) > 2 else [name(value) for value in run]
    return _listed(parts)


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if parts[1:] else parts[0]
