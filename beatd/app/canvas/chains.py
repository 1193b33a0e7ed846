"""Chains: tasks in sequence, each with the result of the previous one.

A chain is kept as it was written. When it is frozen or sent it gets the shape in which it runs, see :func:`arranged`.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Any

from beatd.app.base import AppBase
from beatd.app.canvas.composition import Composition
from beatd.app.canvas.signature import Signature, as_signature, kind, listed, shortened, unrolled
from beatd.app.canvas.stamps import StampingVisitor

_OWN_OPTIONS = ("chord", "group_id", "group_index", "link", "link_error", "parent_id", "root_id", "task_id")
"""Options of the whole chain; all others go to its first task."""


class chain(Composition):  # noqa: N801 - Celery's name
    """``chain(add.s(1, 2), double.s())``, or ``add.s(1, 2) | double.s()``. Its result is that of its last task.

    A group with a following step becomes a chord with that step as its body. The chain is sent as its first task, whose
    message has the other steps in reverse order: each worker pops the last one and sends it.
    """

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        """Join the tasks as ``|`` does; with options, or for a single task, they stay as they are."""
        if options or not tasks or (len(tasks) == 1 and not _is_listing(tasks[0])):
            return super().__new__(cls)
        joined = fold(tasks[0] if len(tasks) == 1 else tasks)
        if cls is not chain and type(joined) is chain:
            made = super().__new__(cls)
            chain.__init__(made, *joined.tasks)
            return made
        return joined

    def __init__(self, *tasks: Any, app: AppBase | None = None, **options: Any) -> None:
        if len(self):
            return  # joined already
        given = tasks[0] if len(tasks) == 1 and _is_listing(tasks[0]) else tasks
        steps = [as_signature(task, app) for task in given]
        super().__init__("celery.chain", (), {"tasks": steps}, options, app=app, subtask_type="chain")

    def unchain_tasks(self) -> list[Signature]:
        """Return copies of the steps, with the chain's callbacks on the last one and its errbacks on each."""
        return _linked([task.clone() for task in self.tasks], self.options)

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Signature | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Assign all ids in place; an enclosing group or chord waits for the last task."""
        _, results = self.prepare_steps(
            (), {}, self.tasks, root_id, parent_id, None, None, _id, group_id, chord, False, group_index
        )
        return results[0] if results else None

    def prepare_steps(  # noqa: PLR0917 - Celery's arguments
        self,
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
        tasks: Iterable[Any],
        root_id: str | None = None,
        parent_id: str | None = None,  # noqa: ARG002 - Celery's argument
        link_error: Any = None,
        app: AppBase | None = None,
        last_task_id: str | None = None,
        group_id: str | None = None,
        chord_body: Signature | None = None,
        clone: bool = True,
        group_index: int | None = None,
    ) -> tuple[list[Signature], list[Any]]:
        """Bring the steps into the shape in which they run, and freeze them.

        Returns the steps and their results, both in reverse order. ``clone``: leave ``tasks`` unchanged.
        """
        steps = arranged(tasks, app or self._app, clone=clone)
        if clone and steps and (args or kwargs):
            steps[0] = _given(steps[0], tuple(args), dict(kwargs or {}))
        results: list[Any] = []
        for step in steps:
            if step is steps[-1]:
                result = step.freeze(last_task_id, group_id, chord_body, root_id, None, group_index)
            else:
                result = step.freeze(root_id=root_id)
            if results:
                first_of(result).parent = results[-1]
            results.append(result)
        _linked(steps, {"link_error": link_error})
        if results:
            self.id = results[-1].id  # for workers that must report a chain which is never sent
        return steps[::-1], results[::-1]

    def apply_async(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Send the chain; returns the handle of the last task, with the previous one as its ``parent``."""
        if self.app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        options = self.merged((), None, options)[2]
        own = {name: options.pop(name, None) for name in _OWN_OPTIONS}
        place = own["task_id"], own["group_id"], own["chord"], True, own["group_index"]
        args = self.args if self.immutable else (*(args or ()), *self.args)
        sending = chain(app=self._app)  # not this chain: it may be sent again, with other ids
        steps, results = sending.prepare_steps(
            args, kwargs or {}, self.tasks, own["root_id"], None, own["link_error"], self._app, *place
        )
        if not steps:
            return None
        if not is_empty_group(steps[0]):
            _linked(steps[:1], {"link": own["link"]})
        first = steps.pop()
        if own["root_id"] or own["parent_id"]:
            options |= {"root_id": own["root_id"], "parent_id": own["parent_id"]}
        options["chain"] = [*listed(options.get("chain")), *steps]
        sent = first.apply_async(**options)
        return results[0] if steps else sent

    def apply(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run the steps in this process; returns the last result. The exception of a failed step is raised."""
        options = self.merged((), None, options)[2]
        steps = arranged(self.tasks, self._app)
        _linked(steps, {"link": options.pop("link", None), "link_error": options.pop("link_error", None)})
        last = None
        for step in steps:
            given = tuple(args or ()) if last is None else (last.get(),)
            result = step.apply(given, kwargs or {} if last is None else {}, **options)
            first_of(result).parent = last
            last = result
            if getattr(result, "state", "") in ("IGNORED", "REJECTED"):
                break
        return last

    def __or__(self, other: Any) -> Any:
        """Return the chain of these steps and ``other``; the body of a chord, if the last step is a group."""
        return self.clone().joined(other) if isinstance(other, Signature) else NotImplemented

    def joined(self, other: Signature) -> Any:
        """Return ``self | other``, which is made in place."""
        chord, group = kind("chord"), kind("group")
        if is_empty_group(other):
            return self
        if (only := unrolled(other)) is not other:
            return self.joined(only)
        if isinstance(other, chain):
            return reduce(join, other.unchain_tasks(), self)
        last: Any = self.tasks[-1] if self.tasks else None
        if isinstance(last, group) and not isinstance(other, group):
            self.tasks[-1] = chord(last, other, app=self._app)
            if len(self.tasks) > 1 and isinstance(before := self.tasks[-2], chord):
                before.body = join(before.body, self.tasks.pop())
            return self
        if last is None and isinstance(other, group):
            return other
        is_body = isinstance(last, chord) and not isinstance(other, chord)
        if isinstance(other, group) or not is_body:
            _linked(self.tasks, self.options)
            self.options = {}
        if is_body:
            last.body = join(last.body, other)
        else:
            self.tasks.append(other)
        return self

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Signature:
        """Stamp all steps; see :meth:`Signature.stamp`."""
        begin, end = (None, None) if visitor is None else (visitor.on_chain_start, visitor.on_chain_end)
        self._stamp_tasks(visitor, begin, end, headers, append=append_stamps)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send the chain."""
        return self.apply_async(args, kwargs)

    def __repr__(self) -> str:
        text = " | ".join(map(repr, self.tasks)) or "<chain: empty>"
        return shortened(self.tasks[0].task, text) if self.tasks else text


def fold(tasks: Iterable[Any]) -> Any:
    """Return ``a | b | c`` of the tasks; all but the last one are copied, once."""
    calls = [as_signature(task) for task in tasks]
    copies = [call if isinstance(call, chain) else call.clone() for call in calls[:-1]]
    return reduce(join, [*copies, *calls[-1:]], chain())


def join(first: Signature, second: Signature) -> Any:
    """Return ``first | second``; ``first`` may be changed."""
    return first.joined(second)


def arranged(tasks: Iterable[Any], app: AppBase | None, *, clone: bool = True) -> list[Signature]:
    """Return the steps in the shape in which they run.

    Nested chains are opened, empty groups left out, and a group with a following step is a chord. With ``clone`` the
    steps are copies, and those of a chord's body follow the chord: the header's messages carry the first one only.
    """
    chord, group = kind("chord"), kind("group")
    steps: deque[Signature] = deque()
    expanded = list(_expanded(tasks, app, clone=clone))
    for step in reversed(expanded):
        if is_empty_group(step) and (steps or step is not expanded[0]):
            continue
        if isinstance(step, group) and steps:
            frozen = {"task_id": step.id} if step.id else {}
            steps.appendleft(chord(step, steps.popleft(), app=app, **frozen))
        else:
            steps.appendleft(step)
    return list(steps)


def _expanded(tasks: Iterable[Any], app: AppBase | None, *, clone: bool) -> Iterator[Signature]:
    """Yield the steps: those of nested chains, the member of a group of one, a chord and its body's further steps."""
    pending = deque(tasks)
    while pending:
        step = unrolled(as_signature(pending.popleft(), app))
        step = step.clone() if clone else step
        if isinstance(step, chain):
            pending.extendleft(reversed(_linked(step.tasks, step.options) if clone else step.tasks))
        elif clone and isinstance(step, kind("chord")) and leads_with_task(step.body):
            pending.extendleft(reversed(opened(step)))
        else:
            yield step


def opened(chord: Any) -> list[Signature]:
    """Return a chord with the first step of its body only, which is a chain, and the other steps."""
    body = chord.body
    options = {name: value for name, value in body.options.items() if name not in _OWN_OPTIONS}
    first, *others = body.unchain_tasks()
    chord.body = first.clone(**options)
    return [chord, *others]


def leads_with_task(body: Any) -> bool:
    """True for a chain whose first step is not a group."""
    return isinstance(body, chain) and bool(body.tasks) and not isinstance(body.tasks[0], kind("group"))


def is_empty_group(signature: Any) -> bool:
    """True for a group without members."""
    return isinstance(signature, kind("group")) and not signature.tasks


def _given(step: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the first step with further arguments; a group and a chord pass them on to each member."""
    if isinstance(step, kind("chord")):
        chord = step.clone(args)
        chord.kwargs["kwargs"] = {**chord.kwargs["kwargs"], **kwargs}
        return chord
    if isinstance(step, kind("group")) and not step.immutable:
        step.tasks = [_given(task, args, kwargs) for task in step.tasks]
        return step
    return step.clone(args, kwargs)


def _linked(steps: list[Signature], options: Mapping[str, Any]) -> list[Signature]:
    """Attach callbacks to the last step, and errbacks to every step; returns the steps."""
    for callback in listed(options.get("link")):
        steps[-1].link(callback)
    for errback in listed(options.get("link_error")):
        for step in steps:
            step.link_error(copy.deepcopy(errback))
    return steps


def _is_listing(value: Any) -> bool:
    """True for an iterable of tasks."""
    return isinstance(value, Iterable) and not isinstance(value, Mapping | str)


def first_of(result: Any) -> Any:
    """Return the earliest ancestor of a result, such as that of a chord's header."""
    while result.parent is not None:
        result = result.parent
    return result
