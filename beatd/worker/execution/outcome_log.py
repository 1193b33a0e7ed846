"""Log lines of tasks that have ended: Celery's sentences, for monitoring that reads Celery's logs."""

from __future__ import annotations

import logging
from typing import Any

from beatd.app.context import Context
from beatd.app.task import Task
from beatd.app.trace import Outcome
from beatd.message.protocol import safe_repr
from beatd.states import FAILURE, IGNORED, REJECTED, RETRY, SUCCESS
from beatd.store.run_record import is_of_builtin_task


def log_outcome(log: logging.Logger, task: Task[..., Any], context: Context, outcome: Outcome, runtime: float) -> None:
    """Log the end of an attempt. Errors in ``task.throws`` are expected and have no traceback."""
    if outcome.state == SUCCESS and not log.isEnabledFor(logging.INFO):
        return
    name, task_id = context.shadow or task.name, context.id
    extra = {"event": _EVENTS.get(outcome.state, "task_ended"), "task": task.name, "task_id": task_id}
    extra["runtime"] = runtime  # type: ignore[assignment]
    match outcome.state:
        case "SUCCESS":
            text = safe_repr(outcome.value, task.resultrepr_maxsize)
            log.info("Task %s[%s] succeeded in %.6fs: %s", name, task_id, runtime, text, extra=extra)
        case "RETRY":
            log.info("Task %s[%s] retry: %s", name, task_id, outcome.value, extra=extra)
        case "IGNORED":
            log.info("Task %s[%s] ignored", name, task_id, extra=extra)
        case "REJECTED":
            log.warning("Task %s[%s] %s", name, task_id, safe_repr(outcome.value), extra=extra)
        case "FAILURE" if isinstance(outcome.value, tuple(task.throws)):
            log.info("Task %s[%s] raised expected: %s", name, task_id, safe_repr(outcome.value), extra=extra)
        case "FAILURE":
            trace = "" if is_of_builtin_task(outcome.value) else (outcome.traceback or "").rstrip()
            trace = f"\n{trace}" if trace else ""
            text = safe_repr(outcome.value)
            log.error("Task %s[%s] raised unexpected: %s%s", name, task_id, text, trace, extra=extra)


def log_soft_limit(log: logging.Logger, context: Context, seconds: float | None) -> None:
    """Log that the soft limit of a run was exceeded, once the run is over: a signal's handler must not write."""
    name = context.shadow or context.task
    extra = {"event": "task_soft_time_limit", "task": context.task, "task_id": context.id}
    log.warning("Soft time limit (%ss) exceeded for %s[%s]", seconds, name, context.id, extra=extra)


def outcome_repr(task: Task[..., Any], outcome: Outcome) -> str:
    """Return the text of the result, or of the exception that ended the attempt."""
    if outcome.state == SUCCESS:
        return safe_repr(outcome.value, task.resultrepr_maxsize)
    return safe_repr(outcome.value.exc if outcome.state == RETRY else outcome.value)


_EVENTS = {
    SUCCESS: "task_succeeded",
    FAILURE: "task_failed",
    RETRY: "task_retried",
    IGNORED: "task_ignored",
    REJECTED: "task_rejected",
}
