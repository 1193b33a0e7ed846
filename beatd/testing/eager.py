"""Eager tasks for tests of any framework: ``delay()`` runs them at once, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from beatd.app.current import current_app

if TYPE_CHECKING:
    from beatd.app.app import App


@contextmanager
def eager_tasks(app: App | None = None, *, propagates: bool = True) -> Iterator[App]:
    """Run tasks of ``app`` (default: the current one) where they are sent, and raise their exceptions there.

    A context manager and a decorator of functions and test methods. ``propagates=False`` leaves exceptions to ``get``.
    """
    chosen = current_app() if app is None else app
    before = chosen.conf.task_always_eager, chosen.conf.task_eager_propagates
    chosen.conf.task_always_eager, chosen.conf.task_eager_propagates = True, propagates
    try:
        yield chosen
    finally:
        chosen.conf.task_always_eager, chosen.conf.task_eager_propagates = before
