"""The importer for a Celery app: its ``beat_schedule``, with what its ``add_periodic_task`` registers.

The app is imported in a child process: ``python -m beatd.importers.celery_app MODULE[:APP] FD``.
"""

from __future__ import annotations

import sys
from functools import partial

from beatd.app.find_app import locate
from beatd.importers.dump import write
from beatd.importers.report import FoundSchedule, Note
from beatd.sources.app_check import app_remarks, task_remarks
from beatd.sources.celery_schedule import is_celery_app, registrations, timezone_of
from beatd.sources.child_process import ask
from beatd.sources.task_options import unused_options, with_task_options

TIMEOUT_S = 60.0


def read_celery_app(name: str) -> FoundSchedule:
    """Return the registrations of the app ``MODULE[:APP]``. Raises ConfigError with the user's own traceback.

    The module is imported by a process of its own (:mod:`beatd.importers.celery_app`), with Celery.
    """
    answer = ask("beatd.importers.celery_app", [name], name=name, where="celery", timeout=TIMEOUT_S)
    notes = tuple(Note(*note) for note in answer["notes"])
    return FoundSchedule(answer["entries"], notes, answer["timezone"])


def find(name: str) -> FoundSchedule:
    """Return the registrations as ``celery -A NAME beat`` sees them."""
    app = locate(name, is_celery_app, where="celery")
    notes: list[Note] = []
    entries = {}
    registered = registrations(app)
    for entry, fields in registered.items():
        try:
            entries[entry] = with_task_options(app, fields)
        except Exception as error:  # noqa: BLE001 - routers of the user's may raise anything
            notes.append(Note(entry, "", str(error) or type(error).__name__))
        else:
            notes += [Note(entry, about, why) for about, why in unused_options(fields)]
    notes += [Note(entry, "task", why) for entry, why in task_remarks(app, registered)]
    notes += [Note(name, about, why) for about, why in app_remarks(app)]
    if not app.conf.enable_utc and not app.conf.timezone:
        why = "enable_utc is off: Celery uses the zone of the host; set timezone in the file, it is UTC now"
        notes.append(Note(name, "timezone", why))
    return FoundSchedule(entries, tuple(notes), timezone_of(app) or "UTC")


if __name__ == "__main__":
    write(int(sys.argv[2]), "celery", sys.argv[1], partial(find, sys.argv[1]))
