"""The tables of django-celery-beat."""

from __future__ import annotations

from beatd.importing.found import Found, Note
from beatd.sources.child import ask

TIMEOUT_S = 60.0


def read_django_tables(settings: str) -> Found:
    """The periodic tasks in the database of the Django project whose settings module is ``settings``.

    Django runs in a process of its own (:mod:`beatd.importing.django_dump`). Raises ConfigError with the traceback.
    """
    where = "django-celery-beat"
    answer = ask("beatd.importing.django_dump", [settings], name=settings, where=where, timeout=TIMEOUT_S)
    return Found(answer["entries"], tuple(Note(*note) for note in answer["notes"]), answer["timezone"])
