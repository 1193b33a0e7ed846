"""Composition: a signature of several tasks."""

from __future__ import annotations

from beatd.app.base import AppBase
from beatd.app.canvas.fields import field
from beatd.app.canvas.signature import Signature, as_signature


class Composition(Signature):
    """A signature of several tasks. Unless it is bound to an app, it has that of its first task."""

    def _revive(self) -> None:
        self.kwargs["tasks"] = [as_signature(task, self._app).clone() for task in self.kwargs.get("tasks") or ()]

    tasks: list[Signature] = field("kwargs.tasks", "The steps of a chain, or the members of a group.")

    def given_app(self) -> AppBase | None:
        return self._app or (self.tasks[0].given_app() if self.tasks else None)
