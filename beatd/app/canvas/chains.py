"""Chains: tasks in sequence, each with the result of the previous one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from beatd.app.base import AppBase
from beatd.app.canvas.signature import Composition, Signature, as_signature, kind, listed, shortened
from beatd.app.canvas.stamps import StampingVisitor

_CHAIN_OPTIONS = ("chord", "group_id", "group_index", "link", "link_error", "parent_id", "root_id", "task_id")
"""Options of the whole chain; all others go to its first task."""


class chain(Composition):  # noqa: N801 - Celery's name
    """``chain(add.s(1, 2), double.s())``, or ``add.s(1, 2) | double.s()``. Its result is that of its last task.

    A group with a following step becomes a chord with that step as its body. The chain is sent as its first task, whose
    message has the other steps in reverse order: each worker pops the last one and sends it.
    """

    def __init__(self, *tasks: Any, app: AppBase | None = None, **options: Any) -> None:
        is_iterable = len(tasks) == 1 and not isinstance(tasks[0], Mapping)
        steps: list[Signature] = []
        for task in tasks[0] if is_iterable else tasks:
            _join(steps, as_signature(task, app).clone())
        super().__init__("celery.chain", (), {"tasks": steps}, options, app=app, subtask_type="chain")

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Signature | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Assign all ids; an enclosing group or chord waits for the last task."""
        self._flatten()
        result = None
        for step in self.tasks:
            last = step is self.tasks[-1]
            if last:
                following = step.freeze(_id, group_id, chord, root_id, parent_id, group_index)
            else:
                following = step.freeze(root_id=root_id)
            if result is not None:
                first_of(following).parent = result
            result = following
        if result is not None:
            self.options["task_id"] = result.id  # for workers that must report a chain which is never sent
        return result

    def _flatten(self) -> None:
        """Flatten nested chains, and make chords of groups with a following step."""
        steps: list[Signature] = []
        for task in self.tasks:
            _join(steps, task)
        self.kwargs["tasks"] = steps

    def apply_async(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Send the chain; returns the handle of the last task, with the previous one as its ``parent``."""
        if self.app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        options = self.merged((), None, options)[2]
        whole = {name: options.pop(name, None) for name in _CHAIN_OPTIONS}
        copy = chain(*self.tasks, app=self._app)
        if not copy.tasks:
            return None
        result = copy.freeze(
            whole["task_id"], whole["group_id"], whole["chord"], whole["root_id"], None, whole["group_index"]
        )
        _link(copy.tasks, whole)
        first, *rest = copy.tasks
        if whole["root_id"] or whole["parent_id"]:
            options |= {"root_id": whole["root_id"], "parent_id": whole["parent_id"]}
        options["chain"] = [*listed(options.get("chain")), *reversed(rest)]
        args = () if self.immutable else tuple(args or ())
        sent = first.apply_async(args, kwargs or {}, **options)
        return result if rest else sent

    def apply(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run the steps in this process; returns the last result. The exception of a failed step is raised."""
        options = self.merged((), None, options)[2]
        copy = chain(*self.tasks, app=self._app)
        _link(copy.tasks, {"link": options.pop("link", None), "link_error": options.pop("link_error", None)})
        last = None
        for step in copy.tasks:
            given = tuple(args or ()) if last is None else (last.get(),)
            result = step.apply(given, kwargs or {} if last is None else {}, **options)
            first_of(result).parent = last
            last = result
            if getattr(result, "state", "") in ("IGNORED", "REJECTED"):
                break
        return last

    def __or__(self, other: Any) -> Any:
        """Return the chain of these steps and ``other``; the body of a chord, if the last step is a group."""
        is_group = isinstance(other, kind("group"))
        if is_group and not other.tasks:
            return self
        last = self.tasks[-1] if self.tasks else None
        if isinstance(last, kind("group")) and not last.tasks and isinstance(other, Signature):
            if is_group or isinstance(other, chain):
                return chain(*self.tasks[:-1], other, app=self._app)
            return chain(*self.tasks[:-1], kind("chord")(last, other, app=self._app), app=self._app)
        return super().__or__(other)

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Signature:
        """Stamp all steps; see :meth:`Signature.stamp`."""
        chosen = None if visitor is None else visitor.on_chain_start(self, **headers) or {}
        headers = self._stamped_by(chosen, headers, append=append_stamps)
        self.stamp_links(visitor, append_stamps, **headers)
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_chain_end(self, **headers)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send the chain."""
        return self.apply_async(args, kwargs)

    def __repr__(self) -> str:
        text = " | ".join(map(repr, self.tasks)) or "<chain: empty>"
        return shortened(self.tasks[0].task, text) if self.tasks else text


def _join(steps: list[Signature], following: Signature) -> None:
    """Append a step, flattened."""
    if isinstance(following, chain):
        tasks = following.tasks
        _link(tasks, following.options)
        for task in tasks:
            _join(steps, task)
        return
    group, chord = kind("group"), kind("chord")
    if isinstance(following, group):
        if not following.tasks:
            return
        if len(following.tasks) == 1:
            _join(steps, following.tasks[0])
            return
    last = steps[-1] if steps else None
    if isinstance(last, group):
        steps[-1] = last | following
    elif isinstance(last, chord) and _ends_in_group(last.body):
        last.body = last.body | following
    else:
        steps.append(following)


def _ends_in_group(signature: Any) -> bool:
    """True if the last step is a group, so that a following step must wait for all of its members."""
    if isinstance(signature, chain):
        return bool(signature.tasks) and _ends_in_group(signature.tasks[-1])
    if isinstance(signature, kind("chord")):
        return _ends_in_group(signature.body)
    return isinstance(signature, kind("group"))


def _link(steps: list[Signature], options: Mapping[str, Any]) -> None:
    """Attach callbacks to the last step, and errbacks to every step."""
    for callback in listed(options.get("link")):
        steps[-1].link(callback)
    for errback in listed(options.get("link_error")):
        for step in steps:
            step.link_error(errback)


def first_of(result: Any) -> Any:
    """Return the earliest ancestor of a result, such as that of a chord's header."""
    while result.parent is not None:
        result = result.parent
    return result
