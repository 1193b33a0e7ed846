"""Logging for tasks: ``from beatd.log import get_task_logger``. Celery has it in ``celery.utils.log``."""

from __future__ import annotations

from beatd.app.log import get_task_logger

__all__ = ["get_task_logger"]
