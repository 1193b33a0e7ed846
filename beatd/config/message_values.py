"""Readers of what goes into a message: arguments, headers and signatures, which JSON with Celery's marks can carry."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from datetime import timezone as fixed_zone
from decimal import Decimal
from typing import Any
from uuid import UUID

from beatd.config.environment import Substituted
from beatd.config.errors import near
from beatd.config.schema_types import CARRIED, CARRIED_TABLE, SIGNATURE, accepts, either, list_of, matching, or_variable
from beatd.config.toml_lines import KeyPath
from beatd.config.values import InvalidValue, shown, text
from beatd.message.protocol import HEADER_NAMES
from beatd.schedules.literals import or_list, quoted

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
