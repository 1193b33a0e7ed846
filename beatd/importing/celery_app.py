"""The ``beat_schedule`` of a Celery app, with what its ``add_periodic_task`` registers."""

from __future__ import annotations

from beatd.importing.found import Found, Note
from beatd.sources.child import ask

TIMEOUT_S = 60.0


def read_celery_app(name: str) -> Found:
    """What the app called ``MODULE[:APP]`` registers. Raises ConfigError with the user's own traceback.

    The module is imported by a process of its own (:mod:`beatd.importing.celery_dump`), with Celery.
    """
    answer = ask("beatd.importing.celery_dump", [name], name=name, where="celery", timeout=TIMEOUT_S)
    notes = tuple(Note(*note) for note in answer["notes"])
    return Found(answer["entries"], notes, answer["timezone"])
