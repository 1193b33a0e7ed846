"""``Task.retry``: another attempt, under the same id. Source of the rules: ``celery/app/task.py`` as of Celery 5."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from beatd.app.context import Context
from beatd.exceptions import Reject, Retry

if TYPE_CHECKING:
    from beatd.app.task import Task


def retry_task(  # noqa: PLR0917 - what Task.retry was given
    task: Task[..., Any],
    args: Iterable[Any] | None,
    kwargs: Mapping[str, Any] | None,
    error: BaseException | None,
    when: dict[str, Any],
    max_retries: int | None,
    options: dict[str, Any],
    *,
    throw: bool,
) -> Retry:
    """See :meth:`beatd.Task.retry`; ``error`` is what led to it, ``when`` has ``eta`` and ``countdown``."""
    request = task.request
    if request.called_directly:
        raise error or Retry("Task can be retried", None)
    limit = task.max_retries if max_retries is None else max_retries
    if limit is not None and request.retries >= limit:
        _give_up(task, request, error)
    if when["eta"] is None and when["countdown"] is None:
        when = {**when, "countdown": task.default_retry_delay}
    again = task.signature_from_request(request, args, kwargs, **when, **options)
    reason = Retry(exc=error, when=when["eta"] or when["countdown"])
    reason.signature = again  # type: ignore[attr-defined]  # what a run in this process goes on with
    if not request.is_eager:
        try:
            again.apply_async()
        except Exception as failed:
            raise Reject(failed, requeue=False) from failed
    if throw:
        raise reason
    return reason


def next_attempt(request: Context) -> dict[str, Any]:
    """The options of the next attempt: the same id, queue, limits and callbacks, and one retry more."""
    hard, soft = request.timelimit or (None, None)
    info = request.delivery_info or {}
    return {
        "task_id": request.id,
        "root_id": request.root_id,
        "parent_id": request.id,
        "retries": request.retries + 1,
        "queue": info.get("routing_key"),
        "priority": info.get("priority"),
        "expires": request.expires,
        "time_limit": hard,
        "soft_time_limit": soft,
        "headers": request.headers or None,
        "link": request.callbacks,
        "link_error": request.errbacks,
        "chain": request.chain,
        "chord": request.chord,
        "group_id": request.group,
        "group_index": request.group_index,
        "ignore_result": request.ignore_result,
        "shadow": request.shadow,
        "replaced_task_nesting": request.replaced_task_nesting,
    }


def _give_up(task: Task[..., Any], request: Context, error: BaseException | None) -> NoReturn:
    if error is not None:
        raise error
    raise task.MaxRetriesExceededError(
        f"Can't retry {task.name}[{request.id}] args:{request.args} kwargs:{request.kwargs}"
    )
