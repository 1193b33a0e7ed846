"""The base class of tasks in Django."""

from __future__ import annotations

import functools
from typing import Any, ParamSpec, TypeVar

from django.db import transaction

from beatd.app.task import Task

P = ParamSpec("P")
R = TypeVar("R")


class DjangoTask(Task[P, R]):
    """A task that can be sent when the transaction is committed: not before a worker can see what was written."""

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """:meth:`delay`, once the transaction is committed; at once outside of one, never if it is rolled back."""
        transaction.on_commit(functools.partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **options: Any) -> None:
        """:meth:`apply_async` in the same way."""
        transaction.on_commit(functools.partial(self.apply_async, *args, **options))
