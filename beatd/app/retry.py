"""Task retries: another attempt under the same id, by ``Task.retry`` or ``autoretry_for``, with back-off.

Source of the rules: ``celery/app/task.py`` as of Celery 5.
"""

from __future__ import annotations

import functools
import inspect
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from beatd.app.context import Context
from beatd.exceptions import Ignore, Reject, Retry

if TYPE_CHECKING:
    from beatd.app.canvas.signature import Signature
    from beatd.app.task import Task


def add_autoretry(task: Any, options: dict[str, Any]) -> None:  # noqa: C901 - one wrapper for functions, one for coroutines
    """Wrap ``task.run`` if ``options`` (or the task's class) set ``autoretry_for``.

    The back-off is ``retry_backoff * 2**retries`` seconds, at most ``retry_backoff_max``, with full jitter unless
    ``retry_jitter`` is false; a ``retry_backoff`` below 1 counts as 1. ``task.retry`` gets ``retry_kwargs``.
    Source: ``celery/app/autoretry.py``.
    """

    def option(name: str, default: Any) -> Any:
        return options.get(name, getattr(task, name, default))

    retried = tuple(option("autoretry_for", ()))
    if not retried:
        return
    excluded = tuple(option("dont_autoretry_for", ()))
    settings = dict(option("retry_kwargs", {}))
    backoff = float(option("retry_backoff", False))
    factor = int(max(1.0, backoff)) if backoff else 0
    longest = int(option("retry_backoff_max", 600))
    jitter = bool(option("retry_jitter", True))
    run = task.run

    def again(error: BaseException) -> Any:
        more = dict(settings)
        if (limit := task.request.override_max_retries) is not None:
            more["max_retries"] = limit  # of a retry that the task has asked for itself, and that was one too many
        if factor:
            more["countdown"] = backoff_s(factor, task.request.retries, longest, jitter=jitter)
        return task.retry(exc=error, **more)

    @functools.wraps(run)
    def run_and_retry(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except (Ignore, Retry, *excluded):
            raise
        except retried as error:
            raise again(error) from error

    @functools.wraps(run)
    async def await_and_retry(*args: Any, **kwargs: Any) -> Any:
        try:
            return await run(*args, **kwargs)
        except (Ignore, Retry, *excluded):
            raise
        except retried as error:
            raise again(error) from error

    task.run = await_and_retry if inspect.iscoroutinefunction(run) else run_and_retry


def backoff_s(factor: int, retries: int, longest: int, *, jitter: bool) -> int:
    """Return the pause in seconds after ``retries`` retries."""
    pause = min(longest, factor * 2 ** min(retries, 64))
    return random.randrange(pause + 1) if jitter else pause  # noqa: S311 - spreads load, keeps no secret


def retry_task(  # noqa: PLR0917 - the arguments of Task.retry
    task: Task[..., Any],
    args: Iterable[Any] | None,
    kwargs: Mapping[str, Any] | None,
    exc: BaseException | None,
    when: dict[str, Any],
    max_retries: int | None,
    options: dict[str, Any],
    *,
    throw: bool,
) -> Retry:
    """Implement :meth:`beatd.Task.retry`; ``when`` has ``eta`` and ``countdown``."""
    request = task.request
    if request.called_directly:
        _raise(exc or Retry("Task can be retried"))
    if max_retries is not None:
        request.update(override_max_retries=max_retries)
    limit = task.max_retries if max_retries is None else max_retries
    if limit is not None and request.retries >= limit:
        _give_up(task, request, exc)
    if when["eta"] is None and when["countdown"] is None:
        when = {**when, "countdown": task.default_retry_delay}
    args, kwargs = carried_over(task.run, request, args, kwargs)
    options = {"retries": request.retries + 1, "parent_id": request.parent_id or request.id, **options}
    again = task.signature_from_request(request, args, kwargs, **when, **options)
    cause = exc or sys.exc_info()[1]
    reason = Retry(exc=cause, when=when["eta"] or when["countdown"], is_eager=request.is_eager, sig=again)
    if not request.is_eager:
        try:
            send_after_state(task, again)
        except Exception as failed:
            raise Reject(failed, requeue=False) from failed
    if throw:
        raise reason
    return reason


Given = tuple[Iterable[Any] | None, Mapping[str, Any] | None]


def carried_over(
    run: Callable[..., Any], request: Context, args: Iterable[Any] | None, kwargs: Mapping[str, Any] | None
) -> Given:
    """Return new positional and keyword arguments for the next attempt; where only one of them is given, the other.

    The other are those of this attempt, without the parameters that the given ones set.
    """
    given_args = args is not None and kwargs is None and bool(request.kwargs)
    given_kwargs = kwargs is not None and args is None and bool(request.args)
    if not given_args and not given_kwargs:
        return args, kwargs
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.signature(run)
    if given_args:
        args = tuple(args or ())
        positional = [p for p in signature.parameters.values() if p.kind in (named, inspect.Parameter.POSITIONAL_ONLY)]
        taken = {p.name for p in positional[: len(args)] if p.kind == named}
        return args, {name: value for name, value in (request.kwargs or {}).items() if name not in taken}
    try:
        bound = signature.bind_partial(*(request.args or ()))
    except TypeError:
        return args, kwargs  # the check of the arguments says what is wrong
    kwargs = dict(kwargs or {})
    for name in list(kwargs):
        if name in bound.arguments and signature.parameters[name].kind == named:
            bound.arguments[name] = kwargs.pop(name)
    return bound.args, {**bound.kwargs, **kwargs}


def send_after_state(task: Task[..., Any], call: Signature, **options: Any) -> None:
    """Send a message for the running task's own id; in a worker, after the state of this attempt is stored.

    Sent at once, its run could end first, and this attempt's state would replace the final result.
    """
    if (postponed := task.request.postponed) is None:
        call.apply_async(**options)
        return
    with task.app.outgoing.collect() as collected:
        call.apply_async(**options)
    postponed += collected


_DEATHS = ("x-death", "x-first-death-", "x-last-death-")
"""RabbitMQ's headers of messages that were dead letters: it drops one that would become it again in the same way."""


def options_of(request: Context, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a call like this one: the same id, address, limits and callbacks.

    ``changes`` replace options; one of None changes nothing.
    """
    hard, soft = request.timelimit or (None, None)
    info = request.delivery_info or {}
    changes = {name: value for name, value in changes.items() if value is not None}
    return {
        **({} if "queue" in changes else _address(info)),
        "task_id": request.id,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "retries": request.retries,
        **({} if info.get("priority") is None else {"priority": info["priority"]}),
        "expires": request.expires,
        "time_limit": hard,
        "soft_time_limit": soft,
        "headers": {name: value for name, value in request.headers.items() if not name.startswith(_DEATHS)} or None,
        "link": request.callbacks,
        "link_error": request.errbacks,
        "chain": request.chain,
        "chord": request.chord,
        "group_id": request.group,
        "group_index": request.group_index,
        "ignore_result": request.ignore_result,
        "shadow": request.shadow,
        "replaced_task_nesting": request.replaced_task_nesting,
        "reply_to": request.reply_to,
        "origin": request.origin,
        "stamped_headers": request.stamped_headers,
        **{name: value for name, value in (request.stamps or {}).items() if name in (request.stamped_headers or ())},
        **changes,
    }


def _address(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the exchange and routing key of a message; a queue if it was sent to one, by the default exchange."""
    exchange, key = info.get("exchange"), info.get("routing_key")
    return {"exchange": exchange, "routing_key": key} if exchange and key else {"queue": key}


def _give_up(task: Task[..., Any], request: Context, exc: BaseException | None) -> NoReturn:
    if exc is not None:
        _raise(exc)
    raise task.MaxRetriesExceededError(
        f"Can't retry {task.name}[{request.id}] args:{tuple(request.args or ())} kwargs:{request.kwargs}",
        task_args=request.args,
        task_kwargs=request.kwargs,
    )


def _raise(error: BaseException) -> NoReturn:
    """Raise an error; the one that is being handled is its cause, as in Celery."""
    handled = sys.exception()
    if handled is None or handled is error:
        raise error
    raise error from handled
