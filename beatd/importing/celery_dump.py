"""The child process of :mod:`beatd.importing.celery_app`: ``python -m beatd.importing.celery_dump MODULE[:APP] FD``."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from beatd.app.loading import import_module
from beatd.importing.dump import write
from beatd.importing.found import Found, Note


def find(name: str) -> Found:
    """What the app registers, as it would be for ``celery -A NAME beat``."""
    from celery.app.utils import find_app  # noqa: PLC0415 - Celery is the user's, not a dependency of ours

    import_module(name.partition(":")[0], where="celery")  # first: what it raises is told better
    app = find_app(name)
    app.loader.import_default_modules()
    app.finalize()
    entries = {str(key): _fields(entry) for key, entry in app.conf.beat_schedule.items()}
    notes = []
    if not app.conf.enable_utc and not app.conf.timezone:
        why = "enable_utc is off: Celery uses the zone of the host; set timezone in the file, it is UTC now"
        notes.append(Note(name, "timezone", why))
    return Found(entries, tuple(notes), str(app.conf.timezone or "UTC"))


def _fields(entry: Any) -> dict[str, Any]:
    fields = dict(entry)
    fields["task"] = getattr(fields.get("task"), "name", fields.get("task"))
    for key, empty in (("args", []), ("kwargs", {}), ("options", {})):
        fields[key] = type(empty)(fields.get(key) or empty)
    return fields


if __name__ == "__main__":
    write(int(sys.argv[2]), "celery", sys.argv[1], partial(find, sys.argv[1]))
