"""App base: the interface of an app that tasks, signatures, results and the loader are written against.

:class:`beatd.App` implements it. The modules in between import this one, so that imports go one way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from beatd.app.conf import Conf
from beatd.clock import Clock
from beatd.store.results import Results, Stored


class AppBase(ABC):
    """An app: configuration, tasks by name, a publisher to the broker and a client of the result backend."""

    main: str | None
    conf: Conf
    clock: Clock
    tasks: dict[str, Any]
    task_cls: Any
    oid: str

    @property
    @abstractmethod
    def results(self) -> Results:
        """The client of the result backend."""

    @property
    @abstractmethod
    def backend(self) -> Any:
        """See :attr:`beatd.App.backend`."""

    @property
    @abstractmethod
    def control(self) -> Any:
        """Remote control of the workers."""

    @property
    @abstractmethod
    def GroupResult(self) -> Any:  # noqa: N802 - Celery's name
        """The class of this app's group results."""

    @abstractmethod
    def connection(self, url: str | None = None, **options: Any) -> Any:
        """Return a ``kombu.Connection`` to the broker."""

    @abstractmethod
    def task_from(self, fun: Callable[..., Any], options: dict[str, Any]) -> Any:
        """Register ``fun`` as a task; returns the task."""

    @abstractmethod
    def finalize(self) -> None:
        """Configure all tasks that are registered. Runs once."""

    @abstractmethod
    def import_tasks(self) -> None:
        """Import the task modules, and finalize. Runs once."""

    @abstractmethod
    def send_task(
        self, name: str, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Publish a task message; returns the result's handle."""

    @abstractmethod
    def run_eagerly(self, task: Any, args: Iterable[Any], kwargs: Mapping[str, Any], **options: Any) -> Any:
        """Run ``task`` in this process, retries included; returns an ``EagerResult``."""

    @abstractmethod
    def reply_address(self) -> str:
        """Return the name of the queue for results that are messages to the client."""

    @abstractmethod
    def signature(self, task: Any, args: Any = None, kwargs: Any = None, options: Any = None, **more: Any) -> Any:
        """Return the signature of a call that this app sends."""

    @abstractmethod
    def AsyncResult(self, id: str, **options: Any) -> Any:  # noqa: A002, N802 - Celery's names
        """Return the handle of the task with that id."""

    @abstractmethod
    def publishing_together(self) -> AbstractContextManager[None]:
        """Batch the messages that are sent in the block."""

    @abstractmethod
    def store_results(self, results: Sequence[Stored]) -> None:
        """Store results: here, or by the worker whose thread runs this task."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the time in the app's time zone."""
