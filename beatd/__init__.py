"""beatd: a highly available cron for task queues.

The beat reads a schedule (:mod:`beatd.sources`, :mod:`beatd.schedules`), leads or stands by (:mod:`beatd.beat`), and
puts each run on the broker exactly once (:mod:`beatd.store`, :mod:`beatd.broker`). Tasks are written against
:class:`App` (:mod:`beatd.app`) and run by :mod:`beatd.worker`, or by any Celery worker.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from beatd.app.app import App
    from beatd.app.log import get_task_logger
    from beatd.app.result import AsyncResult
    from beatd.app.shared import current_app, shared_task
    from beatd.app.signature import Signature
    from beatd.app.task import Task
    from beatd.schedules import crontab, every, solar
    from beatd.worker.request import Request

_HOMES = {
    "App": "beatd.app.app",
    "AsyncResult": "beatd.app.result",
    "Request": "beatd.worker.request",
    "Signature": "beatd.app.signature",
    "Task": "beatd.app.task",
    "crontab": "beatd.schedules",
    "current_app": "beatd.app.shared",
    "every": "beatd.schedules",
    "get_task_logger": "beatd.app.log",
    "shared_task": "beatd.app.shared",
    "solar": "beatd.schedules",
}

__all__ = [
    "App",
    "AsyncResult",
    "Request",
    "Signature",
    "Task",
    "crontab",
    "current_app",
    "every",
    "get_task_logger",
    "shared_task",
    "solar",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: ``import beatd`` alone, as every submodule does, costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'beatd' has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found
