"""Logging for tasks: ``from beatd.log import get_task_logger``. Celery has it in ``celery.utils.log``.

These loggers know the task that is speaking.
"""

from __future__ import annotations

import logging

from beatd.app.context import current

__all__ = ["get_logger", "get_task_logger"]


TASK_LOGGER = "celery.task"
"""The parent of all task loggers; Celery's name, which logging configurations refer to."""


class TaskContextFilter(logging.Filter):
    """Gives records ``task_name`` and ``task_id``, so that a format can show who spoke; ``???`` outside of tasks."""

    def filter(self, record: logging.LogRecord) -> bool:
        running = current()
        record.task_name = running.task.name if running else "???"
        record.task_id = running.context.id if running else "???"
        return True


def get_logger(name: str | logging.Logger) -> logging.Logger:
    """Return a logger of that name; one at the top becomes a child of ``celery``, as in Celery."""
    logger, root = logging.getLogger(name) if isinstance(name, str) else name, logging.getLogger()
    if logger is not root and logger.parent in (root, None) and logger.name != "celery":
        logger.parent = logging.getLogger("celery")
    return logger


def get_task_logger(name: str) -> logging.Logger:
    """A logger for a module of tasks: a child of ``celery.task`` under its own name."""
    if name in (TASK_LOGGER, "celery"):
        raise RuntimeError(f"logger name {name!r} is reserved")
    logger = logging.getLogger(name)
    if logger.parent is logging.getLogger() or logger.parent is None:
        logger.parent = logging.getLogger(TASK_LOGGER)
    if not any(isinstance(item, TaskContextFilter) for item in logger.filters):
        logger.addFilter(TaskContextFilter())
    if not hasattr(logger, "warn"):  # what older tasks call may not be there in every version of Python
        logger.warn = logger.warning  # type: ignore[method-assign]
    return logger
