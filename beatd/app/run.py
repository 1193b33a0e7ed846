"""One attempt at a task, from its context to its outcome. No broker, no store: workers and ``apply`` share it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback as tracebacks
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from beatd.app import signals
from beatd.app.context import Context, enter, leave
from beatd.app.task import Task
from beatd.exceptions import Ignore, Reject, Retry
from beatd.store.outcomes import FAILURE, IGNORED, REJECTED, RETRY, SUCCESS

log = logging.getLogger(__name__)

Limit = AbstractContextManager[None]
_NO_LIMIT: Limit = nullcontext()


class ExceptionInfo:
    """An exception with its traceback as text; what the hooks get as ``einfo``."""

    __slots__ = ("exception", "traceback", "type")

    def __init__(self, error: BaseException) -> None:
        self.type = type(error)
        self.exception = error
        frames = error.__traceback__
        self.traceback = "".join(tracebacks.format_exception(type(error), error, frames and _users(frames)))

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ExceptionInfo: {self.exception!r}>"


class Outcome:
    """How an attempt ended: a state, and the return value or the exception."""

    __slots__ = ("einfo", "state", "value")

    def __init__(self, state: str, value: Any, einfo: ExceptionInfo | None = None) -> None:
        self.state = state
        self.value = value
        self.einfo = einfo

    @property
    def traceback(self) -> str | None:
        return self.einfo.traceback if self.einfo else None


def run_task(task: Task[..., Any], context: Context, limit: Limit = _NO_LIMIT) -> Outcome:
    """Run ``task`` in ``context`` with its hooks and signals. Never raises: whatever happens is an outcome.

    The function itself runs inside ``limit``, which may raise in it at any moment; the hooks after it do not.
    """
    token = enter(task, context)
    try:
        if signals.task_prerun:
            facts = {"task_id": context.id, "task": task, "args": context.args, "kwargs": context.kwargs}
            signals.task_prerun.send(sender=task, **facts)
        outcome = _attempt(task, context, limit)
        _after(task, context, outcome)
        return outcome
    finally:
        leave(token)


def _attempt(task: Task[..., Any], context: Context, limit: Limit) -> Outcome:
    args, kwargs = context.args or (), context.kwargs or {}
    try:
        if _overrides(task, "before_start"):
            task.before_start(str(context.id), args, kwargs)
        # A base class's __call__ is the user's; ours would only open a second context.
        call = task if _overrides(task, "__call__") else task.run
        with limit:
            value = call(*args, **kwargs)
            return Outcome(SUCCESS, asyncio.run(value) if inspect.iscoroutine(value) else value)
    except Ignore as error:
        return Outcome(IGNORED, error)
    except Reject as error:
        return Outcome(REJECTED, error, ExceptionInfo(error))
    except Retry as error:
        return Outcome(RETRY, error, ExceptionInfo(error))
    except BaseException as error:  # noqa: BLE001 - also sys.exit(): it ends the task, not the worker
        return Outcome(FAILURE, error, ExceptionInfo(error))


def _after(task: Task[..., Any], context: Context, outcome: Outcome) -> None:
    """Hooks and signals for an outcome. What they raise is logged and changes nothing."""
    state, value, einfo = outcome.state, outcome.value, outcome.einfo
    where = (context.id, context.args, context.kwargs)
    if state == SUCCESS:
        if signals.task_success:
            signals.task_success.send(sender=task, result=value)
        _hook(task, context, "on_success", value, *where)
    elif state == FAILURE:
        signals.task_failure.send(
            sender=task, task_id=context.id, exception=value, args=where[1], kwargs=where[2], einfo=einfo
        )
        _hook(task, context, "on_failure", value, *where, einfo)
    elif state == RETRY:
        signals.task_retry.send(sender=task, request=context, reason=value, einfo=einfo)
        _hook(task, context, "on_retry", value.exc, *where, einfo)
    if state in (SUCCESS, FAILURE):
        _hook(task, context, "after_return", state, value, *where, einfo)
    if signals.task_postrun:
        facts = {"task_id": context.id, "task": task, "args": context.args, "kwargs": context.kwargs}
        signals.task_postrun.send(sender=task, retval=value, state=state, **facts)


def _hook(task: Task[..., Any], context: Context, name: str, *args: Any) -> None:
    if not _overrides(task, name):
        return
    try:
        getattr(task, name)(*args)
    except Exception:
        log.exception(
            "Task %s[%s]: its %s raised",
            task.name,
            context.id,
            name,
            extra={"event": "task_hook_failed", "task": task.name, "hook": name},
        )


def _overrides(task: Task[..., Any], name: str) -> bool:
    return getattr(type(task), name) is not getattr(Task, name)


def _users(frames: Any) -> Any:
    """The traceback from the user's first frame on."""
    while frames.tb_next is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    return frames


_OURS = __file__.rpartition("/")[0]
