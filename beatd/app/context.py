"""Task context: ``self.request``, and the task that runs in this thread or coroutine.

The running task is kept in a context variable, so threads, coroutines and nested calls each have their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from beatd.message.protocol import HEADER_NAMES

_OWN = HEADER_NAMES | {"compression", "redelivered", "beatd-deaths", "beatd-received"}
"""Headers that a retry does not copy. It chooses its own compression."""


class Context:
    """One attempt at a task: the headers of its message, its arguments and its origin.

    Every field is an attribute; a field that is not in the message has the default below.
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
    stored_state: bool = False
    """True if the task has stored a state of its own by ``update_state``."""
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
    override_max_retries: int | None = None
    """The limit that this attempt has given to ``Task.retry``; it counts for ``autoretry_for``, too."""
    encoded: tuple[int, bytes] | None = None
    """In a worker: the document of the result, and how many children it has."""
    postponed: list[Any] | None = None
    """In a worker: messages for this task's own id. They leave after the state of this attempt is stored."""

    def __init__(self, fields: Mapping[str, Any] | None = None, **more: Any) -> None:
        self._headers = fields or {}
        self.__dict__.update(self._headers)
        self.__dict__.update(more)
        if "headers" in more:
            self._headers = more["headers"] or {}
        self.children: list[Any] = []

    @property
    def headers(self) -> dict[str, Any]:
        """The sender's custom headers: all that are neither Celery's nor beatd's."""
        return {name: value for name, value in self._headers.items() if name not in _OWN}

    @headers.setter
    def headers(self, value: dict[str, Any]) -> None:
        self._headers = value

    @property
    def time_limit(self) -> float | None:
        """The hard time limit in the message, in seconds."""
        return self.timelimit[0] if self.timelimit else None

    @property
    def soft_time_limit(self) -> float | None:
        """The soft time limit in the message, in seconds: ``SoftTimeLimitExceeded`` is raised then."""
        return self.timelimit[1] if self.timelimit else None

    @property
    def taskset(self) -> str | None:
        """The older name of ``group``."""
        return self.group

    def get(self, name: str, default: Any = None) -> Any:
        """Return the field of that name, or ``default``."""
        return getattr(self, name, default)

    def extended(self) -> dict[str, Any]:
        """Return the fields that ``result_extended`` adds to the result."""
        return {
            "name": self.task,
            "args": self.args,
            "kwargs": self.kwargs,
            "worker": self.hostname,
            "retries": self.retries,
            "queue": (self.delivery_info or {}).get("routing_key"),
        }

    def update(self, *fields: Mapping[str, Any], **more: Any) -> None:
        """Set fields."""
        for mapping in (*fields, more):
            self.__dict__.update(mapping)
            if "headers" in mapping:
                self._headers = mapping["headers"] or {}

    def clear(self) -> None:
        """Reset all fields to their defaults."""
        self.__dict__.clear()
        self.__init__()  # type: ignore[misc]  # as at its start

    def __repr__(self) -> str:
        return f"<Context: {self.task}[{self.id}] retries={self.retries}>"


class Running:
    """A running task and its context; ``below`` is the task that has called it in this thread or coroutine."""

    __slots__ = ("below", "context", "task")

    def __init__(self, task: Any, context: Context, below: Running | None = None) -> None:
        self.task = task
        self.context = context
        self.below = below


class Pushed(Running):
    """A context that was set by hand."""

    __slots__ = ()


class Outlet(Protocol):
    """Way out of a task that runs in a thread of its worker: the worker's own thread stores and publishes.

    So all states of a task are written by one thread in order, and none after the task was given up at its limit.
    """

    takes_messages: bool
    """True in an event loop, which must not wait for the broker."""

    def results(self, results: Sequence[Any]) -> None:
        """Store these results (:class:`beatd.store.results.Stored`) soon."""

    def messages(self, collected: Sequence[Any]) -> None:
        """Publish these messages (:class:`beatd.app.publishing.Collected`) soon."""


outlet: ContextVar[Outlet | None] = ContextVar("beatd_outlet", default=None)
"""The outlet of the task that runs in this thread or coroutine; None where a task writes for itself."""
_running: ContextVar[Running | None] = ContextVar("beatd_running_task", default=None)


@contextmanager
def running(task: Any, context: Context) -> Iterator[None]:
    """Set ``context`` as ``task.request`` for the block."""
    token = _running.set(Running(task, context, _running.get()))
    try:
        yield
    finally:
        _running.reset(token)


class RequestStack:
    """The contexts that ``Task.push_request`` has put upon each other, and the running one below them."""

    def __init__(self, task: Any) -> None:
        self._task = task

    @property
    def top(self) -> Context | None:
        """The innermost context of the task; None outside of its runs."""
        return context_of(self._task)

    @property
    def stack(self) -> list[Context]:
        """The contexts of the task, the innermost last."""
        contexts, now = [], _running.get()
        while now is not None:
            if now.task is self._task:
                contexts.append(now.context)
            now = now.below
        return contexts[::-1]

    def push(self, context: Context) -> None:
        """Make ``context`` the ``request`` of the task in this thread or coroutine, until :meth:`pop`."""
        _running.set(Pushed(self._task, context, _running.get()))

    def pop(self) -> Context | None:
        """Undo the last :meth:`push` of the task; returns its context, None if there was none."""
        now = _running.get()
        if not isinstance(now, Pushed) or now.task is not self._task:
            return None
        _running.set(now.below)
        return now.context

    def __len__(self) -> int:
        return len(self.stack)


def current() -> Running | None:
    """Return the innermost running task of this thread or coroutine, if any."""
    return _running.get()


def context_of(task: Any) -> Context | None:
    """Return the innermost context of ``task`` here, also while a task runs that it has called."""
    now = _running.get()
    while now is not None and now.task is not task:
        now = now.below
    return None if now is None else now.context


def worker_run() -> Running | None:
    """Return the innermost run that a worker, or ``apply``, has begun: tasks that are called as functions have none."""
    now = _running.get()
    while now is not None and now.context.called_directly:
        now = now.below
    return now


def is_in_worker() -> bool:
    """True in a task that a worker runs, and in all that it calls."""
    now = _running.get()
    while now is not None and (now.context.called_directly or now.context.is_eager):
        now = now.below
    return now is not None


def enter(task: Any, context: Context) -> Any:
    """Set the running task, without a block, for the worker's hot path. Returns the token for :func:`leave`."""
    return _running.set(Running(task, context, _running.get()))


def leave(token: Any) -> None:
    """Undo :func:`enter`."""
    _running.reset(token)
