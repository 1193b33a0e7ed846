"""Readers of single values: the values that a setting may have, and the words for those that it may not.

The second half reads what goes into a message: arguments, headers and signatures, which JSON with Celery's marks can
carry.

A reader takes the raw value and the time zone that naive times are read in, and returns what the struct holds. It
raises :class:`InvalidValue` (or ScheduleError, from the readers in :mod:`beatd.schedules`) with the reason.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from datetime import timezone as fixed_zone
from decimal import Decimal
from typing import Any
from uuid import UUID

from beatd.config import schema_types
from beatd.config.errors import near
from beatd.config.schema_types import CARRIED, CARRIED_TABLE, SIGNATURE, accepts, either, list_of, matching, or_variable
from beatd.config.toml import Substituted, plain, truth
from beatd.config.toml_lines import KeyPath
from beatd.message.protocol import HEADER_NAMES
from beatd.schedules import duration_ms, zone
from beatd.schedules.duration import wall_ms
from beatd.schedules.literals import or_list, quoted
from beatd.schedules.literals import shown as literal_shown
from beatd.timestamps import from_ms, in_range, to_ms


def size_text(size: int) -> str:
    """Bytes, rounded as people say them."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} B"


Reader = Callable[[Any, str], Any]

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SIZE = re.compile(r"^([0-9]{1,12})\s*((?:[kKmMgG]i?)?[bB])?$")
_BYTES = {"b": 1, "kb": 10**3, "kib": 1 << 10, "mb": 10**6, "mib": 1 << 20, "gb": 10**9, "gib": 1 << 30}
_INSTANT = re.compile(r"\s*\d{4}-\d\d-\d\d")


MOST = 2**53 - 1
"""The largest whole number that JSON, Lua and Python all hold exactly."""


class InvalidValue(ValueError):
    """A value that cannot be used; the text says why and what would be right, and never what a variable stands for.

    ``inside`` are the keys from the value to the part of it that is meant.
    """

    inside: KeyPath = ()


def shown(value: object) -> str:
    """A value as messages show it: as TOML has it, short, and with variables unresolved."""
    return quoted(value.written) if isinstance(value, Substituted) else literal_shown(value)


@accepts(schema_types.TEXT)
def text(value: Any, _zone: str = "") -> str:
    """Text of at least one character, none of them a control character."""
    if not isinstance(value, str):
        raise InvalidValue(f"expected a string, got {shown(value)}")
    if not value.strip():
        raise InvalidValue("expected a non-empty string")
    if CONTROL.search(value):
        raise InvalidValue(f"{shown(value)} contains a control character")
    return str(value)


@accepts(or_variable({"type": "boolean"}))
def flag(value: Any, _zone: str = "") -> bool:
    """true or false; from a variable also as text."""
    flag = truth(value)
    if not isinstance(flag, bool):
        raise InvalidValue(f"expected true or false, got {shown(value)}")
    return flag


def whole(least: int, most: int = MOST) -> Reader:
    """A whole number within bounds; from a variable also as text."""
    bounds = f"from {least} to {most}" if most < MOST else f"of at least {least}"

    @accepts(or_variable(schema_types.number(least, most, "integer")))
    def reader(value: Any, _zone: str = "") -> int:
        number = int(value) if isinstance(value, Substituted) and re.fullmatch(r"-?[0-9]{1,18}", value) else value
        if isinstance(number, bool) or not isinstance(number, int):
            raise InvalidValue(f"expected a whole number {bounds}, got {shown(value)}")
        if number > MOST:
            raise InvalidValue(f"{shown(value)} is too large: expected at most {min(most, MOST)}")
        if not least <= number <= most:
            raise InvalidValue(f"expected a whole number {bounds}, got {shown(value)}")
        return number

    return reader


def choice(*known: str) -> Reader:
    """One of some words."""
    names = or_list([quoted(word) for word in known])

    @accepts(or_variable({"enum": list(known)}))
    def reader(value: Any, _zone: str = "") -> str:
        if not isinstance(value, str) or value not in known:
            hint = near(value, known) if isinstance(value, str) and not isinstance(value, Substituted) else ""
            raise InvalidValue(f"expected {names}, got {shown(value)}{hint}")
        return str(value)

    return reader


def duration(least_ms: int = 0) -> Reader:
    """A length of time in milliseconds: from seconds, ``"1h30m"``, ``"PT30S"`` or a timedelta."""

    @accepts(schema_types.duration(least_ms))
    def reader(value: Any, _zone: str = "") -> int:
        ms = duration_ms(plain(value))
        if ms < least_ms:
            raise InvalidValue(f"expected a duration of at least {least_ms} ms, got {shown(value)}")
        return ms

    return reader


def size(least: int, most: int) -> Reader:
    """A number of bytes: ``65536``, ``"64KiB"``, ``"1MB"``."""

    @accepts(or_variable(either(schema_types.number(least, most, "integer"), matching(_SIZE.pattern))))
    def reader(value: Any, _zone: str = "") -> int:
        written = value if isinstance(value, str) else shown(value)
        found = _SIZE.fullmatch(written) if isinstance(value, str | int) and not isinstance(value, bool) else None
        if found is None:
            raise InvalidValue(f'expected a number of bytes or a size such as "64KiB" or "1MB", got {shown(value)}')
        number = int(found[1]) * _BYTES[(found[2] or "b").lower()]
        if not least <= number <= most:
            raise InvalidValue(f"expected a size from {size_text(least)} to {size_text(most)}, got {shown(value)}")
        return number

    return reader


@accepts(schema_types.duration(1))
def seconds(value: Any, timezone: str = "") -> float:
    """A length of time in seconds, longer than nothing."""
    return float(duration(1)(value, timezone) / 1000)


@accepts(schema_types.MOMENT)
def moment(value: Any, timezone: str) -> datetime:
    """An instant, aware and in UTC. A naive time is one of ``timezone``, or the end of the gap of the clock in which it
    lies; a date is its midnight.
    """
    given = value
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise InvalidValue(
                f'expected a time such as 2026-12-31T23:59:00 or "2026-12-31", got {shown(given)}'
            ) from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise InvalidValue(f"expected a time such as 2026-12-31T23:59:00, got {shown(value)}")
    where = zone(timezone) if value.tzinfo is None else None
    if where is not None:
        value = value.replace(tzinfo=where.info)
    try:
        instant: datetime = value.astimezone(UTC)
        if where is not None and instant.astimezone(where.info) != value:
            instant = from_ms(wall_ms(value.replace(tzinfo=None), where))
    except OverflowError:
        instant = datetime.min.replace(tzinfo=UTC)
    if not in_range(to_ms(instant)):
        raise InvalidValue(f"{shown(given)} is out of range: expected a time in the years 1970 to 9998 (UTC)")
    return instant


@accepts(either({"enum": ["auto", "never"]}, *schema_types.duration(1)["anyOf"], schema_types.INSTANT))
def expires(value: Any, timezone: str) -> Any:
    """``"auto"``, ``"never"``, a length of time in milliseconds, or an instant."""
    if isinstance(value, str):
        if value in {"auto", "never"}:
            return "auto" if value == "auto" else None
        if _INSTANT.match(value):
            return moment(value, timezone)
        if value.strip().isalpha():
            raise InvalidValue(
                f'expected seconds, a duration such as "2h", a time, "auto" or "never", got {shown(value)}'
            )
    if isinstance(value, date):
        return moment(value, timezone)
    return duration(1)(value, timezone)


@accepts(or_variable(matching(r"^(?!posix/|right/)[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*$")))
def timezone(value: Any, _zone: str = "") -> str:
    """The IANA name of a time zone; never the host's own."""
    name = text(value)
    if name.casefold() in {"local", "localtime", "posixrules"} or name.startswith(("posix/", "right/", "/")):
        raise InvalidValue(
            f'expected an IANA name such as "Europe/Berlin", got {shown(value)}; the host\'s zone is never used'
        )
    zone(name)
    return name


_MOST_BITS = 13_287
"""4,000 digits: Python neither writes nor reads numbers of more than 4,300."""

_JSON_LIST, _JSON_TABLE = matching(r"^\s*\["), matching(r"^\s*\{")


def carried(value: Any) -> Any:
    """A value that goes into a message: as it is if JSON can carry it (times, dates and the like by Celery's marks)."""
    match value:
        case Substituted():
            return str(value)
        case int() if value.bit_length() > _MOST_BITS:
            raise InvalidValue("a number with more than 4,000 digits cannot be encoded as JSON")
        case None | bool() | str() | int() | date() | time() | UUID() | Decimal() | bytes():
            return _without_fold(value) if isinstance(value, datetime | time) else value
        case float():
            if not math.isfinite(value):
                raise InvalidValue(f"{value} cannot be encoded as JSON; expected a finite number")
            return value
        case list() | tuple() | set() | frozenset():
            return [_part(place, each) for place, each in enumerate(value)]
        case Mapping():
            return {_key(key): _part(key, each) for key, each in value.items()}
    if callable(getattr(value, "__json__", None)):
        return value
    raise InvalidValue(f"{shown(value)} cannot be encoded as JSON")


def _part(key: str | int, value: Any) -> Any:
    try:
        return carried(value)
    except InvalidValue as error:
        error.inside = (key, *error.inside)
        raise


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise InvalidValue(f"the key {shown(key)} cannot be encoded as JSON; expected a string")
    return key


def _without_fold(value: Any) -> Any:
    """The time as its text reads back: no fold, and the library's time zones, which can be copied and pickled."""
    value = value.replace(fold=0) if value.fold and value.tzinfo is None else value
    if not isinstance(value, datetime) or value.tzinfo is None or type(value.tzinfo).__module__ == "datetime":
        return value
    offset = value.utcoffset()
    return value.replace(tzinfo=fixed_zone(offset) if offset else UTC, fold=0)


@accepts(or_variable(either(list_of(CARRIED), _JSON_LIST)))
def arguments(value: Any, _zone: str = "") -> tuple[Any, ...]:
    """A list that JSON can carry, or JSON text of one, which can have null."""
    value = _parsed(value, "[", '"[null, 1]"')
    if not isinstance(value, list | tuple):
        raise InvalidValue(f"expected a list such as [16, 16], got {shown(value)}")
    return tuple(carried(value))


@accepts(or_variable(either(CARRIED_TABLE, _JSON_TABLE)))
def keywords(value: Any, _zone: str = "") -> dict[str, Any]:
    """A table that JSON can carry, or JSON text of one, which can have null."""
    return table(_parsed(value, "{", """'{"limit": null}'"""))


def _parsed(value: Any, start: str, example: str) -> Any:
    """Parse JSON text; return anything else unchanged."""
    if not isinstance(value, str) or not value.lstrip(" \t\r\n").startswith(start):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else "it cannot be parsed"
        raise InvalidValue(f"not JSON: {why}; expected text such as {example}, got {shown(value)}") from None


@accepts(CARRIED_TABLE)
def table(value: Any, _zone: str = "") -> dict[str, Any]:
    """A table that JSON can carry."""
    if not isinstance(value, Mapping):
        raise InvalidValue(f'expected a table such as {{ key = "value" }}, got {shown(value)}')
    result: dict[str, Any] = carried(value)
    return result


_SET_BY = {
    "eta": "countdown",
    "expires": "expires",
    "timelimit": "time_limit and soft_time_limit",
    "shadow": "shadow",
    "ignore_result": "ignore_result",
    "task": "task",
    "argsrepr": "args",
    "kwargsrepr": "kwargs",
}
"""What to set in the entry instead of a header of Celery's."""

RESERVED_HEADERS = HEADER_NAMES | {"compression", "periodic_task_name", "celery_beat_task"}
RESERVED_PREFIX = "beatd-"


_RESERVED = f"^(?:{RESERVED_PREFIX}.*|{'|'.join(sorted(RESERVED_HEADERS))})$"


@accepts(CARRIED_TABLE | {"propertyNames": {"not": {"pattern": _RESERVED}}})
def headers(value: Any, _zone: str = "") -> dict[str, Any]:
    """A table of headers of the user's own, with values of JSON."""
    if not isinstance(value, Mapping):
        raise InvalidValue(f'expected a table such as {{ tenant = "example" }}, got {shown(value)}')
    for name in value:
        if name in RESERVED_HEADERS or (isinstance(name, str) and name.startswith(RESERVED_PREFIX)):
            raise _reserved(name)
        _refuse_marked(value[name], (name,))
    result: dict[str, Any] = carried(value)
    return result


def _refuse_marked(value: Any, path: KeyPath) -> None:
    """Refuse values that need Celery's marks: those are for arguments, and brokers have no headers of these types."""
    if isinstance(value, date | time | UUID | Decimal | bytes):
        text = value.isoformat() if isinstance(value, date | time) else "" if isinstance(value, bytes) else str(value)
        hint = f"write it as text: {quoted(text)}" if text else "write it as text"
        wrong = InvalidValue(f"a header cannot carry {_KINDS.get(type(value), 'this value')}; {hint}")
        wrong.inside = path
        raise wrong
    if isinstance(value, Mapping):
        for key, part in value.items():
            _refuse_marked(part, (*path, str(key)))
    elif isinstance(value, list | tuple | set | frozenset):
        for place, part in enumerate(value):
            _refuse_marked(part, (*path, place))


_KINDS: Mapping[type, str] = {
    date: "a date",
    datetime: "a time",
    time: "a time of day",
    UUID: "a UUID",
    Decimal: "a decimal number",
    bytes: "bytes",
}


def _reserved(name: str) -> InvalidValue:
    instead = f"; set {_SET_BY[name]} of the entry" if name in _SET_BY else "; use another name"
    wrong = InvalidValue(f"the header {quoted(name)} is reserved: Celery or beatd sets it in each message{instead}")
    wrong.inside = (name,)
    return wrong


@accepts(either(SIGNATURE, list_of(SIGNATURE)))
def signatures(value: Any, _zone: str = "") -> list[dict[str, Any]]:
    """Tasks that follow: names, or tables with ``task`` and, as wanted, ``args``, ``kwargs`` and ``options``."""
    return [_signature(each) for each in (value if isinstance(value, list | tuple) else [value])]


def _signature(value: Any) -> dict[str, Any]:
    fields = {"task": text(value)} if isinstance(value, str) else value
    if not isinstance(fields, Mapping) or "task" not in fields:
        got = 'a table without "task"' if isinstance(fields, Mapping) else shown(value)
        raise InvalidValue(f'expected the name of a task, or a table such as {{ task = "tasks.add" }}, got {got}')
    keys = ("task", *_SIGNATURE)
    for key in fields:
        if key not in keys:
            raise InvalidValue(
                f"unknown key {quoted(str(key))} in a signature{near(str(key), keys) or '; expected ' + or_list(keys)}"
            )
    made = {**_SIGNATURE, **fields, "task": text(fields["task"])}
    for key, kind, words in (
        ("args", list | tuple, "a list"),
        ("kwargs", Mapping, "a table"),
        ("options", Mapping, "a table"),
    ):
        if not isinstance(made[key], kind):
            raise InvalidValue(f"{key} of a signature: expected {words}, got {shown(made[key])}")
    result: dict[str, Any] = carried(made)
    return result


_SIGNATURE: dict[str, Any] = {"args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
