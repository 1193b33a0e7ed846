"""Readers of what goes into messages: arguments, headers and signatures, which JSON must be able to carry.

What JSON has no type for but Celery has a mark (times, dates, UUIDs, decimals, bytes) is let through as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from beatd.config.accepts import CARRIED, CARRIED_TABLE, SIGNATURE, accepts, either, list_of, matching, or_variable
from beatd.config.faults import near, quoted
from beatd.config.values import Wrong, text, told
from beatd.config.variables import Substituted
from beatd.message import HEADER_NAMES

_MOST_BITS = 13_287
"""4,000 digits: Python neither writes nor reads numbers of more than 4,300."""

_JSON_LIST, _JSON_TABLE = matching(r"^\s*\["), matching(r"^\s*\{")


def carried(value: Any) -> Any:
    """A value that goes into a message: as it is if JSON can carry it (times, dates and the like by Celery's marks)."""
    match value:
        case Substituted():
            return str(value)
        case int() if value.bit_length() > _MOST_BITS:
            raise Wrong("a number with more than 4,000 digits cannot be carried by JSON")
        case None | bool() | str() | int() | date() | time() | UUID() | Decimal() | bytes():
            if isinstance(value, datetime) and value.tzinfo is not None and type(value.tzinfo).__module__ != "datetime":
                return _standard(value)
            return value
        case float():
            if not math.isfinite(value):
                raise Wrong(f"{value} cannot be carried by JSON; expected a finite number")
            return value
        case list() | tuple() | set() | frozenset():
            return [_part(place, each) for place, each in enumerate(value)]
        case Mapping():
            return {_key(key): _part(key, each) for key, each in value.items()}
    if callable(getattr(value, "__json__", None)):
        return value
    raise Wrong(f"{told(value)} cannot be carried by JSON")


def _part(key: str | int, value: Any) -> Any:
    try:
        return carried(value)
    except Wrong as error:
        error.inside = (key, *error.inside)
        raise


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise Wrong(f"the key {told(key)} cannot be carried by JSON; expected a string")
    return key


def _standard(value: datetime) -> datetime:
    """The parser's own classes of zones replaced by the library's, which everything can copy, pickle and show."""
    offset = value.utcoffset()
    return value.replace(tzinfo=timezone(offset) if offset else UTC)


@accepts(or_variable(either(list_of(CARRIED), _JSON_LIST)))
def arguments(value: Any, _zone: str = "") -> tuple[Any, ...]:
    """A list that JSON can carry, or JSON text of one, which can have null."""
    value = _parsed(value, "[", '"[null, 1]"')
    if not isinstance(value, list | tuple):
        raise Wrong(f"expected a list such as [16, 16], got {told(value)}")
    return tuple(carried(value))


@accepts(or_variable(either(CARRIED_TABLE, _JSON_TABLE)))
def keywords(value: Any, _zone: str = "") -> dict[str, Any]:
    """A table that JSON can carry, or JSON text of one, which can have null."""
    return table(_parsed(value, "{", """'{"limit": null}'"""))


def _parsed(value: Any, start: str, example: str) -> Any:
    """What JSON text stands for; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip(" \t\r\n").startswith(start):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else "it cannot be parsed"
        raise Wrong(f"not JSON: {why}; expected text such as {example}, got {told(value)}") from None


@accepts(CARRIED_TABLE)
def table(value: Any, _zone: str = "") -> dict[str, Any]:
    """A table that JSON can carry."""
    if not isinstance(value, Mapping):
        raise Wrong(f'expected a table such as {{ key = "value" }}, got {told(value)}')
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
        raise Wrong(f'expected a table such as {{ tenant = "example" }}, got {told(value)}')
    for name in value:
        if name in RESERVED_HEADERS or (isinstance(name, str) and name.startswith(RESERVED_PREFIX)):
            raise _reserved(name)
    result: dict[str, Any] = carried(value)
    return result


def _reserved(name: str) -> Wrong:
    instead = f"; set {_SET_BY[name]} of the entry" if name in _SET_BY else "; use another name"
    wrong = Wrong(f"the header {quoted(name)} is reserved: Celery or beatd sets it in each message{instead}")
    wrong.inside = (name,)
    return wrong


@accepts(either(SIGNATURE, list_of(SIGNATURE)))
def signatures(value: Any, _zone: str = "") -> list[dict[str, Any]]:
    """Tasks that follow: names, or tables with ``task`` and, as wanted, ``args``, ``kwargs`` and ``options``."""
    return [_signature(each) for each in (value if isinstance(value, list | tuple) else [value])]


def _signature(value: Any) -> dict[str, Any]:
    fields = {"task": text(value)} if isinstance(value, str) else value
    if not isinstance(fields, Mapping) or "task" not in fields:
        raise Wrong(f'expected the name of a task, or a table such as {{ task = "tasks.add" }}, got {told(value)}')
    for key in fields:
        if key not in _SIGNATURE and key != "task":
            raise Wrong(f"a signature has no {quoted(str(key))}{near(str(key), (*_SIGNATURE, 'task'))}")
    made = {**_SIGNATURE, **fields, "task": text(fields["task"])}
    for key, kind, words in (
        ("args", list | tuple, "a list"),
        ("kwargs", Mapping, "a table"),
        ("options", Mapping, "a table"),
    ):
        if not isinstance(made[key], kind):
            raise Wrong(f"{key} of a signature: expected {words}, got {told(made[key])}")
    result: dict[str, Any] = carried(made)
    return result


_SIGNATURE: dict[str, Any] = {"args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
