"""Tables of the schedule become entries: each field on its own, all faults of each entry.

Most entries of a large file differ in name, task and arguments alone. What remains of an entry, its *shape*, is read
once for all that write it alike, so that they share one schedule, one set of options and one of policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import UNSET

from beatd.config import values
from beatd.config.faults import Report, nearest
from beatd.config.fields import OPTIONS, POLICIES, Field, Fields, Where, read_fields, read_value, refuse_unknown
from beatd.config.lines import Path
from beatd.config.text import SCHEDULE
from beatd.config.values import choice, told
from beatd.config.variables import plain
from beatd.exceptions import ConfigError
from beatd.model import Entry, Options, Policies
from beatd.schedules import Schedule, duration_text, parse
from beatd.schedules.cronstring import is_hashed
from beatd.schedules.interval import Interval, Relative

_OWN = frozenset({"task", "args", "kwargs"})
"""What is no part of an entry's shape."""

_WHEN = dict.fromkeys(("schedule", "timezone", "dst", "relative", "options"))
_ENTRY: Mapping[str, Any] = {**dict.fromkeys(_OWN), **_WHEN, **OPTIONS, **POLICIES}
DST = choice("cron", "skip")
_DEFAULTS: Fields = {
    "timezone": Field("timezone", values.timezone),
    "dst": Field("dst", DST),
    **OPTIONS,
    **POLICIES,
}
_NO_KWARGS: dict[str, Any] = {}
_LONGEST_NAME = 250


class Shape(NamedTuple):
    """Everything of an entry but its name, its task and the arguments."""

    schedule: Schedule
    timezone: str
    options: Options
    policies: Policies


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
    made = EntryReader(timezone, defaults or {}).read(name, _without_none(fields), report, source)
    if made is None or report:
        raise ConfigError(report.faults(source or "<program>", None))
    return made


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Python's None says that a field is not set; TOML has no such value."""
    given = {key: value for key, value in fields.items() if value is not None}
    if isinstance(options := given.get("options"), Mapping):
        given["options"] = {key: value for key, value in options.items() if value is not None}
    return given


class EntryReader:
    """Reads the entries of one file, which have a time zone and defaults in common."""

    def __init__(self, timezone: str, defaults: Mapping[str, Any]) -> None:
        self._timezone = timezone
        self._defaults = dict(defaults)
        self._shapes: dict[str, tuple[Shape | None, Report]] = {}
        self._parts: dict[str, Any] = {}
        self._tasks: dict[str, str] = {}
        self._hashed: dict[str, bool] = {}

    def read(self, name: str, fields: Any, report: Report, source: str) -> Entry | None:
        """The entry, or None after its faults have been reported."""
        path = (SCHEDULE, name)
        if fault := _name_fault(name):
            report.add(path, fault)
        if not isinstance(fields, Mapping):
            report.add(path, f'expected a table such as {{ task = "tasks.add", schedule = 30 }}, got {told(fields)}')
            return None
        task = self._task(fields, report, path)
        shape = self._shape(name, fields, report, path)
        args = _args(fields.get("args", ()), report, path)
        kwargs = _kwargs(fields.get("kwargs"), report, path)
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

    def _task(self, fields: Mapping[str, Any], report: Report, path: Path) -> str | None:
        if "task" not in fields:
            if not any(key not in _ENTRY and "task" in nearest(key, _ENTRY) for key in fields):
                report.add(path, 'task is missing: the name of the task to run, such as "tasks.add"')
            return None
        task = fields["task"]
        if (known := self._tasks.get(task) if type(task) is str else None) is not None:
            return known
        read = read_value(values.text, task, "", report, (*path, "task"))
        return None if read is UNSET else self._tasks.setdefault(read, read)

    def _shape(self, name: str, fields: Mapping[str, Any], report: Report, path: Path) -> Shape | None:
        rest = {key: value for key, value in fields.items() if key not in _OWN}
        key = repr(rest)
        if self._is_named(rest.get("schedule")):
            key += name
        if key not in self._shapes:
            found = Report()
            self._shapes[key] = (self._new_shape(name, rest, found), found)
        shape, found = self._shapes[key]
        for tail, message in found:
            report.add((*path, *tail), message)
        return None if found else shape

    def _is_named(self, schedule: Any) -> bool:
        """Whether the meaning of a schedule may depend on the entry's name: an H in a cron string does."""
        if not isinstance(schedule, str):
            parts = schedule.values() if isinstance(schedule, Mapping) else schedule
            return isinstance(schedule, Mapping | list | tuple) and any(map(self._is_named, parts))
        if schedule not in self._hashed:
            self._hashed[schedule] = is_hashed(schedule)
        return self._hashed[schedule]

    def _new_shape(self, name: str, rest: dict[str, Any], report: Report) -> Shape | None:
        refuse_unknown(rest, _ENTRY, report, _at_key)
        options = self._celery_options(rest, report)
        merged = {**self._defaults, **options, **rest}
        timezone = self._zone(merged, report)
        schedule = _schedule(name, merged, timezone, report)

        def where(key: str) -> Path:
            return ("options", key) if key in options else (key,)

        read_options = read_fields(merged, OPTIONS, timezone, report, where)
        read_policies = read_fields(merged, POLICIES, timezone, report, where)
        _cross_check(schedule, read_options, read_policies, report, where)
        if report or schedule is None:
            return None
        return Shape(schedule, timezone, self._shared(Options, read_options), self._shared(Policies, read_policies))

    def _celery_options(self, rest: dict[str, Any], report: Report) -> Mapping[str, Any]:
        """What Celery's ``options`` table has; what is no option, or stands in the entry too, is reported."""
        table = rest.get("options", {})
        if not isinstance(table, Mapping):
            report.add(("options",), f'expected a table such as {{ queue = "reports" }}, got {told(table)}')
            return {}
        refuse_unknown(table, OPTIONS, report, lambda key: ("options", key))
        for key in table:
            if key in rest and key in OPTIONS:
                report.add(("options", key), f"{key} is set twice: here and in the entry itself")
        return table

    def _zone(self, merged: Mapping[str, Any], report: Report) -> str:
        if "timezone" not in merged:
            return self._timezone
        read = read_value(values.timezone, merged["timezone"], "", report, ("timezone",))
        return self._timezone if read is UNSET else self._shared(str, read)

    def _shared(self, kind: Any, value: Any) -> Any:
        """One object for equal values; the repr tells 1 from True and 1.0."""
        key = f"{kind.__name__}{value!r}"
        if key not in self._parts:
            self._parts[key] = value if isinstance(value, str) else kind(**value)
        return self._parts[key]


def read_defaults(raw: Any, timezone: str, report: Report) -> dict[str, Any]:
    """``[defaults]``: fields for all entries that do not say otherwise. What is faulty is reported and left out."""
    if not isinstance(raw, Mapping):
        report.add(("defaults",), f'expected a table such as {{ expires = "auto" }}, got {told(raw)}')
        return {}

    def where(key: str) -> Path:
        return ("defaults", key)

    refuse_unknown(raw, _DEFAULTS, report, where)
    good = {}
    for key, value in raw.items():
        field = _DEFAULTS.get(key)
        if field is not None and read_value(field.read, value, timezone, report, where(key)) is not UNSET:
            good[key] = value
    return good


def _at_key(key: str) -> Path:
    return (key,)


def _schedule(name: str, merged: Mapping[str, Any], timezone: str, report: Report) -> Schedule | None:
    dst = read_value(DST, merged.get("dst", "cron"), "", report, ("dst",))
    if "schedule" not in merged:
        report.add((), 'schedule is missing: seconds (30), a duration ("1h30m"), or a cron string ("30 7 * * mon")')
        return None
    value = plain(merged["schedule"])
    if "relative" in merged:
        relative = read_value(values.flag, merged["relative"], "", report, ("relative",))
        if relative is True and not isinstance(value, Mapping):
            value = {"every": value, "relative": True}

    def read(_raw: Any, timezone: str) -> Schedule:
        return parse(value, timezone=timezone, name=name, dst="cron" if dst is UNSET else dst)

    made = read_value(read, merged["schedule"], timezone, report, ("schedule",))
    return None if made is UNSET else made


def _cross_check(
    schedule: Schedule | None, options: Mapping[str, Any], policies: Mapping[str, Any], report: Report, where: Where
) -> None:
    """What each field alone cannot tell."""
    start, end = policies.get("start"), policies.get("end")
    if start and end and end <= start:
        report.add(("end",), f"the end {end.isoformat()} is not after the start {start.isoformat()}")
    jitter = policies.get("jitter_ms", 0)
    if isinstance(schedule, Interval | Relative) and jitter > schedule.every_ms:
        period = duration_text(schedule.every_ms)
        report.add(where("jitter"), f"a jitter of {duration_text(jitter)} is longer than the period of {period}")
    soft, hard = options.get("soft_time_limit"), options.get("time_limit")
    if soft and hard and soft > hard:
        report.add(where("soft_time_limit"), f"the soft limit of {soft:g} s is above the time limit of {hard:g} s")


def _name_fault(name: str) -> str:
    if not name.strip():
        return "the name of an entry cannot be empty"
    if not name.isprintable():
        return "the name of an entry cannot have control characters"
    if len(name) > _LONGEST_NAME:
        return f"the name has {len(name)} characters; at most {_LONGEST_NAME} are allowed"
    return ""


def _args(raw: Any, report: Report, path: Path) -> tuple[Any, ...] | None:
    if not isinstance(raw, list | tuple):
        report.add((*path, "args"), f"expected a list such as [16, 16], got {told(raw)}")
        return None
    if all(type(each) in _PLAIN for each in raw):
        return tuple(raw)
    read = read_value(_carried, raw, "", report, (*path, "args"))
    return None if read is UNSET else tuple(read)


_PLAIN = frozenset({int, str, bool})


def _carried(raw: Any, _zone: str) -> Any:
    return values.carried(raw)


def _kwargs(raw: Any, report: Report, path: Path) -> dict[str, Any] | None:
    if raw is None:
        return _NO_KWARGS
    read = read_value(values.table, raw, "", report, (*path, "kwargs"))
    return None if read is UNSET else read
