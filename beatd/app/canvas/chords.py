"""Chords: a group of tasks (header), then one task with the list of their results (body)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from beatd.app.base import AppBase
from beatd.app.canvas.chains import chain, first_of, join, leads_with_task, opened
from beatd.app.canvas.composition import Composition
from beatd.app.canvas.fields import field
from beatd.app.canvas.groups import group, outer_result, tasks_of
from beatd.app.canvas.signature import Signature, as_signature, listed, shortened, unrolled
from beatd.app.canvas.stamps import StampingVisitor
from beatd.app.context import worker_run
from beatd.app.group_result import GroupResult
from beatd.app.routing import route_for
from beatd.message.protocol import new_id

_BODY_OPTIONS = frozenset({"add_to_parent", "chain", "chord", "group_id", "group_index", "link", "link_error"})
"""Options of the body: they concern what follows the chord."""


class chord(Composition):  # noqa: N801 - Celery's name
    """``chord([add.s(1, 2), add.s(3, 4)])(total.s())``, or ``group(…) | total.s()``: a header and a body.

    Each message of the header contains the body. Workers count the finished tasks in the result backend; the worker of
    the last one sends the body. The chord's result is that of the body.
    """

    def __init__(
        self,
        header: Any,
        body: Any = None,
        *,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        app: AppBase | None = None,
        **options: Any,
    ) -> None:
        parts = {
            "kwargs": dict(kwargs or {}),
            "header": tasks_of(header, app),
            "body": None if body is None else as_signature(body, app),
        }
        super().__init__("celery.chord", args, parts, options, app=app, subtask_type="chord")

    def _revive(self) -> None:
        self.kwargs["header"] = [task.clone() for task in tasks_of(self.kwargs.get("header"), self._app)]
        if _is_nothing(self.kwargs.get("kwargs")):
            self.kwargs["kwargs"] = {}
        body = self.kwargs.get("body")
        self.kwargs["body"] = None if body is None else as_signature(body, self._app).clone()

    tasks: list[Signature] = field("kwargs.header", "The members of the header.")
    body: Any = field("kwargs.body", "The signature that runs once the header has finished.")

    def given_app(self) -> AppBase | None:
        app = self._app or (self.tasks[0].given_app() if self.tasks else None)
        return app or (None if self.body is None else self.body.given_app())

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Signature | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Assign all ids; the chord's own is that of its header."""
        header = self.header_group()
        header_result = header.freeze(self.id, None, None, root_id, parent_id)
        self.id = header.id
        if self.body is None:
            return header_result
        result = self.body.freeze(_id, group_id, chord, root_id, None, group_index)
        first_of(result).parent = header_result
        return result

    def apply_async(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Send the header, with ``args`` in front of each task's; returns the handle of the body.

        Its ``parent`` is the header's handle. ``countdown`` and ``eta`` delay the header; other options go to both.
        """
        kwargs = dict(kwargs or {})
        body = self._body(kwargs)
        if (self.given_app() or body.app).conf.task_always_eager:
            callbacks = {name: options.pop(name, self.options.get(name)) for name in ("link", "link_error")}
            _link(body, callbacks)
            return self.apply(args, kwargs, body=body, **options)
        options = {k: v for k, v in self.merged((), None, options)[2].items() if v is not None}
        task_id = task_id or options.get("task_id")
        own = options.pop("task_id", None) or new_id()
        for_header = {name: value for name, value in options.items() if name not in _BODY_OPTIONS}
        for_body = {n: v for n, v in options.items() if n not in ("countdown", "eta", "parent_id", "add_to_parent")}
        _link(body, for_body)
        body.options.update(for_body)
        root_id = body.root_id
        if isinstance(body, chain):
            split_chords(body)
        result = body.freeze(task_id, own, root_id=root_id)
        header = group([task.clone() for task in self.header_group().members()], app=self._app, task_id=own)
        header_result = header.freeze_members(own, own, body, root_id)
        if header.tasks:
            body["chord_size"] = size_of(header)  # Celery 4 counts by it; its tasks have this body in their messages
            self._announce(header_result, body)
            args = () if self.immutable else (*(args or ()), *self.args)
            header.send(args, {**self.kwargs["kwargs"], **kwargs}, for_header)
            if (running := worker_run()) is not None and options.get("add_to_parent", True):
                running.task.add_trail(header_result)
        else:
            body.apply_async(([],))
        result.parent = outer_result(header_result)  # as in Celery: steps of the body in between are no parents
        return result

    def _body(self, kwargs: dict[str, Any]) -> Signature:
        """Return a copy of the body, or of one in ``kwargs``; raises TypeError if there is none."""
        body = kwargs.pop("body", None) or self.body
        if body is None:
            raise TypeError("a chord needs a body: chord(header)(body), or chord(header, body)")
        return as_signature(body, self._app).clone()

    def _announce(self, result: GroupResult, body: Signature) -> None:
        """Store the chord's size in the result backend, before the first task can finish.

        Where the backend cannot count, send the task that waits for the header.
        """
        if self.app.results.groups.is_polled:
            route = route_for(body.task, (), {}, body.options, self.app.conf)
            place = {"queue": route.queue, "exchange": route.exchange, "routing_key": route.routing_key}
            options: dict[str, Any] = {name: value for name, value in place.items() if value}
            args = result.id, body
            kwargs = {"result": [member.as_tuple() for member in result]}
            self.app.send_task("celery.chord_unlock", args, kwargs, countdown=1.0, ignore_result=True, **options)
            return
        nested = any(isinstance(member, GroupResult) for member in result)
        is_of_celery_4 = "chord_size" in self.tasks[0]
        size = None if is_of_celery_4 else body["chord_size"]
        self.app.results.groups.begin(result.id, size, result.as_tuple() if nested else None)

    def apply(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        propagate: bool = True,
        body: Signature | None = None,
        **options: Any,
    ) -> Any:
        """Run header and body in this process.

        The exception of a failed task of the header is raised; without ``propagate`` it is a result for the body.
        """
        kwargs = dict(kwargs or {})
        if body is None:
            body = self._body(kwargs)
            _link(body, {**self.options, **options})
        args = () if self.immutable else (*(args or ()), *self.args)
        header = self.header_group().apply(args, {**self.kwargs["kwargs"], **kwargs})
        following = {"chain": options["chain"]} if options.get("chain") else {}
        result = body.apply((header.get(propagate=propagate, disable_sync_subtasks=False),), **following)
        first_of(result).parent = header
        return result

    def link(self, callback: Mapping[str, Any]) -> Any:
        """Run ``callback`` once the body has succeeded."""
        return self.body.link(callback)

    def link_error(self, errback: Mapping[str, Any]) -> Any:
        """Run ``errback`` once the body has failed; a failure in the header fails it too.

        With ``task_allow_error_cb_on_chord_header``, each failed task of the header runs it as well.
        """
        if self.app.conf.task_allow_error_cb_on_chord_header:
            for task in self.tasks:
                task.link_error(as_signature(errback, self._app).clone())
        for task in self.tasks:
            if isinstance(task, chord):
                task.link_error(errback)
        self.body.link_error(errback)
        return errback

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Signature:
        """Stamp the tasks of the header, and the body; see :meth:`Signature.stamp`."""
        begin, end = (None, None) if visitor is None else (visitor.on_chord_header_start, visitor.on_chord_header_end)
        headers = self._stamp_tasks(visitor, begin, end, headers, append=append_stamps)
        if self.body is not None:
            if visitor is not None:
                chosen = visitor.on_chord_body(self, **headers) or {}
                headers = self._stamped_by(chosen, headers, append=append_stamps)
            self.body.stamp(visitor, append_stamps, **headers)
        return self

    def header_group(self) -> group:
        """Return the header as a group, with the same list of members."""
        header = group(app=self._app)
        header.tasks = self.tasks
        return header

    def set_immutable(self, immutable: bool) -> None:
        """Make the tasks of the header immutable; the body always gets their results."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def __or__(self, other: Any) -> Any:
        """Return the chord with ``other`` after its body; a chain, if ``other`` is a chain or a group."""
        return self.clone().joined(other) if isinstance(other, Signature) else NotImplemented

    def joined(self, other: Signature) -> Any:
        """Return ``self | other``, which is made in place if it is a chord."""
        following = unrolled(other)
        if following is other and isinstance(other, group | chain):
            return super().__or__(other)
        self.body = join(self.body, following)
        return self

    def __length_hint__(self) -> int:
        return sum(map(size_of, self.tasks))

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send the chord, with ``body`` if it has none."""
        return self.apply_async((), {"body": body} if body else {}, **options)

    def __repr__(self) -> str:
        if self.body is None:
            return f"<chord without body: {self.tasks!r}>"
        first, *steps = self.body.tasks if isinstance(self.body, chain) and self.body.tasks else [self.body]
        text = f"%{first.reprcall(self.tasks)}"
        if steps:
            text = f"%({text[1:]} | {chain(*steps, app=self._app)!r})"
        return shortened(first.task, text)


def split_chords(body: Any) -> None:
    """Let the steps of chords' bodies follow the chords, in a chain that may be changed: see :func:`arranged`."""
    pending, steps = deque(body.tasks), []
    while pending:
        step = pending.popleft()
        if isinstance(step, chain):
            step = step.clone()
            split_chords(step)
        if isinstance(step, chord) and leads_with_task(step.body):
            pending.extendleft(reversed(opened(step.clone())))
        else:
            steps.append(step)
    body.tasks = steps


def size_of(signature: Any) -> int:
    """Return the number of parts that a chord waits for with this signature in its header."""
    if isinstance(signature, group):
        return sum(map(size_of, signature.tasks))
    if isinstance(signature, chain):  # a step without tasks, such as an empty group, is left out
        return next(filter(None, map(size_of, reversed(signature.tasks))), 0)
    if isinstance(signature, chord):
        return size_of(signature.body)
    return 1


def _link(body: Signature, options: dict[str, Any]) -> None:
    """Move the chord's callbacks and errbacks from ``options`` to its body."""
    for callback in listed(options.pop("link", None)):
        body.link(callback)
    for errback in listed(options.pop("link_error", None)):
        body.link_error(errback)


def _is_nothing(kwargs: Any) -> bool:
    """True for no keyword arguments; Celery 4.4 writes ``{"kwargs": {}}``, one level deeper with each copy."""
    while isinstance(kwargs, dict) and kwargs.keys() == {"kwargs"}:
        kwargs = kwargs["kwargs"]
    return not kwargs
