"""Cron strings: five fields, or six with the seconds first, ``@aliases``, and ``H`` for "spread these out".

The grammar of one field: ``*``, ``5``, ``mon``, ``1-5``, ``22-2``, ``*/15``, ``1,13,30-45/5``. A field becomes a mask:
bit ``v`` is set when value ``v`` matches. Celery's tables and cron strings share this grammar.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b

from beatd.exceptions import ScheduleError
from beatd.schedules.cron import (
    CACHED,
    DAY_OF_MONTH,
    DAY_OF_WEEK,
    HOUR,
    LAST,
    MINUTE,
    MONTH,
    SECOND,
    Cron,
    CronField,
    Days,
    Dst,
    cron,
    days,
)
from beatd.schedules.literals import or_list, quoted, shown
from beatd.schedules.timezone import zone

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = (SECOND, MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)
_ORDER = "minute hour day-of-month month day-of-week"

_LONGEST_TEXT = 500
"""Characters of a text that croniter is asked about."""

_HASHED = re.compile(r"[hr](?:\((\d+)-(\d+)\))?(?:/(\d+))?")
_ANY_HASHED = re.compile(r"(?:^|[\s,'\"])[hr](?:$|[\s,/('\"])", re.IGNORECASE)
_NEAREST = re.compile(r"(\d{1,2})w|w(\d{1,2})")
_NTH = re.compile(r"([a-z]+|\d+)#(.*)")
_LAST_DAY = re.compile(r"l([0-7]|[a-z]{3,9})|([0-7]|[a-z]{3,9})l")


def read_cron(text: str, timezone: str, name: str, dst: Dst) -> Cron:
    """The schedule of a cron string. Raises ScheduleError with the whole text, the field and the near right value."""
    where = zone(timezone)
    try:
        fields = _split(text.strip().lower(), name)
        seconds, minutes, hours = (read_field(part, field) for part, field in zip(fields, FIELDS[:3], strict=False))
        return cron(
            _notation(text, fields),
            _read_days(*fields[3:]),
            seconds=seconds,
            minutes=minutes,
            hours=hours,
            fixed=not (fields[1].startswith("*") or fields[2].startswith("*")),
            zone=where,
            dst=dst,
            hashed=is_hashed(text),
        )
    except ScheduleError as error:
        raise ScheduleError(f"{quoted(text)}: {error}{_elsewhere(text)}") from None


def is_hashed(text: str) -> bool:
    """True if the text has an ``H`` or ``R`` field, so that its meaning depends on the entry's name."""
    return _ANY_HASHED.search(text) is not None


def is_named(schedule: object) -> bool:
    """True if a notation depends on the name of its entry, as an ``H`` in a cron string does; also in a list."""
    match schedule:
        case str():
            return is_hashed(schedule)
        case Mapping():
            return any(map(is_named, schedule.values()))
        case list() | tuple():
            return any(map(is_named, schedule))
    return False


def _split(text: str, name: str) -> list[str]:
    """The six fields, with aliases and ``H`` resolved."""
    if text.startswith("@"):
        text = _alias(text)
    fields = text.split()
    if fields and fields[0].startswith(("cron_tz=", "tz=")):
        raise ScheduleError('a time zone is not part of a cron string; set timezone = "Europe/Berlin" beside schedule')
    if len(fields) == 5:
        fields.insert(0, "0")
    if len(fields) != 6:
        more = "; a year field is not supported, use start and end of the entry" if len(fields) == 7 else ""
        raise ScheduleError(f"{len(fields)} fields, expected 5 ({_ORDER}) or 6 (second first){more}")
    for part, field in zip(fields, FIELDS, strict=True):
        _refuse_foreign(part, field)
    if is_hashed(text):
        fields = [_unhash(part, field, name) for part, field in zip(fields, FIELDS, strict=True)]
    return fields


def _refuse_foreign(part: str, field: CronField) -> None:
    """Refuse what other programs read, with what to write instead."""
    if "~" in part:
        raise fault(part, field, 'a random value with "~" is not supported; write "H" or "H(0-29)", spread by name')
    if field is DAY_OF_MONTH and re.search(r"\bl-\d", part):
        raise fault(part, field, 'days before the last one are not supported; write "L", or a day such as "28"')
    if "?" in part and not (part == "?" and field in (DAY_OF_MONTH, DAY_OF_WEEK)):
        raise fault(part, field, '"?" stands alone, in day_of_month or day_of_week; write "*"')


def _alias(text: str) -> str:
    if (fields := ALIASES.get(text)) is not None:
        return fields
    if text == "@reboot":
        raise ScheduleError('@reboot is not supported; for one run at a set time write { at = "2026-12-31T23:59:00" }')
    near = difflib.get_close_matches(text, ALIASES, n=1)
    raise ScheduleError(f"unknown alias; {f'did you mean {near[0]}?' if near else 'expected ' + or_list(ALIASES)}")


def _elsewhere(text: str) -> str:
    """Return croniter's reading of a refused text, so that the error can say what ran before a migration."""
    from croniter import croniter  # noqa: PLC0415 - slow to import, and needed only for an error

    fields = text.lower().split()
    if len(text) > _LONGEST_TEXT:
        return ""
    try:
        expanded, nth = croniter.expand(text, second_at_beginning=True)
    except ValueError:
        return ""
    read = [",".join(map(str, values)) for values in expanded]
    return f' (croniter reads "{" ".join(read)}")' if len(fields) < 7 and not nth and read != fields else ""


def _notation(text: str, fields: list[str]) -> str:
    """The written text with ``H`` replaced by its value, because the entry's name is not part of the text."""
    if not is_hashed(text):
        return " ".join(text.split())
    return " ".join(fields if len(text.split()) == 6 else fields[1:])


def _unhash(text: str, field: CronField, name: str) -> str:
    parts = text.split(",")
    return ",".join(_hashed(found, field, name) if (found := _HASHED.fullmatch(part)) else part for part in parts)


def _hashed(found: re.Match[str], field: CronField, name: str) -> str:
    """``H``, ``H(0-29)``, ``H/15``, ``H(0-29)/10``: a value, or a first value of steps, by a hash of the entry's name.

    Without a range the day of month stays below 29, so that there is a run every month (as Jenkins does).
    """
    low, high = field.low, 28 if field is DAY_OF_MONTH else field.high
    if found[1]:
        low, high = as_number(found[1]), as_number(found[2])
        if not field.low <= low <= high <= field.high:
            raise fault(
                found[0].upper(), field, f"the range of H has to lie within {field.low} to {field.high}, low end first"
            )
    step, most = as_number(found[3]) if found[3] else 0, min(high - low + 1, field.high)
    if found[3] and not 0 < step <= most:
        raise fault(found[0].upper(), field, f"the step has to be between 1 and {most}")
    digest = int.from_bytes(blake2b(f"{field.name}:{name}".encode(), digest_size=8).digest())
    value = low + digest % (step or high - low + 1)
    return f"{value}-{high}/{step}" if step else str(value)


@lru_cache(maxsize=CACHED)
def _read_days(dom_text: str, month_text: str, dow_text: str) -> Days:
    dom_text, dow_text = ("*" if part == "?" else part for part in (dom_text, dow_text))
    dom, near, last = 0, [], False
    for part in dom_text.split(","):
        if part == "l":
            last = True
        elif part == "lw":
            near.append(LAST)
        elif found := _NEAREST.fullmatch(part):
            near.append(_nearest(int(found[1] or found[2]), dom_text))
        else:
            dom |= read_field(part, DAY_OF_MONTH)
    dow, nth = 0, []
    for part in dow_text.split(","):
        if found := _NTH.fullmatch(part):
            nth.append((_weekday(found[1]), _which(found[2], dow_text)))
        elif part == "l":
            raise fault(dow_text, DAY_OF_WEEK, 'L needs a weekday: "L5" is the last Friday of the month')
        elif found := _LAST_DAY.fullmatch(part):
            nth.append((_weekday(found[1] or found[2]), LAST))
        else:
            dow |= read_field(part, DAY_OF_WEEK)
    # Debian cron: a field that starts with a star does not restrict, so that the other one decides alone or both must
    # match; of two restricting ones either suffices.
    either = not (dom_text.startswith("*") or dow_text.startswith("*"))
    months = read_field(month_text, MONTH)
    return days(dom, months, dow, last=last, near=tuple(near), nth=tuple(nth), either=either)


def _nearest(day: int, text: str) -> int:
    if not 1 <= day <= 31:
        raise fault(text, DAY_OF_MONTH, f"{day} is out of range; {DAY_OF_MONTH.name} goes from 1 to 31")
    return day


def _weekday(text: str) -> int:
    return read_field(text, DAY_OF_WEEK).bit_length() - 1


def _which(text: str, field_text: str) -> int:
    if text == "l":
        return LAST
    if text not in ("1", "2", "3", "4", "5"):
        raise fault(field_text, DAY_OF_WEEK, f'"#{text}": a month has the first to the fifth of a weekday, #1 to #5')
    return int(text)


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
