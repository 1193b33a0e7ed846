"""Rows of django-celery-beat for entries: the way home. What its tables have no column for is a note.

A schedule is written only if it means the same there: its row, read again, runs at the same times.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

from beatd import config
from beatd.config.writer import entry_table, plain_table
from beatd.exceptions import BeatdError, ScheduleError
from beatd.importers.report import Note
from beatd.model import Entry
from beatd.schedules import Schedule
from beatd.schedules.cron import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH, Cron, CronField, values_of
from beatd.schedules.cron_parser import ALIASES, is_hashed, read_field
from beatd.schedules.interval import Interval, Relative
from beatd.schedules.schedule import Once
from beatd.schedules.solar import Solar
from beatd.timestamps import from_ms

_IN_CRON = (MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)
_DAYS = ("day_of_month", "day_of_week")
_PERIODS = {86_400_000: "days", 3_600_000: "hours", 60_000: "minutes", 1_000: "seconds"}
_COLUMNS = ("queue", "exchange", "routing_key", "priority", "headers")
_WITH_COLUMN = {"task", "schedule", "timezone", "args", "kwargs", "expires", "start", "end", "max_runs", "enabled"}
_WITH_COLUMN |= {*_COLUMNS}
_RUNS_COMPARED = 50


class Rows(NamedTuple):
    """Rows as JSON, by the names of entries; what is left behind, and how many entries of that are whole ones."""

    rows: dict[str, dict[str, Any]]
    notes: tuple[Note, ...]
    lost: int


def rows_of(
    entries: Iterable[Entry],
    last_dues: Mapping[str, int],
    paused: Iterable[str],
    now_ms: int,
    runs: Mapping[str, int] = MappingProxyType({}),
) -> Rows:
    """Return the rows of entries. ``last_dues``: when their last runs were due, so that none is made twice; ``runs``:
    how many they have had."""
    rows: dict[str, dict[str, Any]] = {}
    notes: list[Note] = []
    lost = 0
    off = frozenset(paused)
    for entry in entries:
        try:
            is_over = _is_over(entry, last_dues.get(entry.name, now_ms), runs.get(entry.name, 0))
            rows[entry.name] = _row(entry, last_dues.get(entry.name), is_over or entry.name in off, now_ms)
        except (ValueError, BeatdError) as error:
            notes.append(Note(entry.name, "", str(error)))
            lost += 1
            continue
        notes += [Note(entry.name, key, why) for key, why in _left(entry)]
        if entry.name in off:
            notes.append(Note(entry.name, "enabled", "it is paused, and is written as not enabled"))
        if is_over and entry.policies.enabled:
            notes.append(Note(entry.name, "enabled", "it has had all of its runs, and is written as not enabled"))
    return Rows(rows, tuple(notes), lost)


def _is_over(entry: Entry, since_ms: int, runs: int) -> bool:
    """True if no run is left: celery beat would send a moment that has passed at once, and knows no count."""
    most = entry.policies.max_runs
    return (most is not None and runs >= most) or entry.schedule.next_after_ms(since_ms) is None


def _row(entry: Entry, last_due_ms: int | None, is_off: bool, now_ms: int) -> dict[str, Any]:
    """Raises ValueError if the entry cannot be a row."""
    options, policies = entry.options, entry.policies
    row: dict[str, Any] = {"task": entry.task, "schedule": schedule_row(entry, now_ms)}
    row["args"], row["kwargs"] = json.dumps(list(entry.args)), json.dumps(entry.kwargs)
    row |= {name: getattr(options, name) for name in _COLUMNS if name != "headers"}
    row["headers"] = json.dumps(options.headers)
    row["expire_seconds"] = max(options.expires // 1000, 1) if isinstance(options.expires, int) else None
    row["start_time"], row["expires"] = _iso(policies.start), _iso(policies.end)
    row["one_off"] = policies.max_runs == 1 or "clocked" in row["schedule"]
    row["enabled"] = policies.enabled and not is_off
    row["last_run_at"] = None if last_due_ms is None else from_ms(last_due_ms).isoformat()
    return row


def _left(entry: Entry) -> Iterator[tuple[str, str]]:
    """The keys of the entry that are not carried over."""
    for key in entry_table(entry, entry.timezone, leave_out={"args", "kwargs"}):
        if key not in _WITH_COLUMN:
            yield key, "django-celery-beat has no column for it"
    if isinstance(entry.schedule, Relative):
        yield "schedule", "the interval counts from the last run, not rounded down"
    if isinstance(entry.schedule, Interval) and entry.schedule.phase_ms is not None:
        yield "schedule.anchor", "the interval counts from the last run"
    if entry.options.expires is not None and not isinstance(entry.options.expires, int):
        yield "expires", "only a number of seconds has a column"
    if entry.policies.max_runs not in (None, 1):
        yield "max_runs", "django-celery-beat knows one run, or no limit"


def schedule_row(entry: Entry, now_ms: int) -> dict[str, Any]:
    """The row of the schedule under the name of its kind: ``interval``, ``crontab``, ``solar`` or ``clocked``.

    Raises ValueError with the reason if there is none that means the same.
    """
    match entry.schedule:
        case Interval(every_ms) | Relative(every_ms):
            unit = next((unit for unit in _PERIODS if every_ms % unit == 0), None)
            if unit is None:
                return {"interval": {"every": every_ms * 1000, "period": "microseconds"}}
            return {"interval": {"every": every_ms // unit, "period": _PERIODS[unit]}}
        case Once(at_ms):
            return {"clocked": {"clocked_time": from_ms(at_ms).isoformat()}}
        case Solar(event, lat, lon):
            return {"solar": {"event": event, "latitude": f"{lat:.6f}", "longitude": f"{lon:.6f}"}}
        case Cron():
            fields = _crontab(entry.schedule)
            _refuse_other_runs(entry, fields, now_ms)
            return {"crontab": {**fields, "timezone": entry.schedule.zone.name}}
    raise ValueError("schedule: several schedules in one entry; write an entry for each")


def _crontab(cron: Cron) -> dict[str, str]:
    written = cron.notation
    if isinstance(written, str):
        parts = ALIASES.get(written.strip().lower(), written).split()
        if len(parts) == len(_IN_CRON) + 1 and parts[0] == "0":
            parts = parts[1:]
        if len(parts) != len(_IN_CRON):
            raise ValueError(f'schedule: "{written}" has seconds, which django-celery-beat has not')
        texts = {field.name: text for field, text in zip(_IN_CRON, parts, strict=True)}
        if not any(texts[day].startswith(("*", "?")) for day in _DAYS):
            raise ValueError(f'schedule: in "{written}" one of both days is enough; Celery wants both')
    elif isinstance(written, Mapping):
        texts = {field.name: _text(written.get(field.name, "*")) for field in _IN_CRON}
    else:
        raise ValueError("schedule: it has no crontab")  # noqa: TRY004 - it is what the entry has
    return {field.name: _field(texts[field.name], field, cron) for field in _IN_CRON}


def _text(spec: Any) -> str:
    return ",".join(map(str, spec)) if isinstance(spec, list | tuple) else str(spec)


def _field(text: str, field: CronField, cron: Cron) -> str:
    """A field that Celery reads as beatd does; one that it does not is written as a list of its values."""
    if text == "?":
        return "*"
    if is_hashed(text):
        table = {MINUTE.name: cron.minutes, HOUR.name: cron.hours}.get(field.name)
        if table is None:
            raise ValueError(f'schedule: {field.name} "{text}" has no counterpart')
        return ",".join(str(value) for value in range(len(table) - 1) if table[value] == value)
    try:
        mask = read_field(text, field)
        if "7" not in text and read_field(text, field, celery=True) == mask:
            return text.lower()
    except ScheduleError:
        try:
            mask = read_field(text, field)
        except ScheduleError:
            raise ValueError(f'schedule: {field.name} "{text}" has no counterpart') from None
    return ",".join(map(str, values_of(mask)))


def _refuse_other_runs(entry: Entry, fields: Mapping[str, str], now_ms: int) -> None:
    """Raise ValueError if the fields, read as Celery's, run at other times."""
    table = {"task": entry.task, "schedule": dict(fields), "timezone": entry.schedule.zone.name}  # type: ignore[attr-defined]
    try:
        again = config.entry(entry.name, plain_table(table)).schedule
    except BeatdError:
        raise ValueError("schedule: it has no counterpart") from None
    if _dues(again, now_ms) != _dues(entry.schedule, now_ms):
        raise ValueError(f"schedule: Celery would run {entry.schedule.notation} at other times")


def _dues(schedule: Schedule, now_ms: int) -> list[int]:
    def following() -> Iterator[int]:
        due_ms = schedule.next_after_ms(now_ms)
        while due_ms is not None:
            yield due_ms
            due_ms = schedule.next_after_ms(due_ms)

    return list(islice(following(), _RUNS_COMPARED))


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
