"""Schedules from elsewhere: a Celery app, a crontab file, RedBeat's keys, django-celery-beat's tables.

The promise: what is written is a file that loads, and nothing is lost in silence. Whatever cannot be carried over, or
means something else here, is a note with the entry's name, what it is about, and why.
"""

from beatd.importers.report import FoundSchedule, ImportResult, Note, carry_over

__all__ = ["FoundSchedule", "ImportResult", "Note", "carry_over"]
