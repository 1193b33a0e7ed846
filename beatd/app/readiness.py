"""Getting an app ready: its settings, the modules with its tasks, and who wants to know of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from beatd.app import builtins, shared, signals
from beatd.app.conf import Conf
from beatd.app.making import annotate, discover, import_all
from beatd.app.registry import TaskRegistry
from beatd.app.signals import Signal
from beatd.app.task import FROM_CONF
from beatd.config.environment import named_in

if TYPE_CHECKING:
    from beatd.app.app import App
    from beatd.app.task import Task


class Readiness:
    """The part of an app that reads settings and imports task modules, all of it when it is first needed."""

    conf: Conf
    tasks: TaskRegistry

    def __init__(self) -> None:
        self.packages: Callable[[], Iterable[str]] = tuple
        """Where :meth:`autodiscover_tasks` looks when it is told nothing."""
        self.on_import_modules = Signal("app.on_import_modules", careful=False)
        self.on_after_configure = Signal("app.on_after_configure", careful=False)
        self.on_after_finalize = Signal("app.on_after_finalize", careful=False)
        self._packages: list[tuple[Any, str]] = []
        self._finalized = False
        self._lock = threading.RLock()

    @property
    def _app(self) -> App:
        return cast("App", self)

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Take settings from an object or the module (or ``"module:attribute"``) of that name.

        It is read when a setting is first needed, or now with ``force``; ``silent`` forgives a module that is not
        there. With ``namespace="CELERY"`` only names that begin with ``CELERY_`` count. What was set on ``conf``
        directly wins.
        """
        self.conf.read_later(obj, namespace, silent=silent)
        if force:
            self.conf.changes()

    def config_from_envvar(self, variable: str, silent: bool = False, force: bool = False) -> None:
        """:meth:`config_from_object` with the module that an environment variable names."""
        self.config_from_object(named_in(variable), silent=silent, force=force)

    def add_defaults(self, defaults: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Settings that count where nothing else was set."""
        for name, value in dict(defaults() if callable(defaults) else defaults).items():
            if name not in self.conf.changes():
                self.conf[name] = value

    def setup_security(self, *_: Any, **__: Any) -> None:
        """Signed messages are not supported: raises NotImplementedError."""
        raise NotImplementedError("beatd has no signed messages: keep strangers off the broker")

    def autodiscover_tasks(
        self,
        packages: Iterable[str] | Callable[[], Iterable[str]] | None = None,
        related_name: str | None = "tasks",
        force: bool = False,
        **_: Any,
    ) -> None:
        """Import ``<package>.tasks`` of each package as soon as tasks are needed; packages without one are skipped.

        In Django, without ``packages``: of all installed apps. ``force`` imports them now.
        """
        self._packages.append((packages if packages is not None else self._default_packages, related_name or ""))
        if force:
            self._discover()

    def _default_packages(self) -> Iterable[str]:
        return self.packages()

    def _discover(self) -> None:
        while self._packages:
            packages, related_name = self._packages[0]
            discover(packages() if callable(packages) else packages, related_name)
            del self._packages[0]  # only now: what could not be imported is tried again, and said again

    def finalize(self) -> None:
        """Make the app ready: signal ``on_after_configure``, import the task modules, signal ``on_after_finalize``.

        Happens once, by itself, when tasks are first needed. What a receiver raises comes out here.
        """
        with self._lock:
            if self._finalized:
                return
            self._finalized = True
            try:
                self.on_after_configure.send(sender=self, source=self.conf)
                self.on_import_modules.send(sender=self)
                signals.import_modules.send(sender=self)
                import_all((*self.conf.imports, *self.conf.include))
                self._discover()
                for make in list(shared.recipes()):
                    make(self._app)
                builtins.add(self._app)
                for task in self.tasks.values():
                    self.configure(task)
                self.on_after_finalize.send(sender=self)
            except BaseException:
                self._finalized = False
                raise

    def configure(self, task: Task[..., Any]) -> None:
        """Give a task what the settings say about it and it does not say itself."""
        if not task.is_configured:
            task.is_configured = True
            annotate(task, self.conf.task_annotations)
        for attribute, setting in FROM_CONF.items():
            if getattr(task, attribute, None) is None:
                setattr(task, attribute, self.conf[setting])
