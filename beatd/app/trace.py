"""Trace: execute one attempt of a task, from its context to its outcome, with hooks and signals.

It uses neither broker nor store; workers and ``task.apply()`` share it. Eager runs include the retries.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
import traceback as tracebacks
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from pathlib import Path
from types import TracebackType
from typing import Any

from beatd import signals
from beatd.app.callbacks import call_errbacks, send_followers
from beatd.app.context import Context, current, enter, leave
from beatd.app.eager_result import EagerResult
from beatd.app.task import Task
from beatd.clock import perf_counter
from beatd.exceptions import Ignore, Reject, Retry
from beatd.message.protocol import new_id
from beatd.redaction import encodable
from beatd.states import FAILURE, IGNORED, REJECTED, RETRY, SUCCESS

log = logging.getLogger("beatd.app.run")

Call = Callable[[Callable[..., Any], Sequence[Any], Mapping[str, Any]], Any]
"""Caller of a task's function, with its arguments."""
Check = Callable[[Any], object]
"""Check of a value that a task has returned."""
_TRACEBACK_MAX = 64 * 1024
"""Maximum characters of a stored traceback."""


class Abandoned(BaseException):
    """Raised in a task by a worker that shuts down: the attempt has no outcome and is repeated elsewhere."""


class ExceptionInfo:
    """An exception with its traceback as text; ``einfo`` of the hooks."""

    __slots__ = ("exception", "tb", "traceback", "type")

    internal = False
    """Celery's name: True for errors of the worker itself, of which hooks are not told."""

    def __init__(self, error: BaseException) -> None:
        self.type = type(error)
        self.exception = error
        self.tb = error.__traceback__
        self.traceback = encodable(_shortened(_formatted(error)))

    @property
    def exc_info(self) -> tuple[type[BaseException], BaseException, TracebackType | None]:
        """As of ``sys.exc_info()``, for ``logger.error(…, exc_info=einfo.exc_info)``."""
        return self.type, self.exception, self.tb

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ExceptionInfo: {self.exception!r}>"


class Outcome:
    """The outcome of an attempt: a state, and the return value or the exception."""

    __slots__ = ("einfo", "state", "value")

    def __init__(self, state: str, value: Any, einfo: ExceptionInfo | None = None) -> None:
        self.state = state
        self.value = value
        self.einfo = einfo

    @property
    def traceback(self) -> str | None:
        return self.einfo.traceback if self.einfo else None


def call_here(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call the function in this thread; a coroutine runs in an event loop of its own, in another thread beside one."""
    value = function(*args, **kwargs)
    if not inspect.iscoroutine(value):
        return value
    if not _is_in_event_loop():
        return asyncio.run(value)
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - costs memory; few need it

    with ThreadPoolExecutor(1, thread_name_prefix="eager-task") as thread:
        return thread.submit(copy_context().run, asyncio.run, value).result()


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _accept(_value: Any) -> None:
    """Accept any value as a result."""


def run_task(task: Task[..., Any], context: Context, call: Call = call_here, check: Check = _accept) -> Outcome:
    """Execute ``task`` in ``context`` with its hooks and signals. Raises :class:`Abandoned`, and nothing else.

    ``call`` calls only the function, and may interrupt it; it does not run the hooks. ``check`` raises for a value that
    is no result.
    """
    token, started = enter(task, context), perf_counter()
    try:
        try:
            function = _prepare(task, context)
            value = call(function, context.args or (), context.kwargs or {})
            check(value)
            outcome = Outcome(SUCCESS, value)
        except Abandoned:
            raise
        except BaseException as error:  # noqa: BLE001 - sys.exit() also ends the task, not the worker
            outcome = _failed(error)
        _after(task, context, outcome, perf_counter() - started)
        return outcome
    finally:
        leave(token)


async def run_task_async(task: Task[..., Any], context: Context, call: Call, check: Check = _accept) -> Outcome:
    """Execute a task as :func:`run_task` does, in the running event loop; ``call`` returns a coroutine.

    Raises ``CancelledError`` if this run is cancelled from outside, which has no outcome; and nothing else.
    """
    token, started = enter(task, context), perf_counter()
    try:
        try:
            function = _prepare(task, context)
            value = await call(function, context.args or (), context.kwargs or {})
            check(value)
            outcome = Outcome(SUCCESS, value)
        except asyncio.CancelledError as error:
            if (this := asyncio.current_task()) is not None and this.cancelling():
                raise
            outcome = _failed(error)
        except BaseException as error:  # noqa: BLE001
            outcome = _failed(error)
        _after(task, context, outcome, perf_counter() - started)
        return outcome
    finally:
        leave(token)


def _prepare(task: Task[..., Any], context: Context) -> Callable[..., Any]:
    """Run the signal and hook before a call; returns the function to call."""
    if signals.task_prerun:
        fields = {"task_id": context.id, "task": task, "args": context.args, "kwargs": context.kwargs}
        signals.task_prerun.send(sender=task, **fields)
    if _overrides(task, "before_start"):
        task.before_start(str(context.id), context.args, context.kwargs)
    # Task.__call__ would open a second context; call it only if a base class overrides it.
    return task if _overrides(task, "__call__") else task.run


def _failed(error: BaseException) -> Outcome:
    """Return the outcome of an attempt that raised."""
    if isinstance(error, Ignore):
        return Outcome(IGNORED, error)
    state = REJECTED if isinstance(error, Reject) else RETRY if isinstance(error, Retry) else FAILURE
    return Outcome(state, error, ExceptionInfo(error))


def _after(task: Task[..., Any], context: Context, outcome: Outcome, runtime: float) -> None:
    """Run the hooks and signals of an outcome, in Celery's order. Their exceptions are logged only."""
    state, value, einfo = outcome.state, outcome.value, outcome.einfo
    where = (context.id, context.args, context.kwargs)
    if state == SUCCESS:
        _hook(task, context, "on_success", value, *where)
        if signals.task_success:
            signals.task_success.send(sender=task, result=value, runtime=runtime)
    elif state == FAILURE:
        _hook(task, context, "on_failure", value, *where, einfo)
        signals.task_failure.send(
            sender=task,
            task_id=context.id,
            exception=value,
            args=where[1],
            kwargs=where[2],
            traceback=value.__traceback__,
            einfo=einfo,
        )
    elif state == RETRY:
        _hook(task, context, "on_retry", value.exc, *where, einfo)
        signals.task_retry.send(sender=task, request=context, reason=value, einfo=einfo)
    if state in (SUCCESS, FAILURE):
        _hook(task, context, "after_return", state, value, *where, einfo)
    if signals.task_postrun:
        fields = {"task_id": context.id, "task": task, "args": context.args, "kwargs": context.kwargs}
        signals.task_postrun.send(sender=task, retval=value, state=state, **fields)


def _hook(task: Task[..., Any], context: Context, name: str, *args: Any) -> None:
    if not (name in vars(task) or _overrides(task, name)):
        return
    try:
        getattr(task, name)(*args)
    except BaseException:  # sys.exit() too: the outcome is final and must be reported
        log.exception(
            "Hook of task %s[%s] raised: %s",
            task.name,
            context.id,
            name,
            extra={"event": "task_hook_failed", "task": task.name, "hook": name},
        )


def _overrides(task: Task[..., Any], name: str) -> bool:
    return getattr(type(task), name) is not getattr(Task, name)


def _formatted(error: BaseException) -> str:
    frames = error.__traceback__
    try:
        return "".join(tracebacks.format_exception(type(error), error, frames and _users(frames)))
    except Exception:  # noqa: BLE001 - formatting calls the exception's own methods
        return "".join(tracebacks.format_tb(frames and _users(frames))) + type(error).__qualname__


def _shortened(text: str) -> str:
    """Shorten a traceback to its beginning and its end."""
    half = _TRACEBACK_MAX // 2
    return text if len(text) <= _TRACEBACK_MAX else f"{text[:half]}\n…\n{text[-half:]}"


def _users(frames: Any) -> Any:
    """Drop beatd's own frames at the start of a traceback."""
    while frames.tb_next is not None and frames.tb_frame.f_code.co_filename.startswith(_MACHINERY):
        frames = frames.tb_next
    return frames


_PACKAGE = Path(__file__).parent.parent
_MACHINERY = (f"{_PACKAGE}/app/", f"{_PACKAGE}/worker/execution/", asyncio.__path__[0])


def run_eagerly(
    task: Task[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    task_id: str | None,
    throw: bool | None,
    retries: int,
    options: dict[str, Any],
) -> EagerResult[Any]:
    """Run a task in this process, with retries but without their pauses; ``throw`` raises the task's exception."""
    identity = task_id or new_id()
    outer = current()
    if outer is not None and outer.context.id:
        parent = outer.context
        options = {"root_id": parent.root_id or identity, "parent_id": parent.id, **options}
    while True:
        context = _context(task, identity, options, args=args, kwargs=kwargs, retries=retries)
        outcome = run_task(task, context)
        if outcome.state != RETRY:
            break
        if (again := outcome.value.sig) is None:
            break  # raised by hand: there is no next attempt
        args, kwargs, retries = again.args, again.kwargs, retries + 1
        options = {**options, **again.options, "parent_id": context.parent_id}
    _call_back(task, context, outcome)
    if throw if throw is not None else task.app.conf.task_eager_propagates:
        _throw(outcome)
    return EagerResult(identity, outcome.value, outcome.state, outcome.traceback, task.name, task.app)


def _context(task: Task[..., Any], identity: str, options: dict[str, Any], **attempt: Any) -> Context:
    return Context(
        options.get("headers") or {},
        task=task.name,
        id=identity,
        root_id=options.get("root_id") or identity,
        parent_id=options.get("parent_id"),
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        stamped_headers=options.get("stamped_headers"),
        stamps={name: options.get(name) for name in options.get("stamped_headers") or ()},
        hostname=socket.gethostname(),
        ignore_result=options.get("ignore_result", task.ignore_result),
        timelimit=(options.get("time_limit", task.time_limit), options.get("soft_time_limit", task.soft_time_limit)),
        **attempt,
        is_eager=True,
        called_directly=False,
        callbacks=_listed(options.get("link")),
        errbacks=_listed(options.get("link_error")),
        delivery_info={
            "is_eager": True,
            "exchange": options.get("exchange"),
            "routing_key": options.get("routing_key"),
            "priority": options.get("priority"),
        },
    )


def _call_back(task: Task[..., Any], context: Context, outcome: Outcome) -> None:
    if outcome.state == SUCCESS:
        send_followers(task.app, context, outcome.value)
    elif outcome.state == FAILURE:
        call_errbacks(task.app, context, outcome.value, outcome.traceback)


def _throw(outcome: Outcome) -> None:
    if isinstance(outcome.value, BaseException) and not isinstance(outcome.value, Retry | Reject):
        raise outcome.value


def _listed(value: Any) -> list[Any] | None:
    return value if value is None or isinstance(value, list) else [value]
