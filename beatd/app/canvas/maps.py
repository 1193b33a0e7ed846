"""One task for many arguments: in one message (``map``, ``starmap``), or in messages of some each (``chunks``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from beatd.app.canvas.groups import group
from beatd.app.signature import Signature, as_signature

if TYPE_CHECKING:
    from beatd.app.app import App


class xmap(Signature):  # noqa: N801 - Celery's name
    """``task.map([1, 2])``: a task that calls ``task`` with each item, and returns the list of what it returned."""

    task_name = "celery.map"

    def __init__(self, task: Any, it: Iterable[Any], *, app: App | None = None, **options: Any) -> None:
        arguments = {"task": as_signature(task, app).clone(), "it": list(it)}
        super().__init__(self.task_name, (), arguments, options, app=app, immutable=True)


class xstarmap(xmap):  # noqa: N801 - Celery's name
    """``task.starmap([(1, 2), (3, 4)])``: as :class:`xmap`, each item being the arguments of one call."""

    task_name = "celery.starmap"


class chunks(Signature):  # noqa: N801 - Celery's name
    """``task.chunks(items, 10)``: a group of :class:`xstarmap`, each with so many items."""

    def __init__(self, task: Any, it: Iterable[Any], n: int, *, app: App | None = None, **options: Any) -> None:
        arguments = {"task": as_signature(task, app).clone(), "it": list(it), "n": n}
        super().__init__("celery.chunks", (), arguments, options, app=app, immutable=True)

    def group(self) -> group:
        """The messages that it is sent as."""
        task, items, size = (self.kwargs[name] for name in ("task", "it", "n"))
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        return group([xstarmap(task, part, app=self._app) for part in parts], app=self._app)

    def apply_async(
        self,
        args: Iterable[Any] = (),  # noqa: ARG002 - it has all of its arguments
        kwargs: Mapping[str, Any] | None = None,  # noqa: ARG002
        **options: Any,
    ) -> Any:
        """Send all of it; returns a ``GroupResult`` with a list for each chunk."""
        return self.group().apply_async((), {}, **{**self.options, **options})

    def apply(
        self,
        args: Iterable[Any] = (),  # noqa: ARG002
        kwargs: Mapping[str, Any] | None = None,  # noqa: ARG002
        **options: Any,
    ) -> Any:
        """Run all of it here and now."""
        return self.group().apply((), {}, **{**self.options, **options})

    def __call__(self, **options: Any) -> Any:
        """Send all of it."""
        return self.apply_async(**options)
