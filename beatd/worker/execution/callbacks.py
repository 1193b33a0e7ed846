"""Callbacks of a task that has ended: built where the task ran, published by the worker after it has stored the result.

A pool never publishes them, so no broker that is away can hold up a task, a thread or an event loop. One kind of
server is asked here: a chord as the next step of a chain registers its header in the result backend.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Any

from beatd.app.app import App
from beatd.app.callbacks import FollowUp, failed, send_followers
from beatd.app.context import Context, enter, leave
from beatd.app.publishing import Collected
from beatd.app.task import Task
from beatd.clock import Backoff, sleep
from beatd.exceptions import StoreUnavailable
from beatd.worker.messages import FollowUpMessage

log = logging.getLogger("beatd.worker.following")

_ATTEMPTS = 6
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
_NAMESPACE = uuid.UUID("5c3f0a1e-7d0b-4a7e-9c57-1f7f0e6f4b11")


def follow_up_messages(
    app: App, task: Task[..., object], context: Context, value: object
) -> tuple[list[FollowUpMessage], Exception | None]:
    """Build the callbacks and the next step of the chain; returns the messages, or the error that prevents them."""
    token = enter(task, context)  # a callback is a child of the task, with its root
    backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
    context.callbacks = [_with_id(context, place, call) for place, call in enumerate(context.callbacks or ())]
    try:
        while True:
            children = len(context.children)
            try:
                with app.outgoing.collect() as collected:
                    send_followers(app, context, value)
                return pack(collected), None
            except StoreUnavailable as error:
                del context.children[children:]
                pause = backoff.failed()
                if backoff.attempts >= _ATTEMPTS:
                    return [], _log_failed(task, context, error)
                log.warning(
                    "Task %s[%s]: its callbacks cannot be prepared, trying again in %ss: %s",
                    task.name,
                    context.id,
                    pause,
                    error,
                    extra={"event": "followup_retrying", "task": task.name, "task_id": context.id},
                )
                sleep(pause)
            except Exception as error:  # noqa: BLE001 - signatures come with the message, anything may be wrong in them
                del context.children[children:]
                return [], _log_failed(task, context, error)
    finally:
        leave(token)


def failure_messages(
    app: App, context: Context, error: BaseException, traceback: str | None
) -> tuple[FollowUp, list[FollowUpMessage]]:
    """Call the errbacks of a task that failed; returns the results of the rest of its chain and the messages to send.

    An errback that takes the exception is called here, any other becomes a message.
    """
    with app.outgoing.collect() as collected:
        after = failed(app, context, error, traceback)
    return after, pack(collected)


def pack(collected: Sequence[Collected]) -> list[FollowUpMessage]:
    """Convert collected messages to the form in which a report carries them."""
    return [FollowUpMessage.of(message, route) for message, route in collected]


def _with_id(context: Context, place: int, call: Any) -> Any:
    """Give a callback without a task id one that is the same in every run of this task: a repeat adds no task."""
    options = call.get("options") or {}
    if call.get("subtask_type") or options.get("task_id"):
        return call
    return {**call, "options": {**options, "task_id": str(uuid.uuid5(_NAMESPACE, f"{context.id}:{place}"))}}


def _log_failed(task: Task[..., object], context: Context, error: Exception) -> Exception:
    log.error(
        "Task %s[%s]: its callbacks cannot be sent",
        task.name,
        context.id,
        exc_info=error,
        extra={"event": "followup_failed", "task": task.name, "task_id": context.id},
    )
    return error
