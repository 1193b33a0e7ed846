"""Entries as TOML: the inverse of reading them. What is written means the same when it is read again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import tomli_w
from msgspec import structs

from beatd.config.faults import dotted
from beatd.config.lines import Path
from beatd.config.text import SCHEDULE
from beatd.exceptions import ConfigError, Fault
from beatd.model import Entry, Options, Policies
from beatd.schedules import duration_text
from beatd.schedules.cron import Cron
from beatd.schedules.union import Union

_LARGEST = 2**63 - 1


class Unwritable(ValueError):
    """A value that TOML has no form for, at a path inside of the entry."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{dotted(path)}: {reason}")
        self.path = path
        self.reason = reason


def entry_table(entry: Entry, timezone: str) -> dict[str, Any]:
    """The table of an entry in a file whose time zone is ``timezone``; raises :class:`Unwritable`.

    Only what differs from the defaults is in it; durations are written the short way (``"1h30m"``).
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
    return {key: _toml(value, (key,)) for key, value in table.items()}


def to_toml(tables: Mapping[str, Mapping[str, Any]], *, timezone: str, header: Iterable[str] = ()) -> str:
    """A whole file: the ``header`` as comments, the time zone, and a table for each entry."""
    comments = "".join(f"# {line}".rstrip() + "\n" for line in header)
    return (f"{comments}\n" if comments else "") + tomli_w.dumps({"timezone": timezone, SCHEDULE: dict(tables)})


def export(entries: Iterable[Entry], *, timezone: str, header: Iterable[str] = ()) -> str:
    """The entries as a file; raises ConfigError with everything that TOML has no form for."""
    tables, faults = {}, []
    for entry in entries:
        try:
            tables[entry.name] = entry_table(entry, timezone)
        except Unwritable as error:
            path = dotted((SCHEDULE, entry.name, *error.path))
            faults.append(Fault(entry.source or "<program>", None, path, error.reason))
    if faults:
        raise ConfigError(faults)
    return to_toml(tables, timezone=timezone, header=header)


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
    for name in [name for name in table if name.endswith("_ms")]:
        table[name.removesuffix("_ms")] = duration_text(table.pop(name))
    return table


def _set_fields(values: Options | Policies) -> dict[str, Any]:
    """The fields that are not as they are by default."""
    defaults = type(values)()
    every = structs.asdict(values)
    return {name: value for name, value in every.items() if value != getattr(defaults, name)}


def _toml(value: Any, path: Path) -> Any:
    match value:
        case None:
            raise Unwritable(path, "TOML has no null; leave it out")
        case bool() | str() | float() | datetime() | date():
            return value
        case int():
            if abs(value) > _LARGEST:
                raise Unwritable(path, f"{value} is beyond the numbers of TOML, which have 64 bits")
            return value
        case time():
            if value.tzinfo is not None:
                raise Unwritable(path, "TOML has no times of day with a time zone")
            return value
        case list() | tuple() | set() | frozenset():
            return [_toml(each, (*path, place)) for place, each in enumerate(value)]
        case Mapping():
            return {str(key): _toml(each, (*path, str(key))) for key, each in value.items()}
        case Decimal():
            raise Unwritable(path, "TOML has no decimals; write it as text or as a float")
    raise Unwritable(path, f"TOML has no form for a {type(value).__name__}")
