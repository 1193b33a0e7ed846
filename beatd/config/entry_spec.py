"""An entry's *shape*: everything of it but its name, its task and the arguments.

Most entries of a large file differ in nothing else, so equal shapes share one schedule, one set of options and one of
policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from msgspec import UNSET

from beatd.config import message_values, values
from beatd.config.environment import plain
from beatd.config.errors import ErrorReport
from beatd.config.fields import OPTIONS, POLICIES, Field, Fields, Where, read_fields, read_value, refuse_unknown
from beatd.config.schema_types import accepts, definition
from beatd.config.shared_blackouts import SHARED, Shared, with_shared
from beatd.config.toml_lines import KeyPath
from beatd.config.values import InvalidValue, choice, shown
from beatd.model import Options, Policies
from beatd.schedules import Schedule, duration_text, joined_blackout, parse
from beatd.schedules.cron import Dst
from beatd.schedules.interval import Interval, Relative

DST = choice("cron", "skip")
DEFAULTS: Fields = {
    "timezone": Field("timezone", values.timezone, "The time zone: an IANA name.", "Europe/Berlin"),
    "dst": Field("dst", DST, "A fixed time that the clock skips: cron runs right after the gap, skip never.", "skip"),
    **OPTIONS,
    **POLICIES,
}
"""What ``[defaults]`` may have, for every entry that does not say otherwise."""


@accepts(definition("schedule"))
def _parsed(value: Any, timezone: str, name: str = "", dst: Dst = "cron") -> Schedule:
    return parse(plain(value), timezone=timezone, name=name, dst=dst)


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
    "args": Field("args", message_values.arguments, "Positional arguments.", [16, 16]),
    "kwargs": Field("kwargs", message_values.keywords, "Named arguments.", {"format": "pdf"}),
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
    """Reads the shapes of one file, whose entries have a time zone and defaults in common."""

    def __init__(self, timezone: str, defaults: Mapping[str, Any]) -> None:
        self._timezone = timezone
        self._defaults = dict(defaults)
        self._shared_blackouts = self._defaults.pop(SHARED, {})
        self._parts: dict[str, Any] = {}

    def read(self, name: str, rest: dict[str, Any], report: ErrorReport) -> EntrySpec | None:
        """The shape of entry ``name``, or None after its faults have been reported, at paths inside of the entry."""
        refuse_unknown(rest, ENTRY, report, _at_key)
        options = self._celery_options(rest, report)
        merged = {**self._defaults, **options, **rest}
        if "blackout" in merged:
            merged["blackout"] = with_shared(merged["blackout"], self._shared_blackouts)
        timezone = self._zone(merged, report)
        schedule = _schedule(name, merged, timezone, report)

        def where(key: str) -> KeyPath:
            return ("options", key) if key in options else (key,)

        read_options = read_fields(merged, OPTIONS, timezone, report, where)
        read_policies = read_fields(merged, POLICIES, timezone, report, where)
        if (only_on := read_policies.pop("only_on", None)) is not None:
            read_policies["blackout"] = joined_blackout(read_policies.get("blackout"), only_on)
        _cross_check(schedule, read_options, read_policies, report, where)
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

    def _zone(self, merged: Mapping[str, Any], report: ErrorReport) -> str:
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


def read_defaults(raw: Any, timezone: str, report: ErrorReport, shared: Shared | None = None) -> dict[str, Any]:
    """``[defaults]``: fields for all entries that do not say otherwise. What is faulty is reported and left out.

    ``shared``: the shared blackouts, which are among what is returned.
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
        if field is not None and read_value(field.read, value, timezone, report, where(key)) is not UNSET:
            good[key] = value
    return good


def _at_key(key: str) -> KeyPath:
    return (key,)


def _schedule(name: str, merged: Mapping[str, Any], timezone: str, report: ErrorReport) -> Schedule | None:
    dst = read_value(DST, merged.get("dst", "cron"), "", report, ("dst",))
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
    read = partial(_parsed, name=name, dst="cron" if dst is UNSET else dst)
    made = read_value(read, value, timezone, report, ("schedule",))
    return None if made is UNSET else made


def _cross_check(
    schedule: Schedule | None,
    options: Mapping[str, Any],
    policies: Mapping[str, Any],
    report: ErrorReport,
    where: Where,
) -> None:
    """Check fields against each other."""
    start, end = policies.get("start"), policies.get("end")
    if start and end and end <= start:
        report.add(("end",), f"expected a time after start ({start.isoformat()}), got {end.isoformat()}")
    jitter = policies.get("jitter_ms", 0)
    if isinstance(schedule, Interval | Relative) and jitter > schedule.every_ms:
        period = duration_text(schedule.every_ms)
        report.add(where("jitter"), f"expected at most the interval ({period}), got {duration_text(jitter)}")
    soft, hard = options.get("soft_time_limit"), options.get("time_limit")
    if soft and hard and soft > hard:
        report.add(where("soft_time_limit"), f"expected at most time_limit ({hard:g} s), got {soft:g} s")
