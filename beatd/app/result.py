"""Results: handles of tasks. The outcome comes from the result backend, or from this process for an eager task.

Waiting for a result inside a task is refused unless it is allowed explicitly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Generic, TypeVar

from beatd.app.base import AppBase
from beatd.app.context import is_in_worker
from beatd.app.current import current_app
from beatd.app.graph import DependencyGraph
from beatd.exceptions import IncompleteStream, TaskRevokedError
from beatd.states import EXCEPTION_STATES, FAILURE, PENDING, PROPAGATE_STATES, READY_STATES, RETRY, REVOKED, SUCCESS
from beatd.store.result_document import exception_from

_joining: ContextVar[bool] = ContextVar("beatd_joining_allowed", default=False)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Allow tasks to wait for results in the block. Deadlock risk: a pool full of waiting tasks runs no others."""
    token = _joining.set(True)
    try:
        yield
    finally:
        _joining.reset(token)


def refuse_inside_a_task() -> None:
    """Raise RuntimeError inside a task that a worker runs: waiting there can deadlock the pool."""
    if is_in_worker() and not _joining.get():
        raise RuntimeError("Never call result.get() within a task: it can deadlock the worker")


R_co = TypeVar("R_co", covariant=True)
_NOTHING: dict[str, Any] = {"status": PENDING, "result": None}


Listener = tuple[Callable[[Any], Any], Callable[[Any], Any] | None]
"""A callback that gets a result which has finished, and one that gets the exception if it has failed."""


def tell(result: Any, listeners: list[Listener]) -> None:
    """Call the listeners of a result that has finished, each once."""
    while listeners:
        callback, on_error = listeners.pop(0)
        callback(result)
        if on_error is not None and (error := result.failure()) is not None:
            on_error(error)


class AsyncResult(Generic[R_co]):
    """The handle of a task that was sent. The result backend is read on first use."""

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        *,
        app: AppBase | None = None,
        parent: Any = None,
        ignored: bool = False,
        **_: Any,
    ) -> None:
        if id is None:
            raise ValueError("AsyncResult needs an id, got None")
        self.id = id
        self.parent = parent
        self.ignored = ignored
        self._app = app
        self._final: dict[str, Any] | None = None
        self._listeners: list[Listener] = []

    def __getstate__(self) -> dict[str, Any]:
        # an app cannot be pickled: where it is read, the current one counts
        return vars(self) | {"_app": None, "_listeners": []}

    @property
    def app(self) -> AppBase:
        return self._app or current_app()

    @property
    def task_id(self) -> str:
        return self.id

    @task_id.setter
    def task_id(self, value: str) -> None:
        self.id = value

    def get(  # noqa: PLR0917 - Celery's signature
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: ARG002 - Celery's; means nothing on Redis
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R_co:
        """Wait for the task to finish and return its result.

        A failed task's exception is raised, or returned if ``propagate`` is false. ``on_message`` is called with the
        document of every state change, ``on_interval`` every ``interval`` seconds. ``follow_parents`` raises the
        exception of an earlier step of the chain, whose failure means that this result never comes. Raises
        :class:`beatd.exceptions.TimeoutError` after ``timeout`` seconds (None: no limit), and RuntimeError inside a
        task, where waiting for another task can deadlock the pool.
        """
        if self.ignored:
            return None  # type: ignore[return-value]  # the caller asked for no result
        if disable_sync_subtasks:
            refuse_inside_a_task()
        if follow_parents and propagate:
            self._throw_of_parents()
        if self._final is None:
            seen = None if on_message is None else (lambda meta: on_message(decoded(meta)))
            watch = self._watch_parents(on_interval) if follow_parents and propagate and self.parent else on_interval
            self.learn(
                self.app.results.wait(self.id, timeout=timeout, interval=interval, on_message=seen, on_interval=watch)
            )
        if propagate:
            if follow_parents and self.state in PROPAGATE_STATES:
                self._throw_of_parents()  # the cause: a task of the chord's header, or an earlier step
            self.maybe_throw()
        if callback is not None:
            callback(self.id, self.result)
        return self.result  # type: ignore[no-any-return]

    wait = get

    def _watch_parents(self, on_interval: Callable[[], Any] | None) -> Callable[[], None]:
        def check_parents() -> None:
            self._throw_of_parents()
            if on_interval is not None:
                on_interval()

        return check_parents

    def _throw_of_parents(self) -> None:
        """Raise the exception of the earliest step that failed, or of a failed member of a group among the steps."""
        nodes = [self.parent]
        while nodes[-1] is not None:
            nodes.append(nodes[-1].parent)
        for node in reversed(nodes[:-1]):
            node.maybe_throw()

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """Raise the task's exception if it failed or was revoked, else return the result."""
        meta = decoded(self._get_task_meta())
        value = meta["result"]
        if propagate and meta["status"] in PROPAGATE_STATES:
            raise value if isinstance(value, BaseException) else TaskRevokedError(value)
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = throw = maybe_throw
    TimeoutError = TimeoutError
    """Raised by :meth:`get`, for ``except result.TimeoutError``."""

    @property
    def state(self) -> str:
        """``PENDING`` (or unknown), ``STARTED``, ``RETRY``, ``SUCCESS``, ``FAILURE``, ``REVOKED`` or a custom state."""
        return str(self._get_task_meta()["status"])

    status = state

    @property
    def result(self) -> Any:
        """The return value, the exception of a failed task, or the ``meta`` of a custom state."""
        return decoded(self._get_task_meta())["result"]

    info = result

    @property
    def traceback(self) -> str | None:
        """The traceback of a failed task, as text."""
        return self._get_task_meta().get("traceback")

    @property
    def date_done(self) -> datetime | None:
        """The time when the task finished."""
        done = self._get_task_meta().get("date_done")
        return datetime.fromisoformat(done) if isinstance(done, str) else done

    @property
    def children(self) -> list[Any] | None:
        """Handles of the tasks that this one sent; a group is one ``GroupResult``. None while nothing is stored."""
        from beatd.app.group_result import result_from_tuple  # noqa: PLC0415 - groups are made of results

        stored = self._get_task_meta().get("children")
        return None if stored is None else [result_from_tuple(child, self._app) for child in stored]

    @property
    def name(self) -> str | None:
        """The task's name. It and the next fields are stored only with ``result_extended``."""
        return self._get_task_meta().get("name")

    @property
    def args(self) -> Any:
        return self._get_task_meta().get("args")

    @property
    def kwargs(self) -> Any:
        return self._get_task_meta().get("kwargs")

    @property
    def worker(self) -> str | None:
        return self._get_task_meta().get("worker")

    @property
    def retries(self) -> int | None:
        return self._get_task_meta().get("retries")

    @property
    def queue(self) -> str | None:
        return self._get_task_meta().get("queue")

    def collect(self, intermediate: bool = False, **options: Any) -> Iterator[tuple[AsyncResult[Any], Any]]:
        """Yield ``(handle, value)`` of this result and of all its descendants; waits for each."""
        for _, result in self.iterdeps(intermediate=intermediate):
            yield result, result.get(**options)

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """Yield ``(parent, handle)`` of this result and of all its descendants, breadth first.

        Raises :class:`~beatd.exceptions.IncompleteStream` at an unfinished task, whose children are unknown; with
        ``intermediate`` its children are left out instead.
        """
        level: list[tuple[Any, Any]] = [(None, self)]
        while level:
            parent, node = level.pop(0)
            yield parent, node
            if node.ready():
                level.extend((node, child) for child in node.children or ())
            elif not intermediate:
                raise IncompleteStream(f"{node} has not finished yet")

    def build_graph(self, intermediate: bool = False) -> DependencyGraph:
        """Return the graph of this task and its descendants; ``intermediate`` as for :meth:`iterdeps`."""
        graph = DependencyGraph()
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.add_arc(node)
            if parent is not None:
                graph.add_edge(parent, node)
        return graph

    @property
    def graph(self) -> DependencyGraph:
        """The graph of this task and its descendants, all of which must have finished."""
        return self.build_graph()

    def get_leaf(self) -> Any:
        """Return the value of the last descendant."""
        value = None
        for _, result in self.iterdeps():
            value = result.get()
        return value

    @property
    def backend(self) -> Any:
        """The app's result backend."""
        return self.app.backend

    def then(
        self,
        callback: Callable[[AsyncResult[Any]], Any],
        on_error: Callable[[Any], Any] | None = None,
        weak: bool = False,  # noqa: ARG002 - Celery's
    ) -> AsyncResult[R_co]:
        """Call ``callback(self)`` once this handle has read that the task has finished, whatever became of it.

        ``on_error(exception)`` is called then, too, if it has failed. Nothing is read here, but by ``get``, ``ready``,
        ``state`` and the like.
        """
        self._listeners.append((callback, on_error))
        if self.is_known:
            tell(self, self._listeners)
        return self

    def failure(self) -> Any:
        """Return the exception of a task that has failed or was revoked, else None."""
        return self.result if self.state in PROPAGATE_STATES else None

    def exists(self) -> bool:
        """Return True if anything is stored for the task: tells one that is waiting from one whose result has expired.

        A task that has not begun has nothing stored, too, unless it is tracked (``task_track_started``).
        """
        return self._final is not None or self.backend.task_result_exists(self.id)

    def ready(self) -> bool:
        """Return True if the task has finished."""
        return self.state in READY_STATES

    def successful(self) -> bool:
        return self.state == SUCCESS

    def failed(self) -> bool:
        return self.state == FAILURE

    def forget(self) -> None:
        """Delete the stored result, and those of its parents in the chain."""
        self._final = None
        self.app.results.forget(self.id)
        if self.parent is not None:
            self.parent.forget()

    def revoke(
        self,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """Revoke the task: workers skip it. With ``terminate``, the process that runs it is killed.

        ``wait``: collect the workers' replies for ``timeout`` seconds. ``options`` are those of ``app.control.revoke``.
        """
        how: dict[str, Any] = {"terminate": terminate, "signal": signal, "reply": wait, "timeout": timeout, **options}
        return self.app.control.revoke(self.id, **how)

    def revoke_by_stamped_headers(
        self,
        headers: dict[str, Any],
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """Revoke all tasks that have one of these stamps; arguments as for :meth:`revoke`."""
        how: dict[str, Any] = {"terminate": terminate, "signal": signal, "reply": wait, "timeout": timeout, **options}
        return self.app.control.revoke_by_stamped_headers(headers, **how)

    @property
    def is_known(self) -> bool:
        """True if the outcome has been read already."""
        return self._final is not None or self.ignored

    def document(self) -> dict[str, Any]:
        """Return the result document, with an exception as an object."""
        return {"task_id": self.id, "traceback": None, "children": [], **decoded(self._get_task_meta())}

    def learn(self, meta: dict[str, Any] | None) -> None:
        """Cache a result document that was read elsewhere."""
        if meta is not None and meta["status"] in READY_STATES:
            self._final = meta
            tell(self, self._listeners)

    def as_list(self) -> list[str]:
        """Return its id and those of its parents."""
        return [self.id, *(self.parent.as_list() if self.parent else ())]

    def __json__(self) -> Any:
        """Return the JSON of a handle that a task returns or is given."""
        return self.as_tuple()

    def as_tuple(self) -> tuple[tuple[str, Any], None]:
        """Return ``((id, parent), None)``, the reference in stored documents."""
        return (self.id, self.parent and self.parent.as_tuple()), None

    def _get_task_meta(self) -> dict[str, Any]:
        if self._final is not None:
            return self._final
        meta = self.app.results.get(self.id) or _NOTHING
        self.learn(meta)
        return meta

    def __iter__(self) -> Iterator[AsyncResult[Any]]:
        yield self

    def __eq__(self, other: object) -> bool:
        return other == self.id if isinstance(other, str) else isinstance(other, AsyncResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"


def decoded(meta: dict[str, Any]) -> dict[str, Any]:
    """Return the document with its exception, if any, as an exception object."""
    state, result = meta["status"], meta["result"]
    if state not in EXCEPTION_STATES or (state, result) == (RETRY, None):  # a retry need not have a reason
        return meta
    error = exception_from(result)
    wrong = state == REVOKED and not isinstance(error, TaskRevokedError)
    return {**meta, "result": TaskRevokedError(*error.args) if wrong else error}
