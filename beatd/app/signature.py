"""A call that is not made yet: a task's name with its arguments and options, as data that JSON can carry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from beatd.app.shared import current_app

if TYPE_CHECKING:
    from beatd.app.app import App
    from beatd.app.result import AsyncResult


class Signature(dict[str, Any]):
    """A dict of Celery's six keys (``task args kwargs options subtask_type immutable``), so that it is its own JSON."""

    def __init__(
        self,
        task: Any = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        app: App | None = None,
        immutable: bool = False,
        **more: Any,
    ) -> None:
        if isinstance(task, Mapping):
            super().__init__(task)
            self.setdefault("subtask_type", None)
        else:
            super().__init__(
                task=getattr(task, "name", task),
                args=tuple(args or ()),
                kwargs=dict(kwargs or {}),
                options={**(options or {}), **more},
                subtask_type=None,
                immutable=immutable,
            )
        self._app = app or getattr(task, "app", None)

    @property
    def app(self) -> App:
        """The app that sends it: the task's, else the current one."""
        return self._app or current_app()

    @property
    def task(self) -> str:
        return str(self["task"])

    name = task

    @property
    def args(self) -> tuple[Any, ...]:
        return tuple(self.get("args") or ())

    @property
    def kwargs(self) -> dict[str, Any]:
        return dict(self.get("kwargs") or {})

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.get("options") or {})

    @property
    def immutable(self) -> bool:
        """Whether it ignores the result of the task before it."""
        return bool(self.get("immutable"))

    def clone(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Signature:
        """A copy, with ``args`` put in front of its own, ``kwargs`` and ``options`` over its own."""
        immutable = bool(options.pop("immutable", self.immutable))
        return Signature(
            self.task,
            self.args if self.immutable else (*args, *self.args),
            self.kwargs if self.immutable else {**self.kwargs, **(kwargs or {})},
            {**self.options, **options},
            app=self._app,
            immutable=immutable,
        )

    def set(self, immutable: bool | None = None, **options: Any) -> Signature:
        """Set options in place; returns itself."""
        if immutable is not None:
            self["immutable"] = immutable
        self["options"] = {**self.options, **options}
        return self

    def set_immutable(self, immutable: bool) -> None:
        self["immutable"] = immutable

    def link(self, callback: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run ``callback`` with the result, once this succeeded."""
        return self._append("link", callback)

    def link_error(self, errback: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run ``errback`` with the task id, once this failed."""
        return self._append("link_error", errback)

    def on_error(self, errback: Mapping[str, Any]) -> Signature:
        """:meth:`link_error` that returns this signature."""
        self.link_error(errback)
        return self

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        """Send it, with further arguments."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[Any]:
        """Send it; see :meth:`beatd.Task.apply_async`."""
        call = self.clone(args, kwargs, **options)
        task = self.app.tasks.get(self.task)
        if task is not None:
            return task.apply_async(call.args, call.kwargs, **call.options)
        return self.app.send_task(self.task, call.args, call.kwargs, **call.options)

    def apply(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run it here and now; returns an ``EagerResult``."""
        call = self.clone(args, kwargs, **options)
        return self.app.tasks[self.task].apply(call.args, call.kwargs, **call.options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task's function here and now."""
        call = self.clone(args, kwargs)
        return self.app.tasks[self.task](*call.args, **call.kwargs)

    def _append(self, option: str, signature: Mapping[str, Any]) -> Mapping[str, Any]:
        already = self.options.get(option) or []
        already = [already] if isinstance(already, Mapping) else list(already)
        if signature not in already:
            self["options"] = {**self.options, option: [*already, signature]}
        return signature

    def __repr__(self) -> str:
        words = [repr(arg) for arg in self.args] + [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.task}({', '.join(words)})"

    def __reduce__(self) -> Any:
        return Signature, (dict(self),)


def as_signature(value: Mapping[str, Any], app: App | None = None) -> Signature:
    """The signature in a message's JSON, bound to ``app``."""
    return value if isinstance(value, Signature) else Signature(value, app=app)
