"""Replacement: ``Task.replace`` substitutes another call for the running task, under its id and in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beatd.app.canvas import chain, group, xmap
from beatd.app.canvas.signature import Signature, as_signature
from beatd.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from beatd.app.task import Task


def replace_task(task: Task[..., Any], call: Signature) -> Any:
    """Implement :meth:`beatd.Task.replace`."""
    request = task.request
    if "chord" in call.options:
        raise ImproperlyConfigured("A signature replacing a task must not be part of a chord")
    if isinstance(call, chain) and not call.tasks:
        raise ImproperlyConfigured("Cannot replace with an empty chain")
    route_name = call.route_name if isinstance(call, xmap) else None
    call = _with_one_end(task, call.clone())
    if request.called_directly or request.is_eager:
        return task.on_replace(call)
    for callback in request.callbacks or ():
        call.link(callback)
    for errback in request.errbacks or ():
        call.link_error(errback)
    nesting: dict[str, Any] = {"replaced_task_nesting": request.replaced_task_nesting + 1}
    call.freeze(request.id)
    place = {"chord": request.chord, "group_id": request.group, "group_index": request.group_index}
    for step in call.tasks if isinstance(call, chain) else ():
        step.set(**nesting)
    later = [as_signature(step, task.app).clone().set(**nesting) for step in request.chain or ()]
    options = {"root_id": request.root_id, "chain": later, "route_name": route_name, **nesting, **place}
    call.set(**{name: value for name, value in options.items() if value not in (None, [])})
    return task.on_replace(call)


def _with_one_end(task: Task[..., Any], call: Signature) -> Signature:
    """Append a gathering task to a group, so that the replacement has a single result under one id."""
    ends_in_group = isinstance(call, group) or (isinstance(call, chain) and isinstance(call.tasks[-1], group))
    if not ends_in_group:
        return call
    gather = Signature("celery.accumulate", (), {"index": 0}, app=task.app)
    joined: Signature = call | gather
    return joined
