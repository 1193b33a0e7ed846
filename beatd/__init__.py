"""beatd: a highly available cron for task queues.

The beat reads a schedule (:mod:`beatd.sources`, :mod:`beatd.schedules`), leads or stands by (:mod:`beatd.beat`), and
puts each run on the broker exactly once (:mod:`beatd.store`, :mod:`beatd.broker`). Tasks are written against
:class:`App` (:mod:`beatd.app`) and run by :mod:`beatd.worker`, or by any Celery worker.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    from beatd.app.app import App
    from beatd.app.canvas import chain, chord, chunks, group, xmap, xstarmap
    from beatd.app.canvas.signature import Signature, maybe_signature, signature
    from beatd.app.current import current_app, current_task, shared_task
    from beatd.app.group_result import GroupResult, ResultSet
    from beatd.app.message_options import uuid
    from beatd.app.result import AsyncResult, allow_join_result
    from beatd.app.task import Task
    from beatd.log import get_task_logger
    from beatd.schedules import crontab, every, schedule, solar
    from beatd.worker.request import Request

    __version__: str

_HOMES = {
    "App": "beatd.app.app",
    "AsyncResult": "beatd.app.result",
    "GroupResult": "beatd.app.group_result",
    "Request": "beatd.worker.request",
    "ResultSet": "beatd.app.group_result",
    "Signature": "beatd.app.canvas.signature",
    "Task": "beatd.app.task",
    "allow_join_result": "beatd.app.result",
    "chain": "beatd.app.canvas",
    "chord": "beatd.app.canvas",
    "chunks": "beatd.app.canvas",
    "crontab": "beatd.schedules",
    "current_app": "beatd.app.current",
    "current_task": "beatd.app.current",
    "every": "beatd.schedules",
    "get_task_logger": "beatd.log",
    "group": "beatd.app.canvas",
    "maybe_signature": "beatd.app.canvas.signature",
    "schedule": "beatd.schedules",
    "shared_task": "beatd.app.current",
    "signature": "beatd.app.canvas.signature",
    "solar": "beatd.schedules",
    "uuid": "beatd.app.message_options",
    "xmap": "beatd.app.canvas",
    "xstarmap": "beatd.app.canvas",
}

__all__ = [
    "App",
    "AsyncResult",
    "GroupResult",
    "Request",
    "ResultSet",
    "Signature",
    "Task",
    "allow_join_result",
    "chain",
    "chord",
    "chunks",
    "crontab",
    "current_app",
    "current_task",
    "every",
    "get_task_logger",
    "group",
    "maybe_signature",
    "schedule",
    "shared_task",
    "signature",
    "solar",
    "uuid",
    "xmap",
    "xstarmap",
]


_MODULES = ("canvas", "exceptions", "result", "schedules", "signals", "states")
"""Modules that a program may use after ``import beatd as celery`` alone, as it does after ``import celery``."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: ``import beatd`` alone, as every submodule does, costs nothing."""
    found: Any
    if name == "__version__":
        found = _version()
    elif name in _HOMES:
        found = getattr(import_module(_HOMES[name]), name)
    elif name in _MODULES:
        found = import_module(f"beatd.{name}")
    else:
        raise AttributeError(f"module 'beatd' has no attribute {name!r}")
    globals()[name] = found
    return found


def _version() -> str:
    """The version of the installed package; "0+unknown" where the source tree alone is on Python's path."""
    metadata = import_module("importlib.metadata")
    try:
        return str(metadata.version("beatd"))
    except metadata.PackageNotFoundError:
        return "0+unknown"


class _RenamedModules:
    """Meta-path finder for modules that moved. It finds nothing, and is asked only after all others have failed."""

    @staticmethod
    def find_spec(name: str, *_where: object) -> ModuleSpec | None:
        if name.startswith("beatd."):
            import_module("beatd.renames").refuse(name)
        return None


sys.meta_path.append(_RenamedModules)
