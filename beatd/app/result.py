"""What became of a task: asked from the result backend, or known at once for a task that ran here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from beatd.app.context import current
from beatd.app.shared import current_app
from beatd.exceptions import TaskRevokedError
from beatd.store.outcomes import (
    EXCEPTION_STATES,
    FAILURE,
    PENDING,
    PROPAGATE_STATES,
    READY_STATES,
    REVOKED,
    SUCCESS,
    exception_from,
)

if TYPE_CHECKING:
    from beatd.app.app import App

R_co = TypeVar("R_co", covariant=True)
_NOTHING: dict[str, Any] = {"status": PENDING, "result": None}


class AsyncResult(Generic[R_co]):
    """The handle of a task that runs elsewhere. Makes no network call until something is asked."""

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        *,
        app: App | None = None,
        parent: AsyncResult[Any] | None = None,
        ignored: bool = False,
    ) -> None:
        self.id = id
        self.parent = parent
        self.ignored = ignored
        self._app = app
        self._final: dict[str, Any] | None = None

    @property
    def app(self) -> App:
        return self._app or current_app()

    @property
    def task_id(self) -> str:
        return self.id

    def get(  # noqa: PLR0917 - Celery's signature
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: ARG002 - Celery's; means nothing on Redis
        follow_parents: bool = True,  # noqa: ARG002 - as above
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R_co:
        """Wait for the task to end and return its result.

        A failed task's exception is raised here, unless ``propagate`` is false: then it is returned. ``on_message``
        gets the document of every change of state, ``on_interval`` is called every ``interval`` seconds. Raises
        :class:`beatd.exceptions.TimeoutError` after ``timeout`` seconds (None: waits for ever), and RuntimeError
        inside a task, where waiting for another one can lock the whole pool up.
        """
        if disable_sync_subtasks and (running := current()) and not running.context.is_eager:
            raise RuntimeError("Never call result.get() within a task: it can deadlock the worker")
        if self.ignored:
            return None  # type: ignore[return-value]  # the caller asked for no result
        if self._final is None:
            seen = None if on_message is None else (lambda meta: on_message(_decoded(meta)))
            self._final = self.app.results.wait(
                self.id, timeout=timeout, interval=interval, on_message=seen, on_interval=on_interval
            )
        if propagate:
            self.maybe_throw()
        if callback is not None:
            callback(self.id, self.result)
        return self.result  # type: ignore[no-any-return]

    wait = get

    def maybe_throw(self, propagate: bool = True) -> Any:
        """Raise the task's exception if it failed or was revoked; else return the result."""
        if propagate and self.state in PROPAGATE_STATES:
            error = self.result
            raise error if isinstance(error, BaseException) else TaskRevokedError(error)
        return self.result

    @property
    def state(self) -> str:
        """``PENDING`` (also if unknown), ``STARTED``, ``RETRY``, ``SUCCESS``, ``FAILURE``, ``REVOKED`` or its own."""
        return str(self._meta()["status"])

    status = state

    @property
    def result(self) -> Any:
        """The return value, the exception of a failed task, or the ``meta`` of a state of the task's own."""
        return _decoded(self._meta())["result"]

    info = result

    @property
    def traceback(self) -> str | None:
        """The text of a failed task's traceback."""
        return self._meta().get("traceback")

    @property
    def date_done(self) -> datetime | None:
        """When it ended."""
        done = self._meta().get("date_done")
        return datetime.fromisoformat(done) if isinstance(done, str) else done

    @property
    def children(self) -> list[AsyncResult[Any]]:
        """The tasks that this one sent."""
        return [AsyncResult(child[0][0], app=self._app) for child in self._meta().get("children") or ()]

    def ready(self) -> bool:
        """Whether it has ended."""
        return self.state in READY_STATES

    def successful(self) -> bool:
        return self.state == SUCCESS

    def failed(self) -> bool:
        return self.state == FAILURE

    def forget(self) -> None:
        """Delete the stored result."""
        self._final = None
        self.app.results.forget(self.id)

    def as_tuple(self) -> tuple[tuple[str, Any], None]:
        """``((id, parent), None)``: how results name each other in stored documents."""
        return (self.id, self.parent and self.parent.as_tuple()), None

    def _meta(self) -> dict[str, Any]:
        if self._final is not None:
            return self._final
        meta = self.app.results.get(self.id) or _NOTHING
        if meta["status"] in READY_STATES:
            self._final = meta
        return meta

    def __iter__(self) -> Iterator[AsyncResult[Any]]:
        yield self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"


class EagerResult(AsyncResult[R_co]):
    """The outcome of a task that ran in this process (``apply``, ``task_always_eager``)."""

    def __init__(self, id: str, value: Any, state: str, traceback: str | None = None) -> None:  # noqa: A002
        super().__init__(id)
        self._final = {"status": state, "result": value, "traceback": traceback}

    def get(
        self,
        timeout: float | None = None,  # noqa: ARG002 - it has ended already
        propagate: bool = True,
        *_: Any,
        **__: Any,
    ) -> R_co:
        if propagate:
            self.maybe_throw()
        return self.result  # type: ignore[no-any-return]

    wait = get

    def forget(self) -> None:
        """Nothing is stored."""


def _decoded(meta: dict[str, Any]) -> dict[str, Any]:
    """The document with its exception, if it has one, as an exception."""
    if meta["status"] in EXCEPTION_STATES and not isinstance(meta["result"], BaseException):
        error = exception_from(meta["result"])
        if meta["status"] == REVOKED and not isinstance(error, TaskRevokedError):
            error = TaskRevokedError(*error.args)
        return {**meta, "result": error}
    return meta
