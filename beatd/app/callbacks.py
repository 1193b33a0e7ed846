"""What follows the end of a task: callbacks, the rest of its chain, errbacks, and the chord that waits for it.

Messages are sent from here. What must be told to the result backend is returned, for whoever stores results.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from beatd.app.base import AppBase
from beatd.app.canvas.signature import as_signature, listed
from beatd.app.context import Context
from beatd.message import json_codec
from beatd.states import FAILURE
from beatd.store.groups import Part
from beatd.store.result_document import document, exception_payload
from beatd.store.results import Stored

log = logging.getLogger("beatd.app.aftermath")


class FollowUp(NamedTuple):
    """For the result backend: results of tasks that will never run, and ends that chords wait for."""

    results: list[Stored]
    parts: list[Part]


def send_followers(app: AppBase, context: Context, value: Any) -> None:
    """Send the callbacks of a task that returned ``value``, and the next step of its chain.

    Raises what sending raises; repeating it sends some of them again, under the same ids where they have any.
    """
    origin: dict[str, Any] = {"root_id": context.root_id, "parent_id": context.id}
    for callback in context.callbacks or ():
        as_signature(callback, app).apply_async((value,), **origin)
    if context.chain:
        *rest, following = context.chain
        if rest:
            origin["chain"] = rest
        as_signature(following, app).apply_async((value,), **origin)


def call_errbacks(app: AppBase, context: Context, error: BaseException, traceback: str | None) -> None:
    """Tell the errbacks of a task that failed. What goes wrong with one is logged.

    As in Celery: a task of this app that takes more than one argument, and is not bound, is called here and now with
    ``(request, exc, traceback)``; any other is sent, with the id of the failed task.
    """
    for errback in context.errbacks or ():
        call = as_signature(errback, app)
        try:
            if _wants_details(app, call):
                call(context, error, traceback)
            elif context.is_eager:
                call.apply((context.id,))
            else:
                call.apply_async((context.id,), root_id=context.root_id or context.id, parent_id=context.id)
        except Exception:
            log.exception(
                "Errback %s of task %s[%s] raised",
                call.task,
                context.task,
                context.id,
                extra={"event": "errback_failed", "task": context.task, "task_id": context.id},
            )


def _wants_details(app: AppBase, call: Any) -> bool:
    task = app.tasks.get(call.task)
    if task is None or task.is_bound:
        return False
    kinds = inspect.Parameter
    parameters = inspect.signature(task.run).parameters.values()
    if any(each.kind is kinds.VAR_POSITIONAL for each in parameters):
        return True
    positional = [each for each in parameters if each.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    stored = 0 if call.immutable else len(call.args) + sum(each.name in call.kwargs for each in positional)
    return len(positional) - stored > 1


def ended(context: Context, state: str, result: Any) -> list[Part]:
    """What to tell the chord that waits for this task, if one does. An exception is given as its payload."""
    if not context.chord or not context.group:
        return []
    return [_part(str(context.id), context.group, context.group_index, state, result, context.chord, context.root_id)]


def failed(app: AppBase, context: Context, error: BaseException, traceback: str | None = None) -> FollowUp:
    """Call the errbacks of a task that failed; what is left of its chain fails with it."""
    payload = exception_payload(error)
    call_errbacks(app, context, error, traceback)
    return never_run(app, context.chain or (), payload, traceback)


def never_run(app: AppBase, calls: Iterable[Any], payload: Mapping[str, Any], traceback: str | None = None) -> FollowUp:
    """The results of calls that will not be made: nobody shall wait for them."""
    after = FollowUp([], [])
    done = app.now().isoformat()
    for call in _leaves(calls):
        options = call.get("options") or {}
        if (task_id := options.get("task_id")) is None:
            continue
        stored = document(task_id, FAILURE, payload, traceback=traceback, date_done=done)
        after.results.append(Stored(task_id, stored))
        if options.get("chord") and options.get("group_id"):
            group, index = options["group_id"], options.get("group_index")
            after.parts.append(_part(task_id, group, index, FAILURE, payload, options["chord"], options.get("root_id")))
    return after


def _part(  # noqa: PLR0917 - each is a field
    task_id: str, group: str, index: int | None, state: str, result: Any, body: Any, root_id: str | None
) -> Part:
    return Part(group, index, task_id, json_codec.dumps([1, task_id, state, result]), json_codec.dumps(body), root_id)


def _leaves(calls: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    """The calls whose results somebody may wait for, in these and all that would have followed them."""
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
    """Whom to tell when a call cannot be made at all, each of them once."""
    kwargs = call.get("kwargs") or {}
    found = listed((call.get("options") or {}).get("link_error"))
    inside: list[Any] = []
    match call.get("subtask_type"):
        case "chain":
            inside = list(kwargs.get("tasks") or ())[:1]
        case "group":
            inside = list(kwargs.get("tasks") or ())
        case "chord":
            inside = listed(kwargs.get("body"))
    for each in inside:
        found += [errback for errback in errbacks_of(each) if errback not in found]
    return found
