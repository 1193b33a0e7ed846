"""The importer for the tables of django-celery-beat.

They are read in a child process: ``python -m beatd.importers.django_celery_beat SETTINGS FD``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any

from beatd.app.find_app import import_module
from beatd.clock import SystemClock
from beatd.exceptions import ConfigError, Fault
from beatd.importers.dump import write
from beatd.importers.report import FoundSchedule, Note
from beatd.redaction import redacted_text
from beatd.sources.child_process import ask
from beatd.timestamps import to_ms

TIMEOUT_S = 60.0


def read_django_tables(settings: str) -> FoundSchedule:
    """The periodic tasks in the database of the Django project whose settings module is ``settings``.

    Django runs in a process of its own (:mod:`beatd.importers.django_celery_beat`). Raises ConfigError with the
    traceback.
    """
    where = "django-celery-beat"
    answer = ask("beatd.importers.django_celery_beat", [settings], name=settings, where=where, timeout=TIMEOUT_S)
    notes = tuple(Note(*note) for note in answer["notes"])
    return FoundSchedule(answer["entries"], notes, answer["timezone"], answer["last_runs"])


_OPTIONS = ("queue", "exchange", "routing_key", "priority")
_CRONTAB = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
_MICROSECONDS = {"days": 86_400_000_000, "hours": 3_600_000_000, "minutes": 60_000_000, "seconds": 1_000_000}


def find(settings: str) -> FoundSchedule:
    """The rows of ``PeriodicTask`` with their schedules."""
    if "/" in settings or settings.endswith((".json", ".sqlite3", ".db", ".py")):  # a dump, the database, a path
        raise _refused(settings, "expected the settings module of the project, such as proj.settings")
    import_module(settings, where="django-celery-beat")  # says what to do if it is not here
    project = _set_up(settings)
    entries: dict[str, dict[str, Any]] = {}
    notes: list[Note] = []
    last_runs: dict[str, int] = {}
    for row in _rows(settings):
        try:
            entries[row.name] = _fields(row)
        except ValueError as error:
            notes.append(Note(row.name, "", str(error)))
        else:
            notes += _different(row)
            if row.last_run_at is not None:
                last_runs[row.name] = to_ms(_aware(row.last_run_at))
    return FoundSchedule(entries, tuple(notes), str(getattr(project, "CELERY_TIMEZONE", None) or "UTC"), last_runs)


def _set_up(settings: str) -> Any:
    """Start Django and return its settings. Raises ConfigError, with the next step, for what newcomers do wrong."""
    os.environ["DJANGO_SETTINGS_MODULE"] = settings  # of this process; it is the only way to say it to Django
    try:
        import django  # noqa: PLC0415
        from django.conf import settings as project  # noqa: PLC0415

        if "django_celery_beat" not in str(project.INSTALLED_APPS):
            text = "django_celery_beat is not in its INSTALLED_APPS: expected the settings module of the project"
            raise _refused(settings, text)
        django.setup()
    except ModuleNotFoundError as error:
        if error.name == "django":
            raise _refused(settings, "Django is not installed here; install beatd where the project is") from None
        raise
    return project


def _rows(settings: str) -> Iterator[Any]:
    from django.db import DatabaseError  # noqa: PLC0415
    from django_celery_beat.models import PeriodicTask  # noqa: PLC0415 - only after the set-up

    try:
        yield from PeriodicTask.objects.select_related("interval", "crontab", "solar", "clocked").order_by("name")
    except DatabaseError as error:
        why = redacted_text(" ".join(str(error).split()))[:200]
        step = "start the database, or name the settings that reach it; missing tables: python manage.py migrate"
        raise _refused(settings, f"its database cannot be read: {why}; {step}") from None


def _refused(settings: str, text: str) -> ConfigError:
    return ConfigError([Fault("django-celery-beat", None, settings, text)])


def _fields(row: Any) -> dict[str, Any]:
    """Raises ValueError for a row that nothing can be made of."""
    fields: dict[str, Any] = {"task": row.task, **_when(row)}
    fields["args"] = _json(row.args, "args") or []
    fields["kwargs"] = _json(row.kwargs, "kwargs") or {}
    options = {name: value for name in _OPTIONS if (value := getattr(row, name)) not in (None, "")}
    if headers := _json(row.headers, "headers"):
        options["headers"] = headers
    if row.expire_seconds:
        options["expires"] = row.expire_seconds
    policies = {"start": _aware(row.start_time), "end": _aware(row.expires), "max_runs": 1 if row.one_off else None}
    if not row.enabled or (row.one_off and row.total_run_count):
        policies["enabled"] = False
    return fields | options | policies


def _when(row: Any) -> dict[str, Any]:
    if row.interval:
        return {"schedule": row.interval.every * _MICROSECONDS.get(row.interval.period, 1) / 1_000_000}
    if row.crontab:
        fields = {name: getattr(row.crontab, name) for name in _CRONTAB}
        table = {name: spec for name, spec in fields.items() if spec != "*"} or {"minute": "*"}
        return {"schedule": table, "timezone": str(row.crontab.timezone)}
    if row.solar:
        place = {"lat": float(row.solar.latitude), "lon": float(row.solar.longitude)}
        return {"schedule": {"solar": row.solar.event, **place}}
    if row.clocked:
        return {"schedule": {"at": _aware(row.clocked.clocked_time)}}
    raise ValueError("it has no schedule")


def _different(row: Any) -> Iterator[Note]:
    if row.one_off and row.enabled and row.total_run_count:
        yield Note(row.name, "enabled", "it ran once and is one-off: not in force")
    if row.clocked and row.enabled and to_ms(_aware(row.clocked.clocked_time)) < SystemClock().now_ms():
        yield Note(row.name, "schedule", "its moment has passed: it will not run")


def _aware(moment: datetime | None) -> Any:
    """The moment with its zone: without ``USE_TZ`` the project keeps it on the clocks of its ``TIME_ZONE``."""
    from django.utils.timezone import make_aware  # noqa: PLC0415 - the user's, not a dependency of ours

    return make_aware(moment) if moment is not None and moment.tzinfo is None else moment


def _json(text: str | None, name: str) -> Any:
    try:
        return json.loads(text or "null")
    except ValueError as error:
        raise ValueError(f"its {name} are not JSON: {error}") from None


if __name__ == "__main__":
    write(int(sys.argv[2]), "django-celery-beat", sys.argv[1], partial(find, sys.argv[1]))
