"""Groups: tasks in parallel; ``map``, ``starmap`` and ``chunks``: one task for many arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from beatd.app.base import AppBase
from beatd.app.canvas.chains import chain
from beatd.app.canvas.composition import Composition
from beatd.app.canvas.signature import Signature, as_signature, kind, listed, shortened
from beatd.app.canvas.stamps import StampingVisitor
from beatd.app.context import worker_run
from beatd.app.group_result import GroupResult
from beatd.message.protocol import new_id


class group(Composition):  # noqa: N801 - Celery's name
    """``group(add.s(1, 2), add.s(3, 4))``, or with one iterable. Its result is a ``GroupResult``, in the same order."""

    def __init__(self, *tasks: Any, app: AppBase | None = None, **options: Any) -> None:
        members = tasks[0] if len(tasks) == 1 else tasks
        if isinstance(members, group):
            own = members.tasks  # the same list: freezing the one freezes the other
        else:
            members = [members] if isinstance(members, Mapping) or hasattr(members, "name") else members
            own = [as_signature(member, app) for member in members]
        super().__init__("celery.group", (), {"tasks": own}, options, app=app, subtask_type="group")

    def members(self) -> Iterator[Signature]:
        """Yield the signatures to send: nested groups are flattened, empty chains skipped."""
        for task in self.tasks:
            if isinstance(task, group):
                yield from task.members()
            elif not (isinstance(task, chain) and not task.tasks):
                yield task

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Signature | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,  # noqa: ARG002 - each member has its own
    ) -> Any:
        """Assign the ids of the group and of its members; an enclosing chord waits for each member.

        The members are replaced by copies: the same signature may be in a group more than once.
        """
        self.tasks[:] = [task.clone() for task in self.members()]
        return self.freeze_members(_id, group_id, chord, root_id, parent_id)

    def freeze_members(
        self,
        _id: str | None,
        group_id: str | None = None,
        chord: Signature | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
    ) -> GroupResult:
        """Assign the ids of members that nobody else has."""
        own = self.options.setdefault("task_id", _id or new_id())
        results = [
            task.freeze(None, group_id, chord, root_id, parent_id, index) for index, task in enumerate(self.tasks)
        ]
        result: GroupResult = self.app.GroupResult(own, results)
        return result

    def apply_async(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        add_to_parent: bool = True,
        **options: Any,
    ) -> Any:
        """Send all members, with ``args`` in front of theirs; returns a ``GroupResult``. Options go to each member."""
        for option in ("link", "link_error"):
            if options.get(option):
                raise TypeError(f"a group does not take {option}: set it on its tasks, or use a chord")
        if self.app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        options = self.merged((), None, options)[2]
        own, errbacks = options.pop("task_id", None) or new_id(), listed(options.pop("link_error", None))
        for name in ("group_id", "group_index"):
            options.pop(name, None)
        copy = group([task.clone() for task in self.members()], app=self._app, task_id=own)
        for errback in errbacks:
            copy.link_error(errback)
        result = outer_result(copy.freeze_members(own, own, root_id=options.get("root_id")))
        options = {name: value for name, value in options.items() if value is not None}
        copy.send(() if self.immutable else args, kwargs, options)
        running = worker_run()
        if add_to_parent and running is not None:
            running.task.add_trail(result)
        return result

    def send(self, args: Iterable[Any], kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]) -> None:
        """Send the members of a frozen group without copying them; the caller must own them."""
        with self.app.publishing_together():
            for task in self.tasks:
                task.apply_async(tuple(args or ()), kwargs or {}, **{**options, "add_to_parent": False})

    def apply(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run the members in this process, in sequence."""
        options = self.merged((), None, options)[2]
        own = options.pop("task_id", None) or new_id()
        results = [task.clone().apply(tuple(args or ()), kwargs or {}, **options) for task in self.members()]
        return self.app.GroupResult(own, results)

    def link(self, callback: Mapping[str, Any]) -> Any:
        """Run ``callback`` once the first member has succeeded, without its result."""
        return self.tasks[0].link(as_signature(callback, self._app).clone(immutable=True))

    def link_error(self, errback: Mapping[str, Any]) -> Any:
        """Run ``errback`` for each member that fails."""
        return tuple(task.link_error(as_signature(errback, self._app).clone()) for task in self.tasks)

    def set_immutable(self, immutable: bool) -> None:
        for task in self.tasks:
            task.set_immutable(immutable)

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> group:
        """Give the members increasing countdowns (seconds), none above ``stop``, to spread their starts."""
        pause = float(start)
        for task in self.tasks:
            task.set(countdown=pause)
            if not stop or pause + step <= stop:
                pause += step
        return self

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Signature:
        """Stamp all members; see :meth:`Signature.stamp`."""
        begin, end = (None, None) if visitor is None else (visitor.on_group_start, visitor.on_group_end)
        self._stamp_tasks(visitor, begin, end, headers, append=append_stamps)
        return self

    def __or__(self, other: Any) -> Any:
        """Return a chord with ``other`` as its body."""
        if not isinstance(other, Signature):
            return NotImplemented
        if isinstance(other, group) and not other.tasks:
            return self
        frozen = {"task_id": self.id} if self.id else {}
        return kind("chord")(self, other, app=self._app, **frozen)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Send the group, with ``args`` in front of each member's."""
        return self.apply_async(args, **options)

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return shortened(self.tasks[0].task, f"group({self.tasks!r})") if self.tasks else "group(<empty>)"


def outer_result(result: GroupResult) -> GroupResult:
    """Return the result of a group; that of its only member, if that one ends in a group."""
    return result[0] if len(result) == 1 and isinstance(result[0], GroupResult) else result


def tasks_of(header: Any, app: AppBase | None) -> list[Signature]:
    """Return the members of a chord's header: those of a group or chain (as in Celery), one signature, or several."""
    if isinstance(header, Mapping):
        signature = as_signature(header, app)
        return signature.tasks if isinstance(signature, group | chain) else [signature]
    return [as_signature(task, app).clone() for task in header or ()]  # the caller may use them elsewhere


class xmap(Signature):  # noqa: N801 - Celery's name
    """``task.map([1, 2])``: one task that calls ``task`` with each item, and returns the list of results."""

    task_name = "celery.map"

    def __init__(self, task: Any, it: Iterable[Any], *, app: AppBase | None = None, **options: Any) -> None:
        arguments = {"task": as_signature(task, app).clone(), "it": list(it)}
        super().__init__(self.task_name, (), arguments, options, app=app, immutable=True)

    def apply_async(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Send the task; ``task_routes`` are asked for the task that it calls."""
        if not self.options.get("route_name"):
            options.setdefault("route_name", self.route_name)
        return super().apply_async(args, kwargs, **options)

    @property
    def route_name(self) -> str:
        """The name that ``task_routes`` are asked for: that of the task that it calls."""
        return _called(self)


def _called(call: Signature) -> str:
    """Return the name of the task that a map, or chunks, call."""
    return as_signature(call.kwargs["task"]).task


class xstarmap(xmap):  # noqa: N801 - Celery's name
    """``task.starmap([(1, 2), (3, 4)])``: like :class:`xmap`; each item is the arguments of one call."""

    task_name = "celery.starmap"


class chunks(Signature):  # noqa: N801 - Celery's name
    """``task.chunks(items, 10)``: a group of :class:`xstarmap` with 10 items each."""

    def __init__(self, task: Any, it: Iterable[Any], n: int, *, app: AppBase | None = None, **options: Any) -> None:
        arguments = {"task": as_signature(task, app).clone(), "it": list(it), "n": n}
        super().__init__("celery.chunks", (), arguments, options, app=app, immutable=True)

    @classmethod
    def apply_chunks(cls, task: Any, it: Iterable[Any], n: int, app: AppBase | None = None) -> Any:
        """Send ``task`` for all items, ``n`` in a message."""
        return cls(task, it, n, app=app)()

    def group(self) -> group:
        """Return the chunks as a group."""
        task, items, size = (self.kwargs[name] for name in ("task", "it", "n"))
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        return group([xstarmap(task, part, app=self._app) for part in parts], app=self._app)

    def apply_async(
        self,
        args: Iterable[Any] = (),  # noqa: ARG002 - chunks have their arguments
        kwargs: Mapping[str, Any] | None = None,  # noqa: ARG002
        **options: Any,
    ) -> Any:
        """Send all chunks; returns a ``GroupResult`` with a list for each chunk."""
        options = {"route_name": _called(self), **self.options, **options}
        return self.group().apply_async((), {}, **options)

    def apply(
        self,
        args: Iterable[Any] = (),  # noqa: ARG002
        kwargs: Mapping[str, Any] | None = None,  # noqa: ARG002
        **options: Any,
    ) -> Any:
        """Run all chunks in this process."""
        return self.group().apply((), {}, **{**self.options, **options})

    def __call__(self, **options: Any) -> Any:
        """Send all chunks."""
        return self.apply_async(**options)
