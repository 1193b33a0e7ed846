"""Callbacks: the follow-up of a finished task. Callbacks, next chain step, errbacks, and parts of a chord.

Messages are sent from here. Writes to the result backend are returned; the caller makes them.
"""

from __future__ import annotations

import inspect
import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from beatd.app.base import AppBase
from beatd.app.canvas import group
from beatd.app.canvas.signature import as_signature, listed
from beatd.app.context import Context
from beatd.message import json_codec
from beatd.states import FAILURE
from beatd.store.groups import Part
from beatd.store.result_document import document, exception_payload
from beatd.store.results import Stored

log = logging.getLogger("beatd.app.aftermath")


class FollowUp(NamedTuple):
    """Writes to the result backend: results of tasks that will never run, and chord parts."""

    results: list[Stored]
    parts: list[Part]


def send_followers(app: AppBase, context: Context, value: Any) -> None:
    """Send the callbacks of a task that returned ``value``, and the next step of its chain.

    Several callbacks are sent as a group, as in Celery: it is one child of the task. Raises the errors of sending. A
    repeated call may send some of them again, under the same ids if they have ids.
    """
    origin: dict[str, Any] = {"root_id": context.root_id, "parent_id": context.id}
    priority = (context.delivery_info or {}).get("priority")
    if app.conf.task_inherit_parent_priority and priority is not None:
        origin["priority"] = priority  # it outweighs that of the followers, as in Celery
    for callback in _grouped([as_signature(callback, app) for callback in context.callbacks or ()], app, context):
        callback.apply_async((value,), **origin)
    if context.chain:
        *rest, following = context.chain
        if rest:
            origin["chain"] = rest
        as_signature(following, app).apply_async((value,), **origin)


def _grouped(callbacks: list[Any], app: AppBase, context: Context) -> list[Any]:
    """Return groups among several callbacks first, then one of all others."""
    if len(callbacks) < 2:
        return callbacks
    groups = [callback for callback in callbacks if isinstance(callback, group)]
    others = [callback for callback in callbacks if not isinstance(callback, group)]
    group_id = str(uuid.uuid5(_NAMESPACE, f"{context.id}:callbacks"))
    return [*groups, group(others, app=app, task_id=group_id)] if others else groups


def call_errbacks(app: AppBase, context: Context, error: BaseException, traceback: str | None) -> None:
    """Run the errbacks of a failed task. An errback that raises is logged.

    As in Celery: an unbound function of this app with more than one parameter is called here with
    ``(request, exc, traceback)``; any other task is sent, with the id of the failed task.
    """
    for errback in context.errbacks or ():
        try:
            call = as_signature(errback, app)
            if _wants_details(call):
                call(context, error, traceback)
            elif context.is_eager:
                call.apply((context.id,))
            else:
                call.apply_async((context.id,), root_id=context.root_id or context.id, parent_id=context.id)
        except Exception:
            log.exception(
                "Errback %s of task %s[%s] raised",
                errback["task"] if isinstance(errback, Mapping) else errback,
                context.task,
                context.id,
                extra={"event": "errback_failed", "task": context.task, "task_id": context.id},
            )


def with_ids(app: AppBase, errbacks: Iterable[Any], seed: str) -> tuple[list[Any], list[Any]]:
    """Give errbacks that are sent an id each, derived from ``seed``; returns all, and their group as a child."""
    calls: list[Any] = []
    sent: list[Any] = []
    for number, errback in enumerate(errbacks):
        if not errback.get("subtask_type") and not _wants_details(as_signature(errback, app)):
            options = {"task_id": str(uuid.uuid5(_NAMESPACE, f"{seed}:{number}")), **(errback.get("options") or {})}
            errback = {**errback, "options": options}  # noqa: PLW2901
            sent.append(((options["task_id"], None), None))
        calls.append(errback)
    group_id = str(uuid.uuid5(_NAMESPACE, seed))
    return calls, [((group_id, None), sent)] if sent else []


_NAMESPACE = uuid.UUID("8d1f7c1c-2f1e-4d0b-9d6a-0d5a2c6b8f43")


def _wants_details(call: Any) -> bool:
    task = call.registered()
    if task is None or task.is_bound or not task.is_function:
        return False
    kinds = inspect.Parameter
    parameters = inspect.signature(task.run).parameters.values()
    if any(parameter.kind is kinds.VAR_POSITIONAL for parameter in parameters):
        return True
    positional = [item for item in parameters if item.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    stored = 0 if call.immutable else len(call.args) + sum(item.name in call.kwargs for item in positional)
    return len(positional) - stored > 1


def ended(context: Context, state: str, result: Any) -> list[Part]:
    """Return the chord part of a finished task, if it belongs to a chord. ``result`` of a failure is its payload."""
    if not context.chord or not context.group:
        return []
    return [_part(str(context.id), context.group, context.group_index, state, result, context.chord, context.root_id)]


def failed(app: AppBase, context: Context, error: BaseException, traceback: str | None = None) -> FollowUp:
    """Run the errbacks of a failed task; the rest of its chain fails with it."""
    payload = exception_payload(error)
    call_errbacks(app, context, error, traceback)
    return never_run(app, context.chain or (), payload, traceback)


_CALLED = "errbacks"
"""Key in the payload of a chord's part."""


def called_in(payload: Any) -> list[Any]:
    """Return the errbacks that were called for a part of a chord, as :func:`never_run` noted them."""
    return listed(payload.get(_CALLED)) if isinstance(payload, Mapping) else []


def never_run(  # noqa: PLR0917 - each is a fact of the failure
    app: AppBase,
    calls: Iterable[Any],
    payload: Mapping[str, Any],
    traceback: str | None = None,
    called: Sequence[Any] = (),
    children: Mapping[str, Sequence[Any]] | None = None,
) -> FollowUp:
    """Return failure results for calls that will never run, so that waiting clients return.

    ``called`` are the errbacks that are called for it: an outer chord, which fails with it, does not call them again.
    ``children`` are those of the results, by task id.
    """
    follow_up = FollowUp([], [])
    noted = {**payload, _CALLED: list(called)} if called else payload
    done = app.now().isoformat()
    for call in _leaves(calls):
        options = call.get("options") or {}
        if (task_id := options.get("task_id")) is None:
            continue
        sent = (children or {}).get(task_id, ())
        stored = document(task_id, FAILURE, payload, traceback=traceback, date_done=done, children=sent)
        follow_up.results.append(Stored(task_id, stored, options.get("reply_to") or ""))
        if options.get("chord") and options.get("group_id"):
            group, index = options["group_id"], options.get("group_index")
            follow_up.parts.append(
                _part(task_id, group, index, FAILURE, noted, options["chord"], options.get("root_id"))
            )
    return follow_up


def _part(  # noqa: PLR0917 - each is a field
    task_id: str, group: str, index: int | None, state: str, result: Any, body: Any, root_id: str | None
) -> Part:
    return Part(group, index, task_id, json_codec.dumps([1, task_id, state, result]), json_codec.dumps(body), root_id)


def _leaves(calls: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the single tasks in ``calls`` and in all that would have followed them."""
    for call in calls:
        kwargs = call.get("kwargs") or {}
        match call.get("subtask_type"):
            case "chain" | "group":
                yield from _leaves(kwargs.get("tasks") or ())
            case "chord":
                yield from _leaves(listed(kwargs.get("body")))
            case _:
                yield call
        yield from _leaves((call.get("options") or {}).get("chain") or ())


def errbacks_of(call: Mapping[str, Any]) -> list[Any]:
    """Return the errbacks of a call that cannot be sent, without duplicates."""
    kwargs = call.get("kwargs") or {}
    errbacks = listed((call.get("options") or {}).get("link_error"))
    children: list[Any] = []
    match call.get("subtask_type"):
        case "chain":
            children = list(kwargs.get("tasks") or ())[:1]
        case "group":
            children = list(kwargs.get("tasks") or ())
        case "chord":
            children = listed(kwargs.get("body"))
    for child in children:
        errbacks += [errback for errback in errbacks_of(child) if errback not in errbacks]
    return errbacks
