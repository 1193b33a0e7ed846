"""Signatures: a call to be sent later. A task's name with its arguments and options, as JSON data."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

from beatd.app.base import AppBase
from beatd.app.canvas.fields import field
from beatd.app.canvas.stamps import StampingVisitor, Stamps, merged_stamps
from beatd.app.current import current_app
from beatd.message.protocol import new_id

_FIXED = frozenset({"group_id", "stamped_headers"})
"""Options that are never overridden: the group would wait for a task that reports to another group."""


class Signature(dict[str, Any]):
    """A dict of Celery's six keys (``task args kwargs options subtask_type immutable``), which is also its JSON form.

    Its subclasses are the compositions of :mod:`beatd.app.canvas`, one per ``subtask_type``.
    """

    TYPES: ClassVar[dict[str, type[Signature]]] = {}
    """Compositions by ``subtask_type``."""

    _app: AppBase | None
    _type: Any = None

    def __init__(
        self,
        task: Any = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        app: AppBase | None = None,
        type: Any = None,  # noqa: A002 - Celery's name
        immutable: bool = False,
        subtask_type: str | None = None,
        **more: Any,
    ) -> None:
        if isinstance(task, Mapping):
            super().__init__(task)
            self._complete()
        else:
            super().__init__(
                task=getattr(task, "name", task),
                args=tuple(args or ()),
                kwargs=dict(kwargs or {}),
                options={**(options or {}), **more},
                subtask_type=subtask_type,
                immutable=immutable,
            )
        self._type = type
        self._app = app or getattr(type or task, "app", None)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], app: AppBase | None = None) -> Signature:
        """Return the signature of a JSON dict, in the class of its ``subtask_type``."""
        subclass = kind(str(name)) if (name := fields.get("subtask_type")) else Signature
        signature: Signature = subclass.__new__(subclass)  # type: ignore[call-overload]  # mypy takes it for a metaclass
        dict.__init__(signature, fields)
        signature._app = app or getattr(fields, "_app", None)
        signature._type = getattr(fields, "_type", None)
        signature._complete()
        signature._revive()
        return signature

    def _complete(self) -> None:
        """Add keys that other producers may leave out, and copy kwargs and options."""
        self["args"] = self.get("args") or ()
        self["kwargs"] = dict(self.get("kwargs") or {})
        self["options"] = dict(self.get("options") or {})
        self.setdefault("subtask_type", None)
        self.setdefault("immutable", False)

    def _revive(self) -> None:
        """Make signatures of nested JSON dicts; compositions override it."""

    # -- fields -------------------------------------------------------------------------------------------------------

    @property
    def app(self) -> AppBase:
        """The app that sends it: the task's app, else the current one."""
        return self.given_app() or current_app()

    def given_app(self) -> AppBase | None:
        """Return the app that it, or the first part of a composition, was made for; None for the current one."""
        return self._app

    def _get_type(self) -> Any:
        self.app.finalize()
        return self.app.tasks[self.task] if self._type is None else self._type

    def registered(self) -> Any:
        """Return the task, else None. An eager process is the worker, and imports the task modules for a new name."""
        if self._type is None and self.task not in self.app.tasks and self.app.conf.task_always_eager:
            self.app.import_tasks()
        return self._type or self.app.tasks.get(self.task)

    def _set_type(self, task: Any) -> None:
        self._type = task

    type = property(_get_type, _set_type, doc="The task; raises NotRegistered if it is not registered here.")

    task: str = field("task", "The task's name.")
    args: Sequence[Any] = field("args", "Positional arguments.")
    kwargs: dict[str, Any] = field("kwargs", "Keyword arguments.")
    options: dict[str, Any] = field("options", "Options of the message.")
    subtask_type: str | None = field("subtask_type", "The kind of the composition; None for a single call.")
    immutable: bool = field("immutable", "True if it ignores the result of the previous task.")
    id: str | None = field("options.task_id", "The task id, once it is frozen.")
    root_id: str | None = field("options.root_id", "The id of the first task of the composition, if it is given.")
    parent_id: str | None = field("options.parent_id", "The id of the task that sends it, if it is given.")

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task

    @property
    def AsyncResult(self) -> Any:  # noqa: N802 - Celery's name
        """The maker of its result handles: that of its task, else of its app."""
        return (self._type or self.app.tasks.get(self.task) or self.app).AsyncResult

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[Any], Any]:
        """Return a decorator that makes a subclass the class of signatures with this ``subtask_type``.

        The default is the name of the subclass.
        """

        def register(subclass: Any) -> Any:
            cls.TYPES[name or subclass.__name__] = subclass
            return subclass

        return register

    # -- variations ---------------------------------------------------------------------------------------------------

    def merged(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        """Merge further arguments and options: ``args`` go in front, ``kwargs`` and ``options`` override."""
        fixed = _FIXED | set(self.options.get("stamped_headers") or ())
        later = {
            name: value for name, value in (options or {}).items() if name not in fixed or name not in self.options
        }
        merged = {**self.options, **later}
        if self.immutable:
            return tuple(self.args), self.kwargs, merged
        return (*(args or ()), *self.args), {**self.kwargs, **(kwargs or {})}, merged

    def clone(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Signature:
        """Return a copy with further arguments and options; see :meth:`merged`."""
        immutable = bool(options.pop("immutable", self.immutable))
        args, kwargs, options = self.merged(args, kwargs, options)
        fields = {**self, "args": args, "kwargs": dict(kwargs), "options": options, "immutable": immutable}
        fields["options"] = copy.deepcopy(options)
        made = Signature.from_dict(fields, self._app)
        made._type = self._type
        return made

    partial = clone

    def replace(self, args: Any = None, kwargs: Any = None, options: Any = None) -> Signature:
        """Return a copy with other arguments or options."""
        new = {"args": args, "kwargs": kwargs, "options": options}
        return Signature.from_dict({**self.clone(), **{k: v for k, v in new.items() if v is not None}}, self._app)

    def set(self, immutable: bool | None = None, **options: Any) -> Signature:
        """Set options in place; returns itself."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        self.immutable = immutable

    def link(self, callback: Mapping[str, Any]) -> Any:
        """Run ``callback`` with the result after a success."""
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Mapping[str, Any]) -> Any:
        """Run ``errback`` with the task id after a failure."""
        return self.append_to_list_option("link_error", errback)

    def on_error(self, errback: Mapping[str, Any]) -> Signature:
        """Call :meth:`link_error`; returns this signature."""
        self.link_error(errback)
        return self

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Append ``value`` to an option that is a list, unless it is there; returns ``value``."""
        items = self._list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Append one or several values to an option that is a list."""
        self._list_option(key).extend(listed(value))

    def _list_option(self, key: str) -> list[Any]:
        """Return the option as a list, in place."""
        items = self.options.get(key)
        if not isinstance(items, list):
            items = self.options[key] = listed(items)
        return items

    def flatten_links(self) -> list[Signature]:
        """Return this signature and its callbacks, and theirs."""
        links = map(self._own, listed(self.options.get("link")))
        return [self, *(each for link in links for each in link.flatten_links())]

    # -- stamps -------------------------------------------------------------------------------------------------------

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Signature:
        """Add stamps in place: ``headers``, and those that ``visitor`` chooses; returns itself.

        Callbacks and errbacks are stamped, too. With ``append_stamps``, values of the same name become a list.
        """
        self.stamp_links(visitor, append_stamps, **headers)
        chosen = None if visitor is None else dict(visitor.on_signature(self, **headers) or {})
        return self.set(**merged_stamps(headers, chosen, self.options, append=append_stamps))

    def stamp_links(self, visitor: StampingVisitor | None, append_stamps: bool = False, **headers: Any) -> None:
        """Stamp callbacks, errbacks, and the steps of a chain that follow this task."""
        for option, method in (("link", "on_callback"), ("link_error", "on_errback"), ("chain", None)):
            choose = getattr(visitor, method) if visitor is not None and method else None
            stamps, links = dict(headers), []
            for link in map(self._own, listed(self.options.get(option))):
                if choose is not None:
                    stamps = merged_stamps(stamps, dict(choose(link, **stamps) or {}), {}, append=append_stamps)
                links.append(link.stamp(visitor, append_stamps, **stamps))
            if links:
                self.options[option] = links

    def _own(self, link: Any) -> Signature:
        return as_signature(link, self._app)

    def _stamped_by(self, chosen: Stamps | None, headers: Stamps, *, append: bool) -> Stamps:
        """Merge the stamps for the parts of a composition."""
        return merged_stamps(headers, None if chosen is None else dict(chosen), self.options, append=append)

    def __or__(self, other: Any) -> Any:
        """Return the chain of ``self`` and ``other``."""
        if not isinstance(other, Signature):
            return NotImplemented
        chain = kind("chain")
        if isinstance(other, chain):
            return chain(self, *other.unchain_tasks(), app=self._app)
        return chain(self, unrolled(other), app=self._app)

    def joined(self, other: Signature) -> Any:
        """Return ``self | other``; a composition may change itself for it."""
        return self | other

    def __ior__(self, other: Any) -> Any:
        return self | other

    # -- sending ------------------------------------------------------------------------------------------------------

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Signature | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Assign the task id in place, unless it has one; returns the result's handle."""
        options = self.options
        if "task_id" not in options:
            options["task_id"] = _id or new_id()
        options.setdefault("reply_to", self.app.reply_address())
        given = {"root_id": root_id, "parent_id": parent_id, "chord": chord, "group_index": group_index}
        options.update((name, value) for name, value in given.items() if value is not None)
        if group_id:
            options.setdefault("group_id", group_id)
        return self.AsyncResult(options["task_id"])

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send it, with further arguments."""
        return self.apply_async(args, kwargs)

    def apply_async(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Send the task; see :meth:`beatd.Task.apply_async`. Returns the result's handle. None does not override."""
        args, kwargs, options = self.merged(args, kwargs, _without_none(options))
        self.app.finalize()
        task = self.registered()
        if task is not None:
            return task.apply_async(args, kwargs, **options)
        return self.app.send_task(self.task, args, kwargs, **options)

    def apply(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run the task in this process; returns an ``EagerResult``. None does not override."""
        args, kwargs, options = self.merged(args, kwargs, _without_none(options))
        return self.type.apply(args, kwargs, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task's function in this process."""
        args, kwargs, _ = self.merged(args, kwargs)
        return self.type(*args, **kwargs)

    def __invert__(self) -> Any:
        """Send it and wait for its result: ``~signature``."""
        return self.apply_async().get()

    # -----------------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return self.reprcall()

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """Return the call as text, with ``args`` in front of its own arguments: ``tasks.add(2, 2)``."""
        words = [repr(arg) for arg in (*args, *self.args)]
        words += [f"{name}={value!r}" for name, value in {**self.kwargs, **kwargs}.items()]
        return f"{self.task}({', '.join(words)})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Signature:
        made = Signature.from_dict({**self, "options": {}}, self._app)
        memo[id(self)] = made  # a callback may refer to the signature that it is a callback of
        made.options = copy.deepcopy(self.options, memo)
        return made

    def __json__(self) -> dict[str, Any]:
        return dict(self)

    def __reduce__(self) -> Any:
        return Signature.from_dict, (dict(self),)


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def unrolled(signature: Any) -> Any:
    """Return the only member of a group of one, else the signature itself."""
    is_single = isinstance(signature, kind("group")) and len(signature.tasks) == 1
    return signature.tasks[0] if is_single else signature


def shortened(task: str, text: str) -> str:
    """Leave the module of ``task`` out of ``text``, except for the first time: ``tasks.add(2, 2) | mul(3)``."""
    module = task.rpartition(".")[0]
    head, found, rest = text.partition(f"{module}.")
    return head + found + re.sub(rf"(?<![\w.-]){re.escape(found)}", "", rest) if module else text


def signature(task: Any, *args: Any, **options: Any) -> Any:
    """Build the signature of a task or of its name: ``signature("tasks.add", args=(2, 2), countdown=10)``.

    A dict, as a signature is in JSON, becomes a signature again.
    """
    app: AppBase | None = options.pop("app", None)
    return (app or current_app()).signature(task, *args, **options)


def maybe_signature(call: Any, app: AppBase | None = None, clone: bool = False) -> Any:
    """:func:`signature` of a dict. None and signatures are returned unchanged."""
    if call is None or (isinstance(call, Signature) and not clone):
        return call
    return signature(call, app=app)


def kind(name: str) -> type[Any]:
    """Return the composition class of that name; :class:`Signature` for an unknown name."""
    if name not in Signature.TYPES:
        import_module("beatd.app.canvas")  # it imports this module, and fills ``TYPES``
    return Signature.TYPES.get(name, Signature)


def as_signature(value: Any, app: AppBase | None = None) -> Signature:
    """Return the signature of a JSON dict, bound to ``app``, or of a task without arguments.

    Raises TypeError for anything else.
    """
    if isinstance(value, Signature):
        return value
    if not isinstance(value, str | Mapping) and not hasattr(value, "name"):
        raise TypeError(f"expected a signature or a task, got {value!r}")
    return Signature.from_dict(value, app) if isinstance(value, Mapping) else Signature(value, app=app)


def listed(value: Any) -> list[Any]:
    """Return one, several or no signatures as a new list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
