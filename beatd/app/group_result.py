"""What became of several tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from beatd.app.base import AppBase
from beatd.app.current import current_app
from beatd.app.result import AsyncResult, refuse_inside_a_task
from beatd.clock import monotonic, sleep
from beatd.exceptions import TimeoutError  # noqa: A004 - Celery's name, kept

_AT_ONCE = 500
"""Results read in one call."""


class ResultSet:
    """The handles of several tasks, asked as one."""

    def __init__(self, results: Iterable[Any] | None = None, app: AppBase | None = None, **_: Any) -> None:
        self.results: list[Any] = list(results or ())
        self._app = app

    @property
    def app(self) -> AppBase:
        return self._app or (self.results[0].app if self.results else current_app())

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
        """Wait for all of them; returns their values in order. ``timeout`` (seconds) is for all together.

        With ``callback`` each value goes to ``callback(id, value)`` instead. Otherwise as :meth:`AsyncResult.get`.
        """
        if disable_sync_subtasks:
            refuse_inside_a_task()
        deadline = None if timeout is None else monotonic() + timeout
        values = []
        for result in self._as_they_come():
            left = None if deadline is None else max(0.0, deadline - monotonic())
            waiting: dict[str, Any] = {"interval": interval, "on_message": on_message, "on_interval": on_interval}
            value = result.get(timeout=left, propagate=propagate, disable_sync_subtasks=False, **waiting)
            if callback is not None:
                callback(result.id, value)
            else:
                values.append(value)
        return None if callback is not None else values

    join = join_native = get

    def _as_they_come(self) -> Iterator[Any]:
        """The results in order; those that are there already are read many at a time, before they are asked for."""
        for start in range(0, len(self.results), _AT_ONCE):
            some = self.results[start : start + _AT_ONCE]
            waited = 0.0
            for result in some:
                if monotonic() - waited > 0.01 and not result.is_known:
                    self.read(some)
                    waited = monotonic()
                yield result

    def read(self, results: Iterable[Any] | None = None) -> None:
        """Look up all that is not known yet, in one call."""
        wanted = [one for one in (results or self.results) if isinstance(one, AsyncResult) and not one.is_known]
        if wanted:
            found = self.app.results.get_many([one.id for one in wanted])
            for one in wanted:
                one.learn(found.get(one.id))

    def ready(self) -> bool:
        """Whether all have ended."""
        self.read()
        return all(result.ready() for result in self.results)

    def successful(self) -> bool:
        """Whether all have succeeded."""
        self.read()
        return all(result.successful() for result in self.results)

    def failed(self) -> bool:
        """Whether one has failed."""
        self.read()
        return any(result.failed() for result in self.results)

    def waiting(self) -> bool:
        """Whether one has not ended yet."""
        return not self.ready()

    def completed_count(self) -> int:
        """How many have succeeded."""
        self.read()
        return sum(result.successful() for result in self.results)

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> None:
        """Raise the exception of the first that failed."""
        self.read()
        for result in self.results:
            result.maybe_throw(propagate=propagate, callback=callback)

    maybe_reraise = maybe_throw

    def revoke(self, **options: Any) -> Any:
        """Have no worker run those that have not begun; options as for :meth:`AsyncResult.revoke`."""
        return self.app.control.revoke([leaf.id for leaf in self._leaves()], **options)

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

    def remove(self, result: Any) -> None:
        """Raises KeyError if it is not among them."""
        wanted = self.app.AsyncResult(result) if isinstance(result, str) else result
        if wanted not in self.results:
            raise KeyError(result)
        self.results.remove(wanted)

    def discard(self, result: Any) -> None:
        """:meth:`remove`, whether it is among them or not."""
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
        """The values, each as soon as it is there."""
        deadline = None if timeout is None else monotonic() + timeout
        left = list(self.results)
        while left:
            self.read(left)
            done = [result for result in left if result.ready()]
            left = [result for result in left if result not in done]
            yield from (result.get() for result in done)
            if not done:
                if deadline is not None and monotonic() >= deadline:
                    raise TimeoutError("The operation timed out.")
                sleep(0.02)

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
    """The results of a group, under its id. ``save`` keeps the list of them in the result backend for others."""

    of: ClassVar[Any] = None
    """The app of all handles of this class, if it is an app's own (``app.GroupResult``)."""

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

    def as_tuple(self) -> tuple[tuple[str, Any], list[Any]]:
        """``((id, parent), members)``: how results name each other in stored documents."""
        return (self.id, self.parent and self.parent.as_tuple()), [result.as_tuple() for result in self.results]

    def save(self) -> None:
        """Keep the list of members in the result backend."""
        self.app.results.groups.save(self.id, self.as_tuple())

    def delete(self) -> None:
        """Undo :meth:`save`; the members' results stay."""
        self.app.results.groups.delete(self.id)

    @classmethod
    def restore(cls, id: str, app: AppBase | None = None, **_: Any) -> Any:  # noqa: A002 - Celery's name
        """The group that was saved under this id, None if there is none."""
        app = app or cls.of or current_app()
        kept = app.results.groups.restore(id)
        return None if kept is None else result_from_tuple(kept, app)

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupResult) and other.id == self.id and other.results == self.results

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} [{', '.join(map(str, self.results))}]>"


def result_from_tuple(value: Any, app: AppBase | None = None) -> Any:
    """The handle that ``as_tuple`` describes: an ``AsyncResult``, or a ``GroupResult`` with all of its members."""
    if isinstance(value, AsyncResult | ResultSet):
        return value
    if isinstance(value, str):
        return AsyncResult(value, app=app)
    described, members = value
    own, parent = described if isinstance(described, list | tuple) else (described, None)
    above = result_from_tuple(parent, app) if parent else None
    if members is not None:
        return GroupResult(own, [result_from_tuple(member, app) for member in members], above, app)
    return AsyncResult(own, app=app, parent=above)
