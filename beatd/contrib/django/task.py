"""The base class of tasks in Django."""

from __future__ import annotations

import functools
from typing import Any, ParamSpec, TypeVar

from django.db import transaction

from beatd.app.task import Task

P = ParamSpec("P")
R = TypeVar("R")


class DjangoTask(Task[P, R]):
    """A task with ``delay_on_commit``: it is sent after the commit, so that the worker sees the written data."""

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call :meth:`delay` after the commit; at once outside a transaction, never after a rollback."""
        transaction.on_commit(functools.partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **options: Any) -> None:
        """Call :meth:`apply_async` after the commit."""
        transaction.on_commit(functools.partial(self.apply_async, *args, **options))
