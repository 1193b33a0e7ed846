"""Entries as TOML: the inverse of reading them. What is written means the same when it is read again.

The style is that of the documentation: a table for each entry, with inline tables and lists on one line in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import tomli_w
from msgspec import structs

from beatd.config.entries import ENTRY
from beatd.config.errors import dotted
from beatd.config.fields import CAN_BE_OFF
from beatd.config.toml import SCHEDULE, escaped
from beatd.config.toml_lines import KeyPath
from beatd.exceptions import ConfigError, Fault, ScheduleError
from beatd.model import Entry, Options, Policies
from beatd.schedules import Schedule, duration_text
from beatd.schedules.cron import Cron
from beatd.schedules.interval import Relative
from beatd.schedules.schedule import BaseSchedule, StandIn, Union, value_of

_LARGEST = 2**63 - 1
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_WIDEST_LIST = 120
"""Characters of a line; a list that does not fit is written with one value on each line."""
_AS_JSON = ("args", "kwargs")
"""Fields that may be JSON text, which has what TOML has not: null, and numbers of any length."""


class Unwritable(ValueError):
    """A value that TOML has no form for, at a path inside of the entry."""

    def __init__(self, path: KeyPath, reason: str) -> None:
        super().__init__(f"{dotted(path)}: {reason}")
        self.path = path
        self.reason = reason


def entry_table(entry: Entry, timezone: str, *, leave_out: Container[str] = ()) -> dict[str, Any]:
    """The table of an entry in a file whose time zone is ``timezone``; raises :class:`Unwritable`.

    Only what differs from the defaults is in it; durations are written the short way (``"1h30m"``). Its texts have
    ``$${`` for ``${``. Fields that are to be left out need not be writable.
    """
    table: dict[str, Any] = {"task": entry.task, "schedule": entry.schedule.notation}
    if entry.timezone != timezone:
        table["timezone"] = entry.timezone
    if _skips(entry.schedule):
        table["dst"] = "skip"
    if entry.args:
        table["args"] = list(entry.args)
    if entry.kwargs:
        table["kwargs"] = entry.kwargs
    table |= _options(entry.options)
    table |= _policies(entry.policies)
    return {key: _field(key, value) for key, value in table.items() if key not in leave_out}


def _field(key: str, value: Any) -> Any:
    try:
        return _toml(value, (key,))
    except Unwritable:
        if key in _AS_JSON and (text := _json(value)) is not None:
            return text
        raise


def _json(value: Any) -> str | None:
    """The value as JSON text; None if reading that would give another value."""
    plain = list(value) if isinstance(value, tuple) else value
    try:
        text = json.dumps(plain, ensure_ascii=False)
        text.encode()
        return escaped(text) if json.loads(text) == plain else None
    except (TypeError, ValueError, RecursionError):
        return None


def to_toml(
    tables: Mapping[str, Mapping[str, Any]],
    *,
    timezone: str,
    header: Iterable[str] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """A whole file: the ``header`` as comments, the time zone, the ``defaults``, and a table for each entry."""
    parts = ["".join(f"# {line}".rstrip() + "\n" for line in header)] if header else []
    parts.append(f"timezone = {toml_value(timezone)}\n")
    if defaults:
        parts.append(f"[defaults]\n{''.join(_lines(defaults))}")
    parts += [table_text(name, table) for name, table in tables.items()]
    return "\n".join(parts)


def table_text(name: str, table: Mapping[str, Any]) -> str:
    """The table of an entry, as it stands in a file."""
    return f"[{SCHEDULE}.{_key(name)}]\n{''.join(_lines(table))}"


def escaped_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a runtime entry as a file has them: ``$${`` for ``${``; raises :class:`Unwritable`."""
    return {key: _field(key, value) for key, value in table.items()}


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        start = f"{_key(key)} = "
        text = toml_value(value)
        if isinstance(value, list) and len(start) + len(text) > _WIDEST_LIST:
            text = "[\n" + "".join(f"  {toml_value(each)},\n" for each in value) + "]"
        yield f"{start}{text}\n"


def toml_value(value: Any) -> str:
    """A value on one line."""
    match value:
        case list():
            return f"[{', '.join(map(toml_value, value))}]"
        case dict():
            inside = ", ".join(f"{_key(key)} = {toml_value(each)}" for key, each in value.items())
            return f"{{ {inside} }}" if inside else "{}"
    return _printable(tomli_w.dumps({"v": value})[len("v = ") : -1])


def _key(key: str) -> str:
    return _printable(tomli_w.dumps({key: 0})[: -len(" = 0\n")])


def _printable(text: str) -> str:
    """Return TOML on one line in which control characters, such as U+009B, are escaped: they are in strings."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text)


def export(
    entries: Iterable[Entry],
    *,
    timezone: str,
    header: Iterable[str] = (),
    references: Mapping[str, Mapping[str, Any]] | None = None,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """The entries as a file; raises ConfigError with everything that TOML has no form for.

    What the entries have from ``defaults`` is in their tables. The file turns these off: it can be included where they
    hold.

    ``references`` are the fields of entries with ``${VARIABLES}`` as their files have them, see
    :func:`beatd.config.references.references`: they are written in place of what the variables stand for.
    """
    tables, faults = {}, []
    for entry in entries:
        as_written = (references or {}).get(entry.name, {})
        try:
            tables[entry.name] = _with_references(entry_table(entry, timezone, leave_out=as_written), as_written)
        except Unwritable as error:
            path = dotted((SCHEDULE, entry.name, *error.path))
            faults.append(Fault(entry.source or "<program>", None, path, error.reason))
    if faults:
        raise ConfigError(faults)
    off = {key: key == "enabled" for key in defaults if key in CAN_BE_OFF or key == "enabled"}
    return to_toml(tables, timezone=timezone, header=header, defaults=off)


def _with_references(table: dict[str, Any], as_written: Mapping[str, Any]) -> dict[str, Any]:
    """The table with these fields, in the order of entries."""
    if not as_written:
        return table
    order = {key: place for place, key in enumerate(ENTRY)}
    return dict(sorted({**table, **as_written}.items(), key=lambda item: order.get(item[0], len(order))))


def _skips(schedule: Any) -> bool:
    parts = schedule.parts if isinstance(schedule, Union) else (schedule,)
    return any(isinstance(part, Cron) and part.skip for part in parts)


def _options(options: Options) -> dict[str, Any]:
    table = _set_fields(options)
    if isinstance(options.expires, int):
        table["expires"] = duration_text(options.expires)
    if "countdown_ms" in table:
        table["countdown"] = duration_text(table.pop("countdown_ms"))
    for followers in ("link", "link_error"):
        if table.get(followers):
            table[followers] = [_signature(each) for each in table[followers]]
    return table


def _signature(signature: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is empty: it is filled in again when it is read."""
    return {key: value for key, value in signature.items() if value}


def _policies(policies: Policies) -> dict[str, Any]:
    table = _set_fields(policies)
    if policies.blackout is not None:
        table["blackout"] = policies.blackout.notation
    if policies.sentry is not None:
        table["sentry"] = {key: value for key, value in structs.asdict(policies.sentry).items() if value is not None}
    for name in [name for name in table if name.endswith("_ms")]:
        table[name.removesuffix("_ms")] = duration_text(table.pop(name))
    for bound in ("overdue_after", "expect_within"):
        if getattr(policies, f"{bound}_ms") == 0:
            table[bound] = "never"
    return table


def _set_fields(values: Options | Policies) -> dict[str, Any]:
    """The fields that are not as they are by default."""
    defaults = type(values)()
    every = structs.asdict(values)
    return {name: value for name, value in every.items() if value != getattr(defaults, name)}


def _toml(value: Any, path: KeyPath) -> Any:
    match value:
        case str() | int() | time() | datetime() if reason := _unwritable(value):
            raise Unwritable(path, reason)
        case str():
            return escaped(value)
        case bool() | int() | float() | datetime() | date() | time():
            return value
        case list() | tuple() | set() | frozenset():
            return [_toml(each, (*path, place)) for place, each in enumerate(value)]
        case Mapping():
            if wrong := next((str(key) for key in value if _unwritable(str(key))), None):
                raise Unwritable((*path, wrong), _unwritable(wrong))
            return {str(key): _toml(each, (*path, str(key))) for key, each in value.items()}
    raise Unwritable(path, _NO_FORM.get(type(value), f"TOML has no form for a {type(value).__name__}"))


def _unwritable(value: str | int | time | datetime) -> str:
    """The reason why this value of a type that TOML has cannot be written; empty if it can."""
    match value:
        case str() if not value.isascii() and _SURROGATES.search(value):
            return "it has half of a surrogate pair, which no UTF-8 file can have"
        case int() if abs(value) > _LARGEST:
            return f"{value} is beyond the numbers of TOML, which have 64 bits"
        case time() if value.tzinfo is not None:
            return "TOML has no times of day with a time zone"
        case datetime() if (value.utcoffset() or timedelta()) % timedelta(minutes=1):
            return "TOML has no offsets with seconds"
    return ""


_NO_FORM = {
    type(None): "TOML has no null; leave it out",
    Decimal: "TOML has no decimals; write it as text or as a float",
}


_PLAIN_TYPES = (str, int, float, list, tuple, dict)
"""Asked about first: whether a value is a Schedule takes long to find out."""


def plain_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table without Python's own values: schedules in their notation with their zone, timedeltas in seconds."""
    fields = {key: _plain(value) for key, value in table.items()}
    if isinstance(options := table.get("options"), Mapping):
        fields["options"] = {key: _plain(value) for key, value in options.items()}
    for name in ("schedule", "blackout"):
        if name in fields:
            fields[name] = _plain_parts(fields[name])
    return _zone_and_dst(table.get("schedule")) | fields


def _zone_and_dst(schedule: object) -> dict[str, Any]:
    """The fields of an entry that a schedule of Python's has itself; raises ScheduleError if parts of a list differ."""
    if isinstance(schedule, list | tuple):
        of_parts = [_zone_and_dst(part) for part in schedule]
        if any(fields != of_parts[0] for fields in of_parts):
            raise ScheduleError("the schedules of a list need one timezone and one dst: set them on all, or on none")
        return of_parts[0] if of_parts else {}
    fields = {}
    value = schedule.value if isinstance(schedule, StandIn) else schedule
    if isinstance(value, Cron | Relative) and not value.zone.is_open:
        fields["timezone"] = value.zone.name
    if isinstance(value, Cron) and value.skip:
        fields["dst"] = "skip"
    return fields


def _plain_parts(value: object) -> object:
    """A schedule of Python's in its notation and a timedelta in seconds, also in lists and tables."""
    if isinstance(value, list | tuple):
        return [_plain_parts(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _plain_parts(part) for key, part in value.items()}
    return _plain(value)


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, BaseSchedule):
        return value_of(value).notation
    if not isinstance(value, _PLAIN_TYPES) and isinstance(value, Schedule):
        return value.notation
    return value
