"""``task.apply()``: a run in the calling process, retries included."""

from __future__ import annotations

from typing import Any

from beatd.app.aftermath import call_errbacks
from beatd.app.context import Context
from beatd.app.eager_result import EagerResult
from beatd.app.run import Outcome, run_task
from beatd.app.sending import new_id
from beatd.app.signature import as_signature
from beatd.app.task import Task
from beatd.exceptions import Reject, Retry
from beatd.store.outcomes import FAILURE, RETRY, SUCCESS


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
    """Run to the end, one attempt after the other without their pauses; ``throw`` lets the task's exception out."""
    identity = task_id or new_id()
    while True:
        context = _context(task, identity, options, args=args, kwargs=kwargs, retries=retries)
        outcome = run_task(task, context)
        if outcome.state != RETRY:
            break
        again = outcome.value.signature
        args, kwargs, retries = again.args, again.kwargs, retries + 1
    _call_back(task, context, outcome)
    if throw if throw is not None else task.app.conf.task_eager_propagates:
        _throw(outcome)
    return EagerResult(identity, outcome.value, outcome.state, outcome.traceback, task.name, task.app)


def _context(task: Task[..., Any], identity: str, options: dict[str, Any], **attempt: Any) -> Context:
    return Context(
        options.get("headers") or {},
        task=task.name,
        id=identity,
        root_id=identity,
        **attempt,
        is_eager=True,
        called_directly=False,
        callbacks=_listed(options.get("link")),
        errbacks=_listed(options.get("link_error")),
        delivery_info={
            "is_eager": True,
            "exchange": options.get("exchange"),
            "routing_key": options.get("routing_key"),
        },
    )


def _call_back(task: Task[..., Any], context: Context, outcome: Outcome) -> None:
    if outcome.state == SUCCESS:
        for callback in context.callbacks or ():
            as_signature(callback, task.app).apply((outcome.value,))
    elif outcome.state == FAILURE:
        call_errbacks(task.app, context, outcome.value, outcome.traceback)


def _throw(outcome: Outcome) -> None:
    if isinstance(outcome.value, BaseException) and not isinstance(outcome.value, Retry | Reject):
        raise outcome.value


def _listed(value: Any) -> list[Any] | None:
    return value if value is None or isinstance(value, list) else [value]
