"""Entries: tables of the schedule become values; each field is read on its own, and all errors are reported.

Tables come from ``beat.toml``, from a file for the state store, or from an app. An entry's *spec* is everything of it
but its name, its task and the arguments. Most entries of a large file differ in nothing else, so equal specs share one
schedule, one set of options and one of policies. A message that is far too large is an error: brokers refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from msgspec import UNSET

from beatd.config import values
from beatd.config.errors import ErrorReport, nearest
from beatd.config.fields import (
    OPTIONS,
    POLICIES,
    Field,
    Fields,
    Where,
    as_written,
    is_off,
    over_defaults,
    read_fields,
    read_value,
    refuse_unknown,
)
from beatd.config.schema_types import accepts, definition
from beatd.config.shared_blackouts import SHARED, Shared, with_shared
from beatd.config.toml import SCHEDULE, degrees, plain, truth
from beatd.config.toml_lines import KeyPath
from beatd.config.values import InvalidValue, choice, shown, size_text
from beatd.exceptions import ConfigError, Fault
from beatd.message import json_codec, protocol
from beatd.model import Entry, Options, Policies
from beatd.schedules import Schedule, duration_text, joined_blackout, parse
from beatd.schedules.cron import Dst
from beatd.schedules.cron_parser import is_named
from beatd.schedules.interval import Interval, Relative

_CLOCK: Fields = {
    "timezone": Field("timezone", values.timezone, "The time zone: an IANA name.", "Europe/Berlin"),
    "dst": Field(
        "dst",
        choice("cron", "skip"),
        "A fixed time that the clock skips: cron runs right after the gap, skip never.",
        "skip",
    ),
}
DEFAULTS: Fields = {**_CLOCK, **OPTIONS, **POLICIES}
"""What ``[defaults]`` may have, for every entry that does not say otherwise."""


@accepts(definition("schedule"))
def _parsed(value: Any, timezone: str, name: str = "", dst: Dst = "cron") -> Schedule:
    return parse(plain(_typed(value)), timezone=timezone, name=name, dst=dst)


_NO_TEXT = {"lat": degrees, "lon": degrees, "relative": truth}
"""Keys of schedules whose values are no text, and what makes them of a text from a variable."""


def _typed(value: Any) -> Any:
    """A schedule as it would be without variables: with numbers and truth values where these belong."""
    match value:
        case list():
            return [_typed(part) for part in value]
        case dict():
            return {key: _NO_TEXT[key](each) if key in _NO_TEXT else each for key, each in value.items()}
    return value


@accepts(definition("options"))
def _options(value: Any, _zone: str = "") -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidValue(f'expected a table such as {{ queue = "reports" }}, got {shown(value)}')
    return value


ENTRY: Fields = {
    "task": Field("task", values.text, "The name of the task, as the worker knows it.", "proj.tasks.add"),
    "schedule": Field(
        "schedule",
        _parsed,
        'When it runs: seconds (30), a duration ("1h30m"), a cron string ("30 7 * * mon"), a table with every, cron, '
        "at, solar or Celery's crontab fields, or a list of these.",
        "30 7 * * mon",
    ),
    "args": Field("args", values.arguments, "Positional arguments.", [16, 16]),
    "kwargs": Field("kwargs", values.keywords, "Named arguments.", {"format": "pdf"}),
    "relative": Field("relative", values.flag, "Celery's relative: an interval counts from the last run.", True),
    "options": Field("options", _options, "The keywords of apply_async, as Celery has them.", {"queue": "reports"}),
    **DEFAULTS,
}
"""What an entry may have."""

NEEDED = ("task", "schedule")
"""What it must have."""


class EntrySpec(NamedTuple):
    """Everything of an entry but its name, its task and the arguments."""

    schedule: Schedule
    timezone: str
    options: Options
    policies: Policies


class EntrySpecReader:
    """Reads the specs of one file, whose entries have a time zone and defaults in common."""

    def __init__(self, timezone: str, defaults: Mapping[str, Any]) -> None:
        self._timezone = timezone
        self._defaults = dict(defaults)
        self._shared_blackouts = self._defaults.pop(SHARED, {})
        self._parts: dict[str, Any] = {}

    def read(self, name: str, rest: dict[str, Any], report: ErrorReport) -> EntrySpec | None:
        """The spec of entry ``name``, or None after its faults have been reported, at paths inside of the entry."""
        refuse_unknown(rest, ENTRY, report, _at_key)
        options = self._celery_options(rest, report)
        merged = over_defaults(self._defaults, {**options, **rest})
        if "blackout" in merged:
            merged["blackout"] = with_shared(merged["blackout"], self._shared_blackouts)
        clock = read_fields(merged, _CLOCK, "", report, _at_key, defaults=self._defaults)
        timezone = self._shared(str, clock.get("timezone", self._timezone))
        schedule = _schedule(name, merged, timezone, clock.get("dst", "cron"), report)

        def where(key: str) -> KeyPath:
            return ("options", key) if key in options else (key,)

        read_options = read_fields(merged, OPTIONS, timezone, report, where, defaults=self._defaults)
        read_policies = read_fields(merged, POLICIES, timezone, report, where, defaults=self._defaults)
        if (only_on := read_policies.pop("only_on", None)) is not None:
            read_policies["blackout"] = joined_blackout(read_policies.get("blackout"), only_on)
        _cross_check(schedule, read_options, read_policies, raw=merged, report=report, where=where)
        if report or schedule is None:
            return None
        return EntrySpec(schedule, timezone, self._shared(Options, read_options), self._shared(Policies, read_policies))

    def _celery_options(self, rest: dict[str, Any], report: ErrorReport) -> Mapping[str, Any]:
        """Read Celery's ``options`` table; report unknown options, and those that the entry has itself."""
        table = read_value(_options, rest.get("options", {}), "", report, ("options",))
        if table is UNSET:
            return {}
        refuse_unknown(table, OPTIONS, report, lambda key: ("options", key))
        for key in table:
            if key in rest and key in OPTIONS:
                report.add(("options", key), f"{key} is set twice: here and in the entry itself; remove one of them")
        return dict(table)

    def _shared(self, kind: Any, value: Any) -> Any:
        """One object for equal values; the repr tells 1 from True and 1.0."""
        key = f"{kind.__name__}{value!r}"
        if key not in self._parts:
            self._parts[key] = value if isinstance(value, str) else kind(**value)
        return self._parts[key]


def read_defaults(raw: Any, timezone: str, report: ErrorReport, shared: Shared | None = None) -> dict[str, Any]:
    """``[defaults]``: fields for all entries that do not say otherwise. What is faulty is reported and left out.

    ``shared``: the shared blackouts, which are among what is returned. What is off is ``False``.
    """
    if not isinstance(raw, Mapping):
        report.add(("defaults",), f'expected a table such as {{ expires = "auto" }}, got {shown(raw)}')
        return {}

    def where(key: str) -> KeyPath:
        return ("defaults", key)

    refuse_unknown(raw, DEFAULTS, report, where)
    good: dict[str, Any] = {SHARED: dict(shared)} if shared else {}
    for key, given in raw.items():
        field, value = DEFAULTS.get(key), with_shared(given, shared or {}) if key == "blackout" else given
        if field is None:
            continue
        if is_off(key, value) or read_value(field.read, value, timezone, report, where(key)) is not UNSET:
            good[key] = value
    return good


def _at_key(key: str) -> KeyPath:
    return (key,)


def _schedule(name: str, merged: Mapping[str, Any], timezone: str, dst: Dst, report: ErrorReport) -> Schedule | None:
    if "schedule" not in merged:
        report.add(
            (), 'schedule is missing: expected seconds (30), a duration ("1h30m"), or a cron string ("30 7 * * mon")'
        )
        return None
    value = merged["schedule"]
    if "relative" in merged:
        relative = read_value(values.flag, merged["relative"], "", report, ("relative",))
        if relative is True and not isinstance(value, Mapping):
            value = {"every": value, "relative": True}
    made = read_value(partial(_parsed, name=name, dst=dst), value, timezone, report, ("schedule",))
    return None if made is UNSET else made


def _cross_check(
    schedule: Schedule | None,
    options: Mapping[str, Any],
    policies: Mapping[str, Any],
    *,
    raw: Mapping[str, Any],
    report: ErrorReport,
    where: Where,
) -> None:
    """Check fields against each other; ``raw`` are all of them as they were written."""
    start, end = policies.get("start"), policies.get("end")
    if start and end and end <= start:
        after, got = (as_written(raw, key, at.isoformat()) for key, at in (("start", start), ("end", end)))
        report.add(("end",), f"expected a time after start ({after}), got {got}")
    jitter = policies.get("jitter_ms", 0)
    if isinstance(schedule, Interval | Relative) and jitter > schedule.every_ms:
        period = as_written(raw, "schedule", duration_text(schedule.every_ms))
        got = as_written(raw, "jitter", duration_text(jitter))
        report.add(where("jitter"), f"expected at most the interval ({period}), got {got}")
    soft, hard = options.get("soft_time_limit"), options.get("time_limit")
    if soft and hard and soft > hard:
        most, got = as_written(raw, "time_limit", f"{hard:g} s"), as_written(raw, "soft_time_limit", f"{soft:g} s")
        report.add(where("soft_time_limit"), f"expected at most time_limit ({most}), got {got}")


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
        self._specs: dict[str, tuple[EntrySpec | None, ErrorReport]] = {}
        self._tasks: dict[str, str] = {}

    def read(self, name: str, fields: Any, report: ErrorReport, file: str, line: int = 0) -> Entry | None:
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
        spec = self._spec(name, rest, report, path)
        if spec is None or task is None or args is None or kwargs is None:
            return None
        return Entry(
            name=name,
            task=task,
            schedule=spec.schedule,
            args=args,
            kwargs=kwargs,
            timezone=spec.timezone,
            options=spec.options,
            policies=spec.policies,
            file=file,
            line=line,
        )

    def _task(self, rest: dict[str, Any], report: ErrorReport, path: KeyPath) -> str | None:
        """The task, taken out of what is left of an entry."""
        task = rest.pop("task", UNSET)
        if task is UNSET:
            if not any(key not in ENTRY and "task" in nearest(str(key), ENTRY) for key in rest):
                report.add(path, 'task is missing: expected the name of the task, such as "tasks.add"')
            return None
        if (known := self._tasks.get(task) if type(task) is str else None) is not None:
            return known
        read = read_value(values.text, task, "", report, (*path, "task"))
        return None if read is UNSET else self._tasks.setdefault(read, read)

    def _spec(self, name: str, rest: dict[str, Any], report: ErrorReport, path: KeyPath) -> EntrySpec | None:
        try:
            key = repr(rest)
            if key not in self._specs and is_named(rest.get("schedule")):
                key += name
        except (ValueError, RecursionError):  # Python writes out numbers of 4,300 digits, not more
            report.add(path, "nested too deeply, or a number has more than 4,300 digits")
            return None
        known = self._specs.get(key)
        if known is None:
            found = ErrorReport()
            known = self._specs[key] = (self._reader.read(name, rest, found), found)
        spec, found = known
        if spec is None:
            for tail, message in found:
                report.add((*path, *tail), message)
        return spec


def _name_fault(name: str) -> str:
    if not name or name.isspace():
        return "the name of an entry must not be empty"
    if not name.isprintable():
        return "the name of an entry must not contain control characters"
    return f"the name has {len(name)} characters; expected at most {LONGEST_NAME}"


def _args(raw: Any, report: ErrorReport, path: KeyPath) -> tuple[Any, ...] | None:
    if raw is _NO_ARGS:
        return ()
    read = read_value(values.arguments, raw, "", report, (*path, "args"))
    return None if read is UNSET else tuple(read)


def _kwargs(raw: Any, report: ErrorReport, path: KeyPath) -> dict[str, Any] | None:
    read = read_value(values.keywords, raw, "", report, (*path, "kwargs"))
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
