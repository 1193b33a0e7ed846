"""Composition: a signature of several tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beatd.app.base import AppBase
from beatd.app.canvas.fields import field
from beatd.app.canvas.signature import Signature, as_signature
from beatd.app.canvas.stamps import StampingVisitor, Stamps


class Composition(Signature):
    """A signature of several tasks. Unless it is bound to an app, it has that of its first task."""

    def _revive(self) -> None:
        self.kwargs["tasks"] = [as_signature(task, self._app).clone() for task in self.kwargs.get("tasks") or ()]

    tasks: list[Signature] = field("kwargs.tasks", "The steps of a chain, or the members of a group.")

    def given_app(self) -> AppBase | None:
        return self._app or (self.tasks[0].given_app() if self.tasks else None)

    def _stamp_tasks(
        self,
        visitor: StampingVisitor | None,
        begin: Callable[..., Stamps | None] | None,
        end: Callable[..., Any] | None,
        headers: Stamps,
        *,
        append: bool,
    ) -> Stamps:
        """Stamp links and tasks with ``headers`` and what ``begin`` returns, then call ``end``; returns these stamps.

        ``begin`` and ``end`` are the methods of ``visitor`` for this kind of composition.
        """
        chosen = None if begin is None else begin(self, **headers) or {}
        headers = self._stamped_by(chosen, headers, append=append)
        self.stamp_links(visitor, append, **headers)
        for task in self.tasks:
            task.stamp(visitor, append, **headers)
        if end is not None:
            end(self, **headers)
        return headers
