"""Callbacks sent by the worker: the tasks that follow a finished one, sent again when the broker was away."""

from __future__ import annotations

import logging

from beatd.app.app import App
from beatd.app.callbacks import send_followers
from beatd.app.context import Context, enter, leave
from beatd.app.task import Task
from beatd.clock import sleep
from beatd.exceptions import BrokerError, StoreUnavailable

log = logging.getLogger("beatd.worker.following")

_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts; each of these is several of the broker's client."""


def follow(app: App, task: Task[..., object], context: Context, value: object) -> Exception | None:
    """Send the callbacks and the next step of the chain; returns why that cannot be done."""
    token = enter(task, context)  # what is sent is the task's: its children, with its root
    try:
        for pause in (*_PAUSES, None):
            try:
                send_followers(app, context, value)
            except (BrokerError, StoreUnavailable) as error:
                if pause is None:
                    return _told(task, context, error)
                log.warning(
                    "Task %s[%s]: what follows it could not be sent, trying again in %ss: %s",
                    task.name,
                    context.id,
                    pause,
                    error,
                    extra={"event": "followup_retrying", "task": task.name, "task_id": context.id},
                )
                sleep(pause)
            except Exception as error:  # noqa: BLE001 - a signature of somebody else's making may be wrong in any way
                return _told(task, context, error)
            else:
                return None
    finally:
        leave(token)
    return None


def _told(task: Task[..., object], context: Context, error: Exception) -> Exception:
    log.error(
        "Task %s[%s]: what follows it could not be sent",
        task.name,
        context.id,
        exc_info=error,
        extra={"event": "followup_failed", "task": task.name, "task_id": context.id},
    )
    return error
