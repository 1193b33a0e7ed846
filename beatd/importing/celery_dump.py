"""The child process of :mod:`beatd.importing.celery_app`: ``python -m beatd.importing.celery_dump MODULE[:APP] FD``."""

from __future__ import annotations

import sys
from functools import partial

from beatd.app.loading import locate
from beatd.importing.dump import write
from beatd.importing.found import Found, Note
from beatd.sources.celery_values import is_celery_app, registrations


def find(name: str) -> Found:
    """What the app registers, as it would be for ``celery -A NAME beat``."""
    app = locate(name, is_celery_app, where="celery")
    entries = registrations(app)
    notes = []
    if not app.conf.enable_utc and not app.conf.timezone:
        why = "enable_utc is off: Celery uses the zone of the host; set timezone in the file, it is UTC now"
        notes.append(Note(name, "timezone", why))
    return Found(entries, tuple(notes), str(app.conf.timezone or "UTC"))


if __name__ == "__main__":
    write(int(sys.argv[2]), "celery", sys.argv[1], partial(find, sys.argv[1]))
