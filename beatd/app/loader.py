"""The loader: settings are read and task modules imported when an app is first needed.

It makes task classes of functions, keeps them by name in the registry, and adds the tasks that compositions send:
Celery's, under Celery's names.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from beatd import signals
from beatd.app import current
from beatd.app.base import AppBase
from beatd.app.canvas import chunks as chunked
from beatd.app.canvas.signature import as_signature
from beatd.app.conf import Conf
from beatd.app.pydantic_support import with_models
from beatd.app.task import FROM_CONF, Task
from beatd.config.environment import named_in
from beatd.exceptions import NotRegistered
from beatd.signals import Signal

PREFIX = "celery."
"""Prefix of the built-in tasks' names."""


def add_builtin_tasks(app: AppBase) -> None:
    """Register the tasks that compositions send, under Celery's names."""

    def task(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        return lambda fun: app.task_from(fun, {"name": f"{PREFIX}{name}", "typing": False, **options})

    @task("accumulate")
    def accumulate(*args: Any, index: int | None = None) -> Any:
        """Return the results of a group as one value; with ``index`` one of its arguments."""
        return args if index is None else args[index]

    @task("map")
    def xmap(task: Any, it: Any) -> list[Any]:
        """Return ``[task(item) for item in it]``."""
        call = as_signature(task, app).type
        return [call(item) for item in it]

    @task("starmap")
    def xstarmap(task: Any, it: Any) -> list[Any]:
        """Return ``[task(*item) for item in it]``."""
        call = as_signature(task, app).type
        return [call(*item) for item in it]

    @task("chunks")
    def chunks(task: Any, it: Any, n: int) -> Any:
        """Send the chunks of :class:`beatd.app.canvas.chunks`; returns their group's id."""
        return chunked(as_signature(task, app), it, n, app=app).apply_async().id

    @task("backend_cleanup", ignore_result=True)
    def backend_cleanup() -> None:
        """Do nothing: Redis expires results by itself."""


log = logging.getLogger("beatd.app.making")

_MEANINGLESS = ("shared", "lazy", "filter")
"""Options of Celery's decorator that change nothing here."""


def task_class(
    fun: Callable[..., Any], name: str, base: type[Task[..., Any]], options: Mapping[str, Any]
) -> type[Task[..., Any]]:
    """A subclass of ``base`` (or of ``options["base"]``) that runs ``fun``; other options become its attributes."""
    rest = {key: value for key, value in options.items() if key not in _MEANINGLESS}
    base = rest.pop("base", None) or base
    bind = rest.pop("bind", False)
    original = fun
    if takes_models := rest.pop("pydantic", False):
        names = {"pydantic_strict": "strict", "pydantic_context": "context", "pydantic_dump_kwargs": "dump"}
        fun = with_models(fun, **{ours: rest.pop(name) for name, ours in names.items() if name in rest})
    if "raises" in rest:
        rest.setdefault("throws", rest.pop("raises"))
    attributes = {
        **rest,
        "name": name,
        "is_bound": bind,
        "takes_models": takes_models,
        "run": fun if bind else staticmethod(fun),
        "abstract": False,
        "__doc__": fun.__doc__,
        "__module__": fun.__module__,
        "__wrapped__": original,
        "__name__": fun.__name__,
    }
    return type(fun.__name__, (base,), attributes)


def warn_of_another(task: Task[..., Any], fun: Callable[..., Any]) -> None:
    """Say that ``fun`` is not going to be a task, because another function has its name already."""
    known = getattr(task, "__wrapped__", task)
    if _place(known) != _place(fun):
        log.warning(
            "Task %s is %s already; %s gets no task of its own: give it another name",
            task.name,
            _place(known),
            _place(fun),
            extra={"event": "task_name_taken", "task": task.name},
        )


def _place(fun: Any) -> str:
    return f"{getattr(fun, '__module__', '')}.{getattr(fun, '__qualname__', type(fun).__qualname__)}"


def import_all(names: Iterable[str]) -> None:
    """Import these modules."""
    for name in names:
        importlib.import_module(name)


def discover(packages: Iterable[str], related_name: str) -> None:
    """Import ``related_name`` of each package; one without such a module is fine, an error inside it is not."""
    for package in packages:
        name = f"{package}.{related_name}" if related_name else package
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise


def annotate(task: Task[..., Any], annotations: Any) -> None:
    """Set what ``task_annotations`` says: ``{"tasks.add": {"rate_limit": "10/s"}, "*": {…}}``, or several of these.

    An item may also be an object whose ``annotate(task)`` returns such attributes. Called once for each task.
    """
    for rules in annotations if isinstance(annotations, list | tuple) else [annotations] if annotations else []:
        found = [rules.get("*"), rules.get(task.name)] if isinstance(rules, Mapping) else [rules.annotate(task)]
        for attributes in filter(None, found):
            for name, value in attributes.items():
                if name.startswith("@"):
                    task.add_around(name[1:], value)
                else:
                    setattr(task, name, value)


class TaskRegistry(dict[str, "Task[..., Any]"]):
    """A dict that raises :class:`~beatd.exceptions.NotRegistered` for a name it does not have."""

    def __missing__(self, name: str) -> Task[..., Any]:
        raise NotRegistered(name)

    def near(self, name: str) -> list[str]:
        """Names that somebody may have meant: spelt alike, or the same function elsewhere."""
        function = name.rpartition(".")[2]
        same = [known for known in self if known.rpartition(".")[2] == function]
        return list(dict.fromkeys([*same, *difflib.get_close_matches(name, self, 3)]))[:3]


class Loader(AppBase):
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
                for make in list(current.recipes()):
                    make(self)
                add_builtin_tasks(self)
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
