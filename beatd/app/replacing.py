"""``Task.replace``: another call in place of a task that is running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beatd.app.canvas import chain, group
from beatd.app.signature import Signature, as_signature
from beatd.exceptions import Ignore

if TYPE_CHECKING:
    from beatd.app.task import Task


def replace_task(task: Task[..., Any], call: Signature) -> Any:
    """See :meth:`beatd.Task.replace`."""
    request = task.request
    if "chord" in call.options:
        raise ValueError("what replaces a task must not belong to a chord itself")
    if isinstance(call, chain) and not call.tasks:
        raise ValueError("an empty chain cannot replace a task")
    call = _with_one_end(task, call.clone())
    if request.called_directly or request.is_eager:
        return call.apply().get()
    for callback in request.callbacks or ():
        call.link(callback)
    for errback in request.errbacks or ():
        call.link_error(errback)
    nesting: dict[str, Any] = {"replaced_task_nesting": request.replaced_task_nesting + 1}
    call.freeze(request.id)
    place = {"chord": request.chord, "group_id": request.group, "group_index": request.group_index}
    later = [as_signature(step, task.app).clone().set(**nesting) for step in request.chain or ()]
    options = {"root_id": request.root_id, "chain": later, **nesting, **place}
    call.apply_async(**{name: value for name, value in options.items() if value not in (None, [])})
    raise Ignore("replaced by another call")


def _with_one_end(task: Task[..., Any], call: Signature) -> Signature:
    """A group has as many results as members; with what gathers them it has one, under one id."""
    ends_in_group = isinstance(call, group) or (isinstance(call, chain) and isinstance(call.tasks[-1], group))
    if not ends_in_group:
        return call
    gather = Signature("celery.accumulate", (), {"index": 0}, app=task.app)
    joined: Signature = call | gather
    return joined
