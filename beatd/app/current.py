"""Current app: the process-wide state. The app in use, and the shared tasks to be made in each app.

Both serve ``@shared_task``, for task modules that import no app.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from beatd.app.context import current
from beatd.app.find_app import import_symbol
from beatd.schedules.due import TimeSource, set_time_source

if TYPE_CHECKING:
    from beatd.app.app import App
    from beatd.app.task import Task

P = ParamSpec("P")
R = TypeVar("R")

_apps: list[App] = []
_factories: list[Callable[[Any], Any]] = []


class CurrentApp:
    """Proxy of the app that was created last, or of one with default settings: ``current_app.conf.timezone``.

    Call it for the app itself.
    """

    def __call__(self) -> App:
        if not _apps:
            import_symbol("beatd.app.app:App")()  # by name: the app imports this module
        return _apps[-1]

    def _get_current_object(self) -> App:  # Celery's name
        return self()

    def __getattr__(self, name: str) -> Any:
        return getattr(self(), name)

    def __eq__(self, other: object) -> bool:
        return bool(self() == other)

    def __hash__(self) -> int:
        return hash(self())

    def __repr__(self) -> str:
        return repr(self())


def app_or_default(app: App | None = None) -> App:
    """Return the app that was given, else the current one."""
    return app if app is not None else CurrentApp()()


class CurrentTask:
    """Proxy of the task that runs in this thread or coroutine: ``current_task.request.id``. False outside a task."""

    def _task(self) -> Any:
        running = current()
        return running.task if running is not None else None

    _get_current_object = _task  # Celery's name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task(), name)

    def __bool__(self) -> bool:
        return self._task() is not None

    def __eq__(self, other: object) -> bool:
        return bool(self._task() == other)

    def __hash__(self) -> int:
        return hash(self._task())

    def __repr__(self) -> str:
        return repr(self._task())


class AppTimeSource(TimeSource):
    """The current app's clock and time zone, for ``crontab(…).is_due(…)``."""

    @staticmethod
    def now() -> datetime:
        return _apps[-1].now() if _apps else TimeSource.now()

    @staticmethod
    def timezone() -> str:
        return _apps[-1].timezone.key if _apps else TimeSource.timezone()


current_app = CurrentApp()
current_task = CurrentTask()
set_time_source(AppTimeSource)


def set_current_app(app: App) -> None:
    """Make ``app`` the current app."""
    _apps[:] = [app]


def shared_task_factories() -> list[Callable[[Any], Any]]:
    """Return the factories that make each shared task in an app."""
    return _factories


class SharedTask:
    """Proxy of a shared task: each use goes to the current app's task of that name.

    It equals that task, is an instance of its class, and can be patched by ``unittest.mock`` and copied like it.
    """

    def __init__(self, make: Callable[[App], Any], function: Callable[..., Any]) -> None:
        _factories.append(make)
        self.__dict__.update(_make=make, __doc__=function.__doc__, __module__=function.__module__)

    def _task(self) -> Any:
        return self._make(current_app())

    _get_current_object = _task  # Celery's name

    @property  # type: ignore[misc]  # of the standard library's object it can be set
    def __class__(self) -> Any:
        return type(self._task()) if _apps else SharedTask  # asking for it makes no app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._task(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._task(), name)

    def __dir__(self) -> list[str]:
        return dir(self._task())

    def __eq__(self, other: object) -> bool:
        return bool(self._task() == other)

    def __hash__(self) -> int:
        return hash(self._task())

    def __reduce__(self) -> Any:
        return self._task().__reduce__()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._task()(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self._task())


@overload
def shared_task(fun: Callable[P, R], /) -> Task[P, R]: ...


@overload
def shared_task(*, bind: Literal[True], **options: Any) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...


@overload
def shared_task(*, bind: Literal[False] = False, **options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def shared_task(fun: Any = None, *, bind: bool = False, **options: Any) -> Any:
    """Make a task of the current app, in modules that import no app. Options as for :meth:`App.task`."""

    def make(function: Callable[..., Any]) -> Any:
        options["bind"] = bind
        return SharedTask(lambda app: app.task_from(function, options), function)

    return make if fun is None else make(fun)
