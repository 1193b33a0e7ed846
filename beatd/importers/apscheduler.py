"""Jobs of APScheduler 3: from its job stores in SQL databases or Redis, or a file with pickled jobs.

Jobs are stored as pickles. They are read as data (:mod:`beatd.importers.pickles`), so that nothing in them is run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from beatd.exceptions import ConfigError, Fault
from beatd.importers.collected import ANY_AGE, Collected
from beatd.importers.pickles import LARGEST, Record, class_of, read_pickle, zone_name
from beatd.importers.report import FoundSchedule
from beatd.redaction import redacted_text
from beatd.urls import shown as shown_url

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MONTHS = (
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
)  # fmt: skip
_POSITIONS = ("1", "2", "3", "4", "5", "L")
_HIGHEST = {"second": 59, "minute": 59, "hour": 23, "day": 31, "month": 12}
_SQLITE = "sqlite:///"

Jobs = Iterable[tuple[str, bytes]]


class Reader(Protocol):
    """The command that is needed, of a client of Redis."""

    def hgetall(self, name: str, /) -> Any: ...


def jobs_of_redis(client: Reader, key: str) -> Jobs:
    """The pickled jobs of a job store in Redis."""
    found = client.hgetall(key)
    return [(_text(name), bytes(state)) for name, state in sorted(found.items())]


def jobs_of_database(url: str, table: str) -> Jobs:
    """The pickled jobs of a job store in an SQL database; SQLite needs nothing else. Raises ConfigError."""
    if not table.isidentifier():
        raise ConfigError([Fault("apscheduler", None, "--table", f"{table[:60]!r} is no name of a table")])
    question = f"SELECT id, job_state FROM {table} ORDER BY id"  # noqa: S608 - the name is an identifier
    if url.startswith(_SQLITE):
        path = Path(url.removeprefix(_SQLITE))
        if not path.is_file():
            raise _refused(str(path), "there is no such file")
        try:
            with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5) as connection:
                return [(str(name), bytes(state)) for name, state in connection.execute(question)]
        except sqlite3.Error as error:
            raise _refused(str(path), str(error)) from None
    return _by_sqlalchemy(url, question)


def _by_sqlalchemy(url: str, question: str) -> Jobs:
    try:
        import sqlalchemy  # noqa: PLC0415 - the user's, not a dependency of ours
    except ImportError:
        raise _refused(_shown(url), "other databases than SQLite need pip install sqlalchemy") from None
    try:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            return [(str(name), bytes(state)) for name, state in connection.execute(sqlalchemy.text(question))]
    except ModuleNotFoundError as error:
        raise _refused(_shown(url), f"the driver {error.name!r} is not installed: pip install {error.name}") from None
    except Exception as error:  # noqa: BLE001 - drivers raise errors of their own
        raise _refused(_shown(url), redacted_text(" ".join(str(error).split()))[:200]) from None


def jobs_of_file(path: Path) -> Jobs:
    """The pickled jobs of a file: one state, a list of states, or a dict of them by id. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        found = read_pickle(data)
    except OSError as error:
        raise _refused(str(path), f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise _refused(str(path), str(error)) from None
    return _States(found)


class _States(list[tuple[str, bytes]]):
    """States that are read already."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        if isinstance(found, dict) and "trigger" not in found:
            self.states = [(str(name), state) for name, state in found.items()]
        else:
            self.states = [("", state) for state in (found if isinstance(found, list | tuple) else [found])]


def read_apscheduler(jobs: Jobs, *, shown: str, timezone: str | None = None) -> FoundSchedule:
    """The jobs as entries."""
    collected = Collected(shown)
    for name, state in _states(collected, jobs):
        fields = state.fields if isinstance(state, Record) else state
        known_as = name or (str(fields.get("id") or "") if isinstance(fields, Mapping) else "")
        with collected.reading(known_as or shown):
            if not isinstance(fields, Mapping) or "trigger" not in fields:
                raise ValueError("is no job of APScheduler")
            _take(collected, known_as or "job", fields, timezone)
    return collected.found(timezone)


def _states(collected: Collected, jobs: Jobs) -> Iterator[tuple[str, Any]]:
    if isinstance(jobs, _States):
        yield from jobs.states
        return
    for name, data in jobs:
        with collected.reading(name):
            yield name, read_pickle(data)


def _take(collected: Collected, name: str, state: Mapping[str, Any], timezone: str | None) -> None:
    reference = state.get("func")
    if not isinstance(reference, str):
        raise ValueError("its function has no name")  # noqa: TRY004 - it is what the store has
    trigger, next_run = state["trigger"], state.get("next_run_time")
    fields: dict[str, Any] = {"task": reference.replace(":", "."), **_when(trigger)}
    fields["args"], fields["kwargs"] = list(state.get("args") or ()), dict(state.get("kwargs") or {})
    if any(isinstance(value, Record) for value in (*fields["args"], *fields["kwargs"].values())):
        raise ValueError("its arguments are objects: a message carries numbers, texts, lists and tables")
    fields |= _policies(state)
    begins = [start for start, jitter_s in _intervals(trigger) if _is_ahead(start, jitter_s, next_run)]
    if begins and class_of(trigger) == "IntervalTrigger":
        fields["start"] = begins[0]
    entry = collected.add(name, fields)
    for about, why in _different(reference, state, begins):
        collected.note(entry, about, why)
    if timezone is None and fields.get("timezone", "") is None:
        why = "cannot be read: the times are taken as UTC; --timezone names the zone"
        collected.note(entry, "timezone", why)
    if isinstance(next_run, datetime):
        collected.ran(entry, next_run - timedelta(milliseconds=1))


def _policies(state: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if state.get("next_run_time") is None:
        fields["enabled"] = False
    if state.get("coalesce") is False:
        fields["catch_up"] = "all"
    if "misfire_grace_time" in state and state["misfire_grace_time"] is None:
        fields["catch_up_window"] = ANY_AGE
    elif (grace := _number(state.get("misfire_grace_time"))) is not None and grace > 1:  # 1 s is its default
        fields["catch_up_window"] = grace
    return fields


def _different(reference: str, state: Mapping[str, Any], begins: list[datetime]) -> Iterator[tuple[str, str]]:
    trigger = state["trigger"]
    yield "func", f"{reference} must be a task of that name: a worker runs it"
    if state.get("max_instances") == 1:
        yield "max_instances", 'not carried over; overlap = "skip" comes near to it'
    elif (most := _number(state.get("max_instances"))) is not None:
        yield "max_instances", f"not carried over: more than {most} runs may overlap here"
    if jitter := (trigger.fields.get("jitter") if isinstance(trigger, Record) else None):
        yield "jitter", f"{jitter} s before or after; here up to so much after, the same each time"
    if begins and class_of(trigger) == "OrTrigger" and state.get("next_run_time") is not None:
        yield "start", f"its interval begins at {begins[0].isoformat()}; here it runs before that, too"


def _intervals(trigger: Any) -> Iterator[tuple[datetime, float]]:
    """Start and jitter (s) of an interval, or of those inside of a trigger: no run is before the start."""
    state = trigger.fields if isinstance(trigger, Record) else {}
    inside = state.get("triggers") if class_of(trigger) == "OrTrigger" else [(class_of(trigger), state)]
    for name, fields in inside or ():
        start = fields.get("start_date")
        if str(name).rpartition(":")[2] == "IntervalTrigger" and isinstance(start, datetime):
            yield start, float(fields.get("jitter") or 0)


def _is_ahead(start: datetime, jitter_s: float, next_run: Any) -> bool:
    """True if nothing has run since the start, as far as is known."""
    return not isinstance(next_run, datetime) or next_run <= start + timedelta(seconds=jitter_s)


def _when(trigger: Any) -> dict[str, Any]:
    return _fields(class_of(trigger), trigger.fields if isinstance(trigger, Record) else {}, type(trigger).__name__)


def _fields(kind: str, state: Mapping[str, Any], unknown: str = "object") -> dict[str, Any]:
    """The fields of an entry for a trigger by its class and state."""
    match kind:
        case "CronTrigger":
            fields = {"schedule": _cron(state), "timezone": zone_name(state.get("timezone")) or None}
        case "IntervalTrigger":
            fields = {"schedule": _interval(state)}
        case "DateTrigger":
            fields = {"schedule": {"at": _moment(state.get("run_date"))}}
        case "CalendarIntervalTrigger":
            fields = _calendar_interval(state)
        case "OrTrigger":
            fields = _any_of(state)
        case "AndTrigger":
            raise ValueError(
                "a job that waits until several triggers agree: write one schedule, with a blackout if needed"
            )
        case other:
            raise ValueError(f"the trigger {other or unknown} has no counterpart")
    if jitter := state.get("jitter"):
        fields["jitter"] = jitter
    if isinstance(end := state.get("end_date"), datetime):
        fields["end"] = end
    if kind == "CronTrigger" and isinstance(start := state.get("start_date"), datetime):
        fields["start"] = start
    return fields


def _any_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """A list of schedules, if they differ in nothing else."""
    triggers = state.get("triggers") or ()
    if not triggers or not all(isinstance(inside, Mapping) for _, inside in triggers):
        raise ValueError("its triggers cannot be read")
    found = [_fields(str(name).rpartition(":")[2], inside) for name, inside in triggers]
    schedules = [fields.pop("schedule") for fields in found]
    on_clocks = [fields for fields in found if "timezone" in fields]
    zone = {"timezone": on_clocks[0]["timezone"]} if on_clocks else {}
    for fields in found:
        if differing := sorted(key for key in fields if key not in zone or fields[key] != zone[key]):
            raise ValueError(f"several triggers in one job, with {' and '.join(differing)}: write an entry for each")
    return {"schedule": schedules, **zone}


def _calendar_interval(state: Mapping[str, Any]) -> dict[str, Any]:
    """Days, weeks, months or years at one time of the day; a time that a clock change leaves out is no run."""
    years, months, weeks, days = state.get("interval") or (0, 0, 0, 0)
    hour, minute, second = state.get("time") or (0, 0, 0)
    first, last, zone = state.get("start_date"), state.get("end_date"), zone_name(state.get("timezone"))
    if not isinstance(first, date):
        raise ValueError("it has no date that can be read")  # noqa: TRY004 - it is what the store has
    months, days = months + 12 * years, days + 7 * weeks
    fields: dict[str, Any] = {"timezone": zone or None, "start": datetime.combine(first, time())}
    if isinstance(last, date):
        fields["end"] = datetime.combine(last, time(23, 59, 59))
    if when := _calendar_days(months, days, first):
        times = f"{minute} {hour} {when}"
        return {"schedule": f"{second} {times}" if second else times, "dst": "skip", **fields}
    if not months and days > 0 and zone == "UTC":
        anchor = datetime.combine(first, time(hour, minute, second), UTC)
        return {"schedule": {"every": float(days * 86_400), "anchor": anchor}, **fields}
    length = (
        " and ".join(f"{count} {unit}" for count, unit in ((months, "months"), (days, "days")) if count) or "0 days"
    )
    raise ValueError(
        f"an interval of {length} at one time of the day has no counterpart: write a cron string, "
        "or an interval with an anchor, which a clock change shifts by an hour"
    )


def _calendar_days(months: int, days: int, first: date) -> str:
    """Day, month and weekday of a cron string; empty if none says the same."""
    if not months and days in (1, 7):
        return "* * *" if days == 1 else f"* * {_WEEKDAYS[first.weekday()]}"
    if days or not months or 12 % months:
        return ""
    named = sorted((first.month - 1 + step) % 12 for step in range(0, 12, months))
    return f"{first.day} {'*' if months == 1 else ','.join(_MONTHS[month] for month in named)} *"


def _interval(state: Mapping[str, Any]) -> dict[str, Any]:
    interval = state.get("interval")
    if not isinstance(interval, timedelta):
        raise ValueError("its interval cannot be read")  # noqa: TRY004
    return {"every": interval.total_seconds(), "anchor": _moment(state.get("start_date"))}


def _moment(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise ValueError("it has no date that can be read")  # noqa: TRY004
    return value


def _cron(state: Mapping[str, Any]) -> Any:
    texts: dict[str, str] = {}
    for field in state.get("fields") or ():
        inside = field.fields if isinstance(field, Record) else {}
        name = str(inside.get("name"))
        read = _weekdays if name == "day_of_week" else partial(_expression, high=_HIGHEST.get(name, 0))
        texts[name] = ",".join(map(read, inside.get("expressions") or ()))
    for name in ("year", "week"):
        if texts.get(name, "*") != "*":
            raise ValueError(f'the field {name} "{texts[name]}" has no counterpart')
    minute, hour, day, month, weekday, second = (
        texts.get(name) or "*" for name in ("minute", "hour", "day", "month", "day_of_week", "second")
    )
    named = [part for part in day.split(",") if part.startswith(_WEEKDAYS)]  # "2nd tue", "last fri": tue#2, friL
    others = [part for part in day.split(",") if part not in named]
    if named:
        if weekday != "*" or any(part.startswith("*") for part in others):
            raise ValueError("a weekday's position and a day of the week together have no counterpart")
        day, weekday = ",".join(others) or "*", ",".join(named)  # of two restricted days either suffices
    elif day != "*" and weekday != "*":
        if second != "0" or day == "L":
            raise ValueError("day, day of the week and seconds (or the last day) together have no counterpart")
        table = {"minute": minute, "hour": hour, "day_of_month": day, "month_of_year": month, "day_of_week": weekday}
        return {key: value for key, value in table.items() if value != "*" or key == "minute"}
    times = f"{minute} {hour} {day} {month} {weekday}"
    return times if second == "0" else f"{second} {times}"


def _weekdays(expression: Any) -> str:
    """An expression of weekdays by their names: Monday is 0 there."""
    state = expression.fields if isinstance(expression, Record) else {}
    step, first, last = (_number(state.get(name)) for name in ("step", "first", "last"))
    match class_of(expression):
        case "AllExpression" if not step:
            return "*"
        case "AllExpression":
            return ",".join(_WEEKDAYS[::step])
        case "RangeExpression" | "WeekdayRangeExpression":
            end = last if last is not None else 6 if step else first
            return ",".join(_WEEKDAYS[(first or 0) : (end or 0) + 1 : step or 1])
    return _expression(expression, high=6)


def _expression(expression: Any, *, high: int) -> str:
    state = expression.fields if isinstance(expression, Record) else {}
    step, first, last = (_number(state.get(name)) for name in ("step", "first", "last"))
    match class_of(expression):
        case "AllExpression":
            return f"*/{step}" if step else "*"
        case "RangeExpression":
            end = high if last is None and step else last
            text = f"{first}-{end}" if end is not None and end != first else str(first)
            return f"{text}/{step}" if step and text != str(first) else text
        case "MonthRangeExpression":
            start, end_name = _MONTHS[(first or 1) - 1], _MONTHS[(last or first or 1) - 1]
            return start if start == end_name else f"{start}-{end_name}"
        case "WeekdayPositionExpression":
            position, weekday = _number(state.get("option_num")), _number(state.get("weekday"))
            name, which = _WEEKDAYS[weekday or 0], _POSITIONS[position or 0]
            return f"{name}L" if which == "L" else f"{name}#{which}"
        case "LastDayOfMonthExpression":
            return "L"
    raise ValueError(f"the expression {class_of(expression) or type(expression).__name__} has no counterpart")


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)


def _shown(url: str) -> str:
    return shown_url(url) if "://" in url else url


def _refused(shown: str, why: str) -> ConfigError:
    return ConfigError([Fault(shown, None, "", why)])
