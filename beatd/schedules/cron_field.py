"""The grammar of one cron field: ``*``, ``5``, ``mon``, ``1-5``, ``22-2``, ``*/15``, ``1,13,30-45/5``.

A field becomes a mask: bit ``v`` is set when value ``v`` matches. Celery's tables and cron strings share this grammar.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from functools import lru_cache

from beatd.exceptions import ScheduleError
from beatd.schedules.literals import quoted, shown

#: How many distinct fields, tables and sets of days are remembered: far more than any file has.
CACHED = 16_384

_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip


def _prefixes(names: Iterable[str], first: int) -> dict[str, int]:
    """Each name by its first three letters or more: sun, tues, thurs, sept, monday."""
    return {name[:length]: value for value, name in enumerate(names, first) for length in range(min(3, len(name)), 10)}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class CronField:
    """One column of a cron line: its name, its lowest and highest value, its names for values."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def full(self) -> int:
        """The mask of all values."""
        return (1 << (self.high + 1)) - (1 << self.low)


SECOND = CronField("second", 0, 59)
MINUTE = CronField("minute", 0, 59)
HOUR = CronField("hour", 0, 23)
DAY_OF_MONTH = CronField("day_of_month", 1, 31)
MONTH = CronField("month_of_year", 1, 12, _prefixes(_MONTHS, 1))
DAY_OF_WEEK = CronField("day_of_week", 0, 6, _prefixes(_WEEKDAYS, 0))


@lru_cache(maxsize=CACHED)
def read_field(text: str, field: CronField, *, celery: bool = False) -> int:
    """The mask of a field's text. Raises ScheduleError with the field, the fault and the near right value.

    ``celery`` reads it as Celery does: a step may exceed the range (``*/90`` minutes is just minute 0), and needs a
    range; elsewhere ``5/15`` is ``5-59/15``, as in Quartz, robfig/cron, croniter and Kubernetes.
    """
    mask = 0
    for part in text.split(","):
        mask |= _read_part(part.strip().lower(), text, field, celery)
    return mask


def mask_of(values: Iterable[int], field: CronField) -> int:
    """The mask of plain numbers; Sunday may be 7."""
    mask = 0
    for value in values:
        number = _in_range(value, shown(value), field)
        mask |= 1 << (0 if field is DAY_OF_WEEK and number == 7 else number)
    return mask


def values_of(mask: int) -> list[int]:
    """The values of a mask, ascending."""
    return [value for value in range(mask.bit_length()) if mask >> value & 1]


@lru_cache(maxsize=CACHED)
def render(mask: int, field: CronField) -> str:
    """The shortest plain text of a mask: ``*``, or numbers and ranges; never a step, whose star would mean more."""
    if mask == field.full:
        return "*"
    runs: list[list[int]] = []
    for value in values_of(mask):
        if runs and runs[-1][1] == value - 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


NONE = 255


@lru_cache(maxsize=CACHED)
def next_table(mask: int, size: int) -> bytes:
    """``table[i]`` is the smallest value of the mask that is >= i, or NONE; for i from 0 to ``size`` inclusive."""
    table = bytearray([NONE]) * (size + 1)
    for i in range(size - 1, -1, -1):
        table[i] = i if mask >> i & 1 else table[i + 1]
    return bytes(table)


def fault(text: str, field: CronField, why: str) -> ScheduleError:
    """The error of one field, in the words that all of them share."""
    return ScheduleError(
        f"{field.name} {quoted(text)}: {why if len(why) < _LONGEST_REASON else why[:_LONGEST_REASON] + '…'}"
    )


_LONGEST_REASON = 300


def _read_part(part: str, text: str, field: CronField, celery: bool) -> int:
    if not part:
        raise fault(text, field, "an empty part; values are separated by single commas, without spaces")
    base, slash, step_text = part.partition("/")
    if base == "*":
        values = list(range(field.low, field.high + 1))
    elif "-" in base:
        values = _read_range(base, text, field)
    else:
        values = [_number(base, text, field)]
        if slash and celery:
            right = f"{base}-{field.high}/{step_text or 'n'}" if values[0] < field.high else base
            raise fault(text, field, f'a step needs a range; write "{right}"')
        if slash:
            values = list(range(values[0], max(values[0], field.high) + 1))
    if slash:
        values = values[:: _step(step_text, text, field, celery)]
    mask = 0
    for value in values:
        mask |= 1 << value
    if field is DAY_OF_WEEK:  # Sunday is 0 and 7
        mask = (mask | mask >> 7) & field.full
    return mask


def _read_range(base: str, text: str, field: CronField) -> list[int]:
    ends = base.split("-")
    if len(ends) != 2 or not all(ends):
        raise fault(text, field, f'"{base}" is not a range; a range has two ends, as in "{_example(field)}"')
    first, last = (_number(end, text, field) for end in ends)
    if first <= last:
        return list(range(first, last + 1))
    if field is DAY_OF_WEEK and first == 7:
        return list(range(last + 1))
    return [*range(first, field.high + 1), *range(field.low, last + 1)]


def _step(step: str, text: str, field: CronField, long_steps: bool) -> int:
    size = as_number(step) if step.isascii() and step.isdigit() else 0
    if not size:
        raise fault(text, field, f'"/{step}" is not a step; a step is a whole number from 1 on, as in "*/5"')
    if size > field.high and not long_steps:
        raise fault(
            text, field, f'a step of {step} never comes to a second value, {field.name} goes from {field.low} to '
            f'{field.high}; for other periods use an interval such as "every 90m"'
        )  # fmt: skip
    return size


def as_number(digits: str) -> int:
    """The number of these digits; of a very long one only the first ten, as all of those are out of range."""
    return int(digits.lstrip("0")[:10] or "0")


def _number(word: str, text: str, field: CronField) -> int:
    if word.isascii() and word.isdigit():
        return _in_range(as_number(word), text, field)
    if (value := field.names.get(word)) is not None:
        return value
    near = difflib.get_close_matches(word, [name for name in field.names if len(name) == 3], cutoff=0.5)
    near.sort(key=lambda name: name[0] != word[0])
    hint = f'; did you mean "{near[0]}"?' if near else f"; {_limits(field)}"
    raise fault(text, field, f'"{word}" is not a {field.name.replace("_", " ")}{hint}')


def _in_range(value: int, text: str, field: CronField) -> int:
    high = 7 if field is DAY_OF_WEEK else field.high
    if not field.low <= value <= high:
        raise fault(text, field, f"{shown(value)} is out of range; {_limits(field)}")
    return value


def _limits(field: CronField) -> str:
    limits = f"{field.name} goes from {field.low} to {field.high}"
    if field is DAY_OF_WEEK:
        return f"{limits} (0 and 7 are Sunday) or sun to sat"
    return f"{limits} or jan to dec" if field.names else limits


def _example(field: CronField) -> str:
    return {"day_of_week": "mon-fri", "month_of_year": "nov-feb"}.get(field.name, f"{field.low}-{field.high}")
