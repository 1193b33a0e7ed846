"""What a running task knows about itself: ``self.request``.

The running task is kept in a context variable: threads and coroutines each have their own, and a task called by another
one does not disturb it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from beatd.message.protocol import HEADER_NAMES

_OWN = HEADER_NAMES | {"compression", "redelivered", "beatd-deaths"}
"""Headers that are not the sender's own. A retry is not compressed as the message before it was."""


class Context:
    """One attempt at a task: its message's headers, its arguments and where it came from.

    Every field is an attribute; those that a message does not have are None (or as annotated here).
    """

    id: str | None = None
    task: str | None = None
    args: tuple[Any, ...] | list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    retries: int = 0
    eta: str | None = None
    expires: str | None = None
    timelimit: tuple[float | None, float | None] | list[float | None] | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    chord: Any = None
    chain: list[Any] | None = None
    callbacks: list[Any] | None = None
    errbacks: list[Any] | None = None
    shadow: str | None = None
    origin: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    ignore_result: bool | None = None
    is_eager: bool = False
    called_directly: bool = True
    hostname: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    delivery_info: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    lang: str | None = None
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    utc: bool = True
    logfile: str | None = None
    loglevel: int | None = None

    def __init__(self, fields: Mapping[str, Any] | None = None, **more: Any) -> None:
        self._headers = fields or {}
        self.__dict__.update(self._headers)
        self.__dict__.update(more)
        self.children: list[Any] = []

    @property
    def headers(self) -> dict[str, Any]:
        """The headers that are neither Celery's nor beatd's own: whatever the sender added."""
        return {name: value for name, value in self._headers.items() if name not in _OWN}

    @headers.setter
    def headers(self, value: dict[str, Any]) -> None:
        self._headers = value

    @property
    def time_limit(self) -> float | None:
        """Seconds after which this run is ended by force, as its message says."""
        return self.timelimit[0] if self.timelimit else None

    @property
    def soft_time_limit(self) -> float | None:
        """Seconds after which ``SoftTimeLimitExceeded`` is raised in this run, as its message says."""
        return self.timelimit[1] if self.timelimit else None

    @property
    def taskset(self) -> str | None:
        """Celery's older name of ``group``."""
        return self.group

    def get(self, name: str, default: Any = None) -> Any:
        """The field of that name, or ``default`` if there is no such field."""
        return getattr(self, name, default)

    def update(self, *fields: Mapping[str, Any], **more: Any) -> None:
        """Set fields."""
        for mapping in fields:
            self.__dict__.update(mapping)
        self.__dict__.update(more)

    def __repr__(self) -> str:
        return f"<Context: {self.task}[{self.id}] retries={self.retries}>"


class Running:
    """A task and the context that it runs in."""

    __slots__ = ("context", "task")

    def __init__(self, task: Any, context: Context) -> None:
        self.task = task
        self.context = context


_running: ContextVar[Running | None] = ContextVar("beatd_running_task", default=None)


@contextmanager
def running(task: Any, context: Context) -> Iterator[None]:
    """Make ``context`` what ``task.request`` returns, for as long as the block lasts."""
    token = _running.set(Running(task, context))
    try:
        yield
    finally:
        _running.reset(token)


def current() -> Running | None:
    """The innermost running task of this thread or coroutine, if any."""
    return _running.get()


def enter(task: Any, context: Context) -> Any:
    """:func:`running` without the block, for the worker's hot path; returns what :func:`leave` wants."""
    return _running.set(Running(task, context))


def leave(token: Any) -> None:
    """Undo :func:`enter`."""
    _running.reset(token)
