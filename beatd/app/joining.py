"""Waiting for results inside of tasks, which is refused unless it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from beatd.app.context import current

_joining: ContextVar[bool] = ContextVar("beatd_joining_allowed", default=False)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Inside, tasks may wait for results. A pool in which all tasks wait for others is stuck: nobody runs these."""
    token = _joining.set(True)
    try:
        yield
    finally:
        _joining.reset(token)


def refuse_inside_a_task() -> None:
    """Raise RuntimeError where waiting could lock the pool up: inside a task that a worker runs."""
    running = current()
    if running is None or _joining.get() or running.context.is_eager or running.context.called_directly:
        return
    raise RuntimeError("Never call result.get() within a task: it can deadlock the worker")
