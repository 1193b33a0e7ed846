"""Tables of the schedule become entries: each field on its own, all faults of each entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET

from beatd.config import payload, values
from beatd.config.faults import Report, nearest
from beatd.config.fields import read_value
from beatd.config.lines import Path
from beatd.config.shapes import ENTRY, Shape, ShapeReader
from beatd.config.text import SCHEDULE
from beatd.config.values import told
from beatd.exceptions import ConfigError
from beatd.model import Entry
from beatd.schedules.cronstring import is_hashed

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
    report = Report()
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
        self._reader = ShapeReader(timezone, defaults)
        self._shapes: dict[str, tuple[Shape | None, Report]] = {}
        self._tasks: dict[str, str] = {}

    def read(self, name: str, fields: Any, report: Report, source: str) -> Entry | None:
        """The entry, or None after its faults have been reported."""
        path = (SCHEDULE, name)
        if not name.isprintable() or name.isspace() or not 0 < len(name) <= LONGEST_NAME:
            report.add(path, _name_fault(name))
        if type(fields) is not dict and not isinstance(fields, Mapping):
            report.add(path, f'expected a table such as {{ task = "tasks.add", schedule = 30 }}, got {told(fields)}')
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

    def _task(self, rest: dict[str, Any], report: Report, path: Path) -> str | None:
        """The task, taken out of what is left of an entry."""
        task = rest.pop("task", UNSET)
        if task is UNSET:
            if not any(key not in ENTRY and "task" in nearest(key, ENTRY) for key in rest):
                report.add(path, 'task is missing: the name of the task to run, such as "tasks.add"')
            return None
        if (known := self._tasks.get(task) if type(task) is str else None) is not None:
            return known
        read = read_value(values.text, task, "", report, (*path, "task"))
        return None if read is UNSET else self._tasks.setdefault(read, read)

    def _shape(self, name: str, rest: dict[str, Any], report: Report, path: Path) -> Shape | None:
        try:
            key = repr(rest)
        except (ValueError, RecursionError):  # Python writes out numbers of 4,300 digits, not more
            report.add(path, "it has a number with more than 4,300 digits, or is nested too deeply")
            return None
        known = self._shapes.get(key)
        if known is None and _is_named(rest.get("schedule")):
            key += name
            known = self._shapes.get(key)
        if known is None:
            found = Report()
            known = self._shapes[key] = (self._reader.read(name, rest, found), found)
        shape, found = known
        if shape is None:
            for tail, message in found:
                report.add((*path, *tail), message)
        return shape


def _is_named(schedule: Any) -> bool:
    """Whether the meaning of a schedule depends on the entry's name: an H in a cron string does."""
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
        return "the name of an entry cannot be empty"
    if not name.isprintable():
        return "the name of an entry cannot have control characters"
    return f"the name has {len(name)} characters; at most {LONGEST_NAME} are allowed"


def _args(raw: Any, report: Report, path: Path) -> tuple[Any, ...] | None:
    if raw is _NO_ARGS:
        return ()
    read = read_value(payload.arguments, raw, "", report, (*path, "args"))
    return None if read is UNSET else tuple(read)


def _kwargs(raw: Any, report: Report, path: Path) -> dict[str, Any] | None:
    read = read_value(payload.keywords, raw, "", report, (*path, "kwargs"))
    return None if read is UNSET else read
