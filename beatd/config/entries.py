"""Entries: tables of the schedule become values; each field is read on its own, and all errors are reported.

Tables come from ``beat.toml``, from a file for the state store, or from an app. A message that is far too large is an
error, because brokers refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from msgspec import UNSET

from beatd.config import values
from beatd.config.entry_spec import ENTRY, EntrySpec, EntrySpecReader
from beatd.config.errors import ErrorReport, nearest
from beatd.config.fields import read_value
from beatd.config.message_values import arguments, keywords
from beatd.config.toml import SCHEDULE
from beatd.config.toml_lines import KeyPath
from beatd.config.values import shown, size_text
from beatd.exceptions import ConfigError, Fault
from beatd.message import json_codec, protocol
from beatd.model import Entry
from beatd.schedules import Schedule
from beatd.schedules.cron import Cron
from beatd.schedules.cron_parser import is_hashed
from beatd.schedules.interval import Relative

_NO_ARGS: tuple[Any, ...] = ()
_NO_KWARGS: dict[str, Any] = {}
_PLAIN = frozenset({int, str, bool})
"""Types of arguments that need no second look."""

LONGEST_NAME = 250


def entry(
    name: str,
    fields: Mapping[str, Any],
    *,
    timezone: str = "UTC",
    defaults: Mapping[str, Any] | None = None,
    source: str = "",
) -> Entry:
    """One entry from plain fields, as they are in a table of ``beat.toml`` or an item of Celery's ``beat_schedule``.

    Values may also be what Python has for them: a timedelta, an aware or naive datetime, a Schedule. ``timezone`` and
    ``defaults`` stand in for what ``fields`` does not say. Raises ConfigError with every fault; ``source`` is its file.
    """
    report = ErrorReport()
    made = EntryReader(timezone, defaults or {}).read(name, without_none(fields), report, source)
    if made is None or report:
        raise ConfigError(report.faults(source or "<program>", lambda _path: None))
    return made


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Python's None, and JSON's null, say that a field is not set; TOML has no such value."""
    given = {key: value for key, value in fields.items() if value is not None}
    if isinstance(options := given.get("options"), Mapping):
        given["options"] = {key: value for key, value in options.items() if value is not None}
    return given


class EntryReader:
    """Reads the entries of one file, which have a time zone and defaults in common."""

    def __init__(self, timezone: str, defaults: Mapping[str, Any]) -> None:
        self._reader = EntrySpecReader(timezone, defaults)
        self._shapes: dict[str, tuple[EntrySpec | None, ErrorReport]] = {}
        self._tasks: dict[str, str] = {}

    def read(self, name: str, fields: Any, report: ErrorReport, source: str) -> Entry | None:
        """The entry, or None after its faults have been reported."""
        path = (SCHEDULE, name)
        if not name.isprintable() or name.isspace() or not 0 < len(name) <= LONGEST_NAME:
            report.add(path, _name_fault(name))
        if type(fields) is not dict and not isinstance(fields, Mapping):
            report.add(path, f'expected a table such as {{ task = "tasks.add", schedule = 30 }}, got {shown(fields)}')
            return None
        rest = dict(fields)
        args = rest.pop("args", _NO_ARGS)
        args = tuple(args) if type(args) is list and _PLAIN.issuperset(map(type, args)) else _args(args, report, path)
        kwargs = _kwargs(rest.pop("kwargs"), report, path) if "kwargs" in rest else _NO_KWARGS
        task = self._task(rest, report, path)
        shape = self._shape(name, rest, report, path)
        if shape is None or task is None or args is None or kwargs is None:
            return None
        return Entry(
            name=name,
            task=task,
            schedule=shape.schedule,
            args=args,
            kwargs=kwargs,
            timezone=shape.timezone,
            options=shape.options,
            policies=shape.policies,
            source=source,
        )

    def _task(self, rest: dict[str, Any], report: ErrorReport, path: KeyPath) -> str | None:
        """The task, taken out of what is left of an entry."""
        task = rest.pop("task", UNSET)
        if task is UNSET:
            if not any(key not in ENTRY and "task" in nearest(key, ENTRY) for key in rest):
                report.add(path, 'task is missing: expected the name of the task, such as "tasks.add"')
            return None
        if (known := self._tasks.get(task) if type(task) is str else None) is not None:
            return known
        read = read_value(values.text, task, "", report, (*path, "task"))
        return None if read is UNSET else self._tasks.setdefault(read, read)

    def _shape(self, name: str, rest: dict[str, Any], report: ErrorReport, path: KeyPath) -> EntrySpec | None:
        try:
            key = repr(rest)
        except (ValueError, RecursionError):  # Python writes out numbers of 4,300 digits, not more
            report.add(path, "nested too deeply, or a number has more than 4,300 digits")
            return None
        known = self._shapes.get(key)
        if known is None and _is_named(rest.get("schedule")):
            key += name
            known = self._shapes.get(key)
        if known is None:
            found = ErrorReport()
            known = self._shapes[key] = (self._reader.read(name, rest, found), found)
        shape, found = known
        if shape is None:
            for tail, message in found:
                report.add((*path, *tail), message)
        return shape


def _is_named(schedule: Any) -> bool:
    """True if the schedule depends on the entry's name, as an H in a cron string does."""
    match schedule:
        case str():
            return is_hashed(schedule)
        case Mapping():
            return any(map(_is_named, schedule.values()))
        case list() | tuple():
            return any(map(_is_named, schedule))
    return False


def _name_fault(name: str) -> str:
    if not name or name.isspace():
        return "the name of an entry must not be empty"
    if not name.isprintable():
        return "the name of an entry must not contain control characters"
    return f"the name has {len(name)} characters; expected at most {LONGEST_NAME}"


def _args(raw: Any, report: ErrorReport, path: KeyPath) -> tuple[Any, ...] | None:
    if raw is _NO_ARGS:
        return ()
    read = read_value(arguments, raw, "", report, (*path, "args"))
    return None if read is UNSET else tuple(read)


def _kwargs(raw: Any, report: ErrorReport, path: KeyPath) -> dict[str, Any] | None:
    read = read_value(keywords, raw, "", report, (*path, "kwargs"))
    return None if read is UNSET else read


ENVELOPE = 1_500
"""Bytes of a message beside its body and the user's own headers, about."""

LARGEST_GROWTH = 8
"""A character of the file makes at most so many bytes of the message: escaped as JSON, then as base64."""


def message_bytes(entry: Entry) -> int:
    """The size of the entry's message, to within some kilobytes."""
    options = entry.options
    body = protocol.body_of(entry.args, entry.kwargs, {"callbacks": options.link, "errbacks": options.link_error})
    return ENVELOPE + -(-len(body) // 3) * 4 + (len(json_codec.dumps(options.headers)) if options.headers else 0)


def too_large(entry: Entry, most: int) -> str:
    """Return the error for an entry whose message has more than ``most`` bytes; empty if it fits."""
    size = message_bytes(entry)
    if size <= most:
        return ""
    return (
        f"a message of this entry would have {size_text(size)}; max_message_size of [broker] is {size_text(most)}: "
        "store large arguments elsewhere and pass a reference"
    )


_PLAIN_TYPES = (str, int, float, list, tuple, dict)
"""Asked about first: whether a value is a Schedule takes long to find out."""


def read_tables(
    tables: Mapping[str, Any], *, timezone: str, defaults: Mapping[str, Any], source_of: Callable[[str], str]
) -> tuple[dict[str, Entry], list[Fault]]:
    """The entries in ``tables``, by name, and everything that is wrong with the others.

    ``timezone`` and ``defaults`` stand in for what a table does not say, as in a file; ``source_of`` tells the place of
    an entry from its name. Entries that are alike share what they have in common.
    """
    reader = EntryReader(timezone, defaults)
    entries: dict[str, Entry] = {}
    faults: list[Fault] = []
    for name, table in tables.items():
        report = ErrorReport()
        entry = reader.read(name, without_none(table) if isinstance(table, Mapping) else table, report, source_of(name))
        if entry is None or report:
            faults += report.faults(source_of(name), lambda _path: None)
        else:
            entries[name] = entry
    return entries, faults


def plain_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table without Python's own values: schedules in their notation with their zone, timedeltas in seconds."""
    fields = {key: _plain(value) for key, value in table.items()}
    if isinstance(options := table.get("options"), Mapping):
        fields["options"] = {key: _plain(value) for key, value in options.items()}
    schedule = table.get("schedule")
    if isinstance(schedule, Cron | Relative) and not schedule.zone.is_open:
        fields.setdefault("timezone", schedule.zone.name)
    if isinstance(schedule, Cron) and schedule.skip:
        fields.setdefault("dst", "skip")
    return fields


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, _PLAIN_TYPES) and isinstance(value, Schedule):
        return value.notation
    return value
