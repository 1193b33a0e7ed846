"""Writer of django-celery-beat's tables: the rows of entries, in one transaction.

``python -m beatd.importers.django_tables SETTINGS dry|write FD`` reads the rows as JSON from standard input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

from beatd.importers.dump import write_document
from beatd.importers.report import Note
from beatd.message.json_codec import dumps, loads
from beatd.sources.child_process import ask

TIMEOUT_S = 120.0
_KINDS = ("interval", "crontab", "solar", "clocked")


class WrittenTasks(NamedTuple):
    """Names of tasks that were added, changed, and left as they are because no entry has their name."""

    added: list[str]
    changed: list[str]
    others: list[str]
    notes: tuple[Note, ...]
    lost: int


def write_django_tables(settings: str, rows: Mapping[str, Mapping[str, Any]], *, dry_run: bool) -> WrittenTasks:
    """Write rows into the database of the Django project whose settings module is ``settings``.

    Django runs in a process of its own. Raises ConfigError with the traceback; nothing is written then.
    """
    where = "django-celery-beat"
    words = [settings, "dry" if dry_run else "write"]
    answer = ask(
        "beatd.importers.django_tables", words, name=settings, where=where, timeout=TIMEOUT_S, given=dumps(rows)
    )
    notes = tuple(Note(*note) for note in answer["notes"])
    return WrittenTasks(answer["added"], answer["changed"], answer["others"], notes, len(notes))


def _write(settings: str, how: str, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    os.environ["DJANGO_SETTINGS_MODULE"] = settings  # of this process; it is the only way to say it to Django
    import django  # noqa: PLC0415 - the user's, not a dependency of ours
    from django.core.exceptions import ValidationError  # noqa: PLC0415

    django.setup()
    from django.db import transaction  # noqa: PLC0415 - only after the set-up
    from django_celery_beat.models import PeriodicTask, PeriodicTasks  # noqa: PLC0415

    added: list[str] = []
    changed: list[str] = []
    notes: list[Note] = []
    with transaction.atomic():
        for name, row in rows.items():
            try:
                with transaction.atomic():
                    is_new = _put(PeriodicTask, name, row)
            except ValidationError as error:
                notes.append(Note(name, "", "; ".join(error.messages)))
                continue
            (added if is_new else changed).append(name)
        PeriodicTasks.update_changed()
        others = PeriodicTask.objects.exclude(name__in=list(rows)).exclude(name="celery.backend_cleanup")
        other_names = list(others.filter(enabled=True).order_by("name").values_list("name", flat=True))
        if how == "dry":
            transaction.set_rollback(True)
    return {"added": added, "changed": changed, "others": other_names, "notes": notes}


def _put(model: Any, name: str, row: Mapping[str, Any]) -> bool:
    """Put one task; tells whether it is new. Raises ValidationError."""
    fields = {
        key: value for key, value in row.items() if key not in {"schedule", "start_time", "expires", "last_run_at"}
    }
    for key in ("start_time", "expires", "last_run_at"):
        fields[key] = _moment(row.get(key))
    [(kind, schedule)] = row["schedule"].items()
    fields |= dict.fromkeys(_KINDS)
    fields[kind] = _schedule(kind, schedule)
    task = model.objects.filter(name=name).first()
    is_new = task is None
    task = task or model(name=name)
    if not is_new and row.get("last_run_at") is None:
        fields.pop("last_run_at")
    for key, value in fields.items():
        setattr(task, key, value)
    task.full_clean()
    task.save()
    return is_new


def _schedule(kind: str, fields: Mapping[str, Any]) -> Any:
    """The row of a schedule; one that is there already is used again."""
    from django_celery_beat import models  # noqa: PLC0415

    model = getattr(models, f"{kind.capitalize()}Schedule")
    values = dict(fields)
    if kind == "clocked":
        values["clocked_time"] = _moment(values["clocked_time"])
    if kind == "solar":
        values |= {key: Decimal(values[key]) for key in ("latitude", "longitude")}
    found = model.objects.filter(**values).first()
    if found is None:
        found = model(**values)
        found.full_clean()
        found.save()
    return found


def _moment(text: str | None) -> Any:
    """The moment as the project keeps it: aware, or on the clocks of its zone."""
    from django.conf import settings  # noqa: PLC0415
    from django.utils.timezone import make_naive  # noqa: PLC0415

    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment if settings.USE_TZ else make_naive(moment)


if __name__ == "__main__":
    given = loads(sys.stdin.buffer.read())
    write_document(
        int(sys.argv[3]), "django-celery-beat", sys.argv[1], partial(_write, sys.argv[1], sys.argv[2], given)
    )
