"""The project; the app is imported so that ``shared_task`` finds it."""

from proj.celery import app

__all__ = ["app"]
