"""Group results: one handle for the results of several tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from beatd.app.base import AppBase
from beatd.app.current import current_app
from beatd.app.result import AsyncResult, Listener, refuse_inside_a_task, tell
from beatd.clock import monotonic, sleep
from beatd.exceptions import TimeoutError  # noqa: A004 - Celery's name, kept

_BATCH = 500
"""Results per read of the result backend."""
_PAUSE_S = 0.02
"""Seconds between reads while nothing new has finished."""


class ResultSet:
    """A set of result handles with the methods of one."""

    def __init__(self, results: Iterable[Any] | None = None, app: AppBase | None = None, **_: Any) -> None:
        self.results: list[Any] = list(results or ())
        self._app = app
        self._listeners: list[Listener] = []

    @property
    def app(self) -> AppBase:
        return self._app or (self.results[0].app if self.results else current_app())

    @property
    def backend(self) -> Any:
        """The app's result backend."""
        return self.app.backend

    def then(
        self,
        callback: Callable[[Any], Any],
        on_error: Callable[[Any], Any] | None = None,
        weak: bool = False,  # noqa: ARG002 - Celery's
    ) -> Any:
        """Call ``callback(self)`` once it is read that all tasks have finished; see :meth:`AsyncResult.then`."""
        self._listeners.append((callback, on_error))
        for result in self.results:
            result.then(self._tell_if_known)
        self._tell_if_known()
        return self

    def _tell_if_known(self, _result: Any = None) -> None:
        if self.is_known:
            tell(self, self._listeners)

    def failure(self) -> Any:
        """Return the exception of the first task that has failed or was revoked, else None."""
        return next(filter(None, (result.failure() for result in self.results)), None)

    def get(  # noqa: PLR0917 - Celery's signature
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,  # noqa: ARG002 - Celery's; means nothing on Redis
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> Any:
        """Wait for all results and return their values in order. ``timeout`` (seconds) is for all together.

        With ``callback``, each value goes to ``callback(id, value)`` instead. Otherwise as :meth:`AsyncResult.get`.
        """
        if disable_sync_subtasks:
            refuse_inside_a_task()
        deadline = None if timeout is None else monotonic() + timeout
        values = []
        for start in range(0, len(self.results), _BATCH):
            batch = self.results[start : start + _BATCH]
            watch = _Watch(self, batch, on_interval, propagate=propagate)
            watch()
            for result in batch:
                left = None if deadline is None else max(0.0, deadline - monotonic())
                waiting: dict[str, Any] = {"interval": interval, "on_message": on_message, "on_interval": watch}
                value = result.get(timeout=left, propagate=propagate, disable_sync_subtasks=False, **waiting)
                if callback is not None:
                    callback(result.id, value)
                else:
                    values.append(value)
        return None if callback is not None else values

    join = join_native = get

    def read(self, results: Iterable[Any] | None = None) -> None:
        """Read all unknown results from the result backend, in one call."""
        unknown = [item for item in (results or self.results) if isinstance(item, AsyncResult) and not item.is_known]
        if unknown:
            documents = self.app.results.get_many([result.id for result in unknown])
            for result in unknown:
                result.learn(documents.get(result.id))

    def ready(self) -> bool:
        """Return True if all tasks have finished."""
        self.read()
        return all(result.ready() for result in self.results)

    def successful(self) -> bool:
        """Return True if all tasks have succeeded."""
        self.read()
        return all(result.successful() for result in self.results)

    def failed(self) -> bool:
        """Return True if any task has failed."""
        self.read()
        return any(result.failed() for result in self.results)

    def waiting(self) -> bool:
        """Return True if any task has not finished."""
        return not self.ready()

    def completed_count(self) -> int:
        """Return the number of tasks that have succeeded."""
        self.read()
        return sum(result.successful() for result in self.results)

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> None:
        """Raise the exception of the first failed task."""
        self.read()
        for result in self.results:
            result.maybe_throw(propagate=propagate, callback=callback)

    maybe_reraise = maybe_throw

    def revoke(self, *, wait: bool = False, **options: Any) -> Any:
        """Revoke all tasks; options as for :meth:`AsyncResult.revoke`."""
        return self.app.control.revoke([leaf.id for leaf in self._leaves()], **{"reply": wait, **options})

    def _leaves(self) -> Iterator[Any]:
        for result in self.results:
            yield from result._leaves() if isinstance(result, ResultSet) else [result]

    def forget(self) -> None:
        """Delete the stored results."""
        for result in self.results:
            result.forget()

    @property
    def is_known(self) -> bool:
        return all(result.is_known for result in self.results)

    def add(self, result: Any) -> None:
        if result not in self.results:
            self.results.append(result)
            if self._listeners:
                result.then(self._tell_if_known)

    def remove(self, result: Any) -> None:
        """Remove a handle or id; raises KeyError if it is not in the set."""
        handle = self.app.AsyncResult(result) if isinstance(result, str) else result
        if handle not in self.results:
            raise KeyError(result)
        self.results.remove(handle)

    def discard(self, result: Any) -> None:
        """Remove a handle or id if it is in the set."""
        try:
            self.remove(result)
        except KeyError:
            return

    def update(self, results: Iterable[Any]) -> None:
        for result in results:
            self.add(result)

    def clear(self) -> None:
        self.results.clear()

    def iterate(self, timeout: float | None = None) -> Iterator[Any]:
        """Yield the values in order of completion."""
        deadline = None if timeout is None else monotonic() + timeout
        pending = list(self.results)
        while pending:
            self.read(pending)
            done = [result for result in pending if result.ready()]
            pending = [result for result in pending if result not in done]
            yield from (result.get() for result in done)
            if not done:
                if deadline is not None and monotonic() >= deadline:
                    raise TimeoutError("The operation timed out.")
                sleep(_PAUSE_S)

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: ARG002 - Celery's; means nothing on Redis
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ``(id, document)`` of each task in order of completion; the document has the result decoded."""
        deadline = None if timeout is None else monotonic() + timeout
        pending = list(self._leaves())
        while pending:
            self.read(pending)
            done = [result for result in pending if result.is_known]
            pending = [result for result in pending if not result.is_known]
            for result in done:
                meta = result.document()
                if on_message is not None:
                    on_message(meta)
                yield result.id, meta
            if pending and not done:
                if deadline is not None and monotonic() >= deadline:
                    raise TimeoutError("The operation timed out.")
                if on_interval is not None:
                    on_interval()
                sleep(min(interval, _PAUSE_S))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResultSet) and other.results == self.results

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(map(str, self.results))}]>"


class GroupResult(ResultSet):
    """The results of a group, under its id. ``save`` stores the list of members in the result backend."""

    of: ClassVar[Any] = None
    """The app of this class's handles, for ``app.GroupResult``."""

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - Celery's name
        results: Iterable[Any] | None = None,
        parent: Any = None,
        app: AppBase | None = None,
        **_: Any,
    ) -> None:
        super().__init__(results, app or self.of)
        self.id = id or ""
        self.parent = parent

    @property
    def children(self) -> list[Any]:
        return self.results

    def __json__(self) -> Any:
        """Return the JSON of a handle that a task returns or is given."""
        return self.as_tuple()

    def as_tuple(self) -> tuple[tuple[str, Any], list[Any]]:
        """Return ``((id, parent), members)``, the reference in stored documents."""
        return (self.id, self.parent and self.parent.as_tuple()), [result.as_tuple() for result in self.results]

    def __reduce__(self) -> Any:
        return GroupResult, (self.id, self.results, self.parent)

    def save(self, backend: Any = None) -> None:
        """Store the list of members in the result backend, that of ``backend`` if it is given."""
        (self.app if backend is None else backend.app).results.groups.save(self.id, self.as_tuple())

    def delete(self, backend: Any = None) -> None:
        """Delete the stored list of members, also in the result backend of ``backend``; their results stay."""
        (self.app if backend is None else backend.app).results.groups.delete(self.id)

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: AppBase | None = None) -> Any:  # noqa: A002 - Celery's name
        """Return the group that was saved under this id, else None; in the result backend of ``backend``, if given."""
        app = app or (cls.of or current_app() if backend is None else backend.app)
        stored = app.results.groups.restore(id)
        return None if stored is None else result_from_tuple(stored, app)

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GroupResult):
            return isinstance(other, str) and other == self.id
        return (other.id, other.parent, other.results) == (self.id, self.parent, self.results)

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} [{', '.join(map(str, self.results))}]>"


def result_from_tuple(value: Any, app: AppBase | None = None) -> Any:
    """Return the handle that ``as_tuple`` describes: an ``AsyncResult``, or a ``GroupResult`` with its members."""
    if isinstance(value, AsyncResult | ResultSet):
        return value
    if isinstance(value, str):
        return AsyncResult(value, app=app)
    reference, members = value
    own_id, parent_reference = reference if isinstance(reference, list | tuple) else (reference, None)
    parent = result_from_tuple(parent_reference, app) if parent_reference else None
    if members is not None:
        members = [result_from_tuple(member, app) for member in members]
        return (GroupResult if app is None else app.GroupResult)(own_id, members, parent)
    return AsyncResult(own_id, app=app, parent=parent)


class _Watch:
    """Reads a batch of results from time to time; raises the exception of one that has failed, whatever its place."""

    def __init__(
        self, results: ResultSet, batch: list[Any], on_interval: Callable[[], Any] | None, *, propagate: bool
    ) -> None:
        self._results = results
        self._batch = batch
        self._on_interval = on_interval
        self._propagate = propagate

    def __call__(self) -> None:
        self._results.read(self._batch)
        if self._propagate:
            for result in self._batch:
                if isinstance(result, AsyncResult) and result.is_known:
                    result.maybe_throw()
        if self._on_interval is not None:
            self._on_interval()
