"""Celery's own apps and schedules, in the notations of ``beat.toml``.

They are known by their class: Celery is not imported. A module that has them has done that already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta, tzinfo
from typing import Any

from beatd.exceptions import ConfigError, Fault, ScheduleError
from beatd.schedules.due import own_time
from beatd.schedules.schedule import StandIn
from beatd.schedules.timezone import name_of

_HOMES = {"celery", "django_celery_beat", "redbeat"}
_FIELDS = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")


def is_celery_app(value: object) -> bool:
    """True for an app of Celery, or of a class derived from that."""
    return any((each.__module__, each.__name__) == ("celery.app.base", "Celery") for each in type(value).__mro__)


def registrations(app: Any) -> dict[str, dict[str, Any]]:
    """Return what the Celery app would have ``celery beat`` send: name → task, schedule, args, kwargs, options.

    Imports its task modules and lets its signals run, as Celery does.
    """
    app.loader.import_default_modules()
    app.finalize()
    return {str(name): _fields(entry) for name, entry in {**_cleanup(app), **app.conf.beat_schedule}.items()}


def _cleanup(app: Any) -> dict[str, Any]:
    """The entry that ``celery beat`` adds for a result backend that does not remove old results itself.

    It does no harm for one that does: that of an app whose backend cannot be loaded here is not known.
    """
    conf = app.conf
    if not conf.result_backend or not conf.result_expires:
        return {}
    with contextlib.suppress(Exception):
        if app.backend.supports_autoexpire:
            return {}
    name, daily = "celery.backend_cleanup", {"minute": "0", "hour": "4"}
    return {name: {"task": name, "schedule": daily, "options": {"expires": 12 * 3600}}}


def _fields(entry: Any) -> dict[str, Any]:
    """The fields of a registration; of one that is none they are left for the reader of entries to refuse."""
    if not isinstance(entry, Mapping):
        return {"schedule": entry}
    fields = dict(entry)
    fields["task"] = getattr(fields.get("task"), "name", fields.get("task"))
    for key, empty in (("args", []), ("kwargs", {}), ("options", {})):
        fields[key] = _made(type(empty), fields.get(key) or empty)
    return fields


def _made(kind: type[list[Any]] | type[dict[Any, Any]], value: Any) -> Any:
    """The value as a list or dict, as it is if it is nothing of the kind."""
    fits = isinstance(value, Mapping) if kind is dict else isinstance(value, Iterable) and not isinstance(value, str)
    return kind(value) if fits else value


def translated(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an entry, with a schedule of Celery's, if it has one, in our notation. Raises ValueError."""
    schedule, found = fields.get("schedule"), dict(fields)
    if isinstance(found.get("timezone"), tzinfo):
        found["timezone"] = name_of(found["timezone"])
    if not is_celery_schedule(schedule):
        return found
    return {key: value for key, value in found.items() if key != "relative"} | notation(schedule)


def timezone_of(app: Any) -> str | None:
    """Return the name of the app's time zone, or None if it sets none. Raises ConfigError for one without a name."""
    try:
        return name_of(app.conf.timezone) if app.conf.timezone else None
    except ScheduleError as error:
        raise ConfigError([Fault(str(app.main), None, "", str(error))]) from None


def dropped(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return what :func:`translated` leaves out, each with the reason."""
    schedule = fields.get("schedule")
    if (isinstance(schedule, StandIn) or is_celery_schedule(schedule)) and getattr(schedule, "nowfun", None):
        yield (
            "schedule.nowfun",
            "it has no effect: the daemon has a clock of its own; for another time zone set that of the entry",
        )


def is_celery_schedule(value: object) -> bool:
    """True for a schedule of Celery, or of a package that extends it."""
    return _kind(value) is not None


def notation(value: Any) -> dict[str, Any]:
    """The fields of an entry, ``schedule`` and maybe ``timezone``, that mean what Celery's schedule means.

    Raises ValueError for one that has no counterpart, such as RedBeat's ``rrule``, or that decides itself when it is
    due.
    """
    if own := own_time(value, _HOMES):
        raise ValueError(f"a schedule with its own {own} has no counterpart: write it as a schedule of beatd")
    match _kind(value):
        case "crontab":
            fields = {name: _plain(getattr(value, f"_orig_{name}")) for name in _FIELDS}
            zone = vars(value).get("tz")  # of django-celery-beat's; Celery's own has that of the app
            table = {name: spec for name, spec in fields.items() if spec != "*"} or {"minute": "*"}
            return {"schedule": table} | ({"timezone": name_of(zone)} if zone is not None else {})
        case "solar":
            return {"schedule": {"solar": value.event, "lat": float(value.lat), "lon": float(value.lon)}}
        case "clocked":
            return {"schedule": {"at": value.clocked_time}}
        case "schedule":
            seconds = value.run_every
            seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
            return {"schedule": {"every": seconds, "relative": True} if value.relative else seconds}
    named = f"{type(value).__module__}.{type(value).__qualname__}"
    raise ValueError(f"a schedule of the class {named} has no counterpart; write its times as a crontab or an interval")


def _kind(value: object) -> str | None:
    """The name of the nearest class that is known, looked for among all that it is made of."""
    for each in type(value).__mro__:
        home = each.__module__.partition(".")[0]
        if home == "redbeat":
            return "rrule"
        if home in {"celery", "django_celery_beat"} and each.__name__ in {"crontab", "solar", "clocked", "schedule"}:
            return each.__name__
        if home == "celery" and each.__name__ == "BaseSchedule":
            return "unknown"
    return None


def _plain(spec: Any) -> Any:
    """A field as it was given: a number, a text, or a list of both."""
    if isinstance(spec, str) or not isinstance(spec, Iterable):
        return spec
    return sorted(spec, key=str) if isinstance(spec, set | frozenset) else list(spec)
