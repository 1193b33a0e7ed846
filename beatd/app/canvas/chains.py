"""One task after the other, each with the result of the one before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from beatd.app.base import AppBase
from beatd.app.canvas.signature import Signature, as_signature, kind, listed

_OF_THE_WHOLE = ("chord", "group_id", "group_index", "link", "link_error", "parent_id", "root_id", "task_id")
"""Options that are the chain's as a whole; the others go to its first task."""


class chain(Signature):  # noqa: N801 - Celery's name
    """``chain(add.s(1, 2), double.s())``, or ``add.s(1, 2) | double.s()``. Its result is that of its last task.

    A group that something follows becomes a chord with that as its body. Sent, it is its first task, with the others
    in the message in reverse order, so that each worker takes the last one off and sends it.
    """

    def __init__(self, *tasks: Any, app: AppBase | None = None, **options: Any) -> None:
        several = len(tasks) == 1 and not isinstance(tasks[0], Mapping)
        steps: list[Signature] = []
        for task in tasks[0] if several else tasks:
            _join(steps, as_signature(task, app).clone())
        super().__init__("celery.chain", (), {"tasks": steps}, options, app=app, subtask_type="chain")

    def _revive(self) -> None:
        self.kwargs["tasks"] = [as_signature(task, self._app).clone() for task in self.kwargs.get("tasks") or ()]

    @property
    def tasks(self) -> list[Signature]:
        """Its steps."""
        return self.kwargs["tasks"]  # type: ignore[no-any-return]

    @property
    def app(self) -> AppBase:
        return self._app or (self.tasks[0].app if self.tasks else super().app)

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Signature | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Decide on all ids; a group or chord that the chain is part of waits for its last task."""
        self._level()
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
            self.options["task_id"] = result.id  # by which a worker names the chain when it never gets to run
        return result

    def _level(self) -> None:
        """Put the steps of chains that are steps in their place, and make chords of groups that something follows."""
        steps: list[Signature] = []
        for task in self.tasks:
            _join(steps, task)
        self.kwargs["tasks"] = steps

    def apply_async(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Send its first task, and the others with it. Returns the handle of the last one; ``parent`` leads back."""
        if self.app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        options = self.merged((), None, options)[2]
        whole = {name: options.pop(name, None) for name in _OF_THE_WHOLE}
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
        """Run it here and now, step by step; returns the last result. A step that fails is raised here."""
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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send it."""
        return self.apply_async(args, kwargs)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.tasks)) or "<chain: empty>"


def _join(steps: list[Signature], following: Signature) -> None:
    """Put one more step behind the others."""
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
    """Whether several tasks are the last ones, so that what follows must wait for all of them."""
    if isinstance(signature, chain):
        return bool(signature.tasks) and _ends_in_group(signature.tasks[-1])
    if isinstance(signature, kind("chord")):
        return _ends_in_group(signature.body)
    return isinstance(signature, kind("group"))


def _link(steps: list[Signature], options: Mapping[str, Any]) -> None:
    """What follows the chain follows its last task; what is to be told of a failure is told of any task's."""
    for callback in listed(options.get("link")):
        steps[-1].link(callback)
    for errback in listed(options.get("link_error")):
        for step in steps:
            step.link_error(errback)


def first_of(result: Any) -> Any:
    """The earliest result that leads to this one: that of a chord's header, for one."""
    while result.parent is not None:
        result = result.parent
    return result
