"""Loader: settings, task modules, task classes, the registry, built-in tasks.

Settings are read and tasks are configured on first use of the app. The task modules (``imports``, ``include``,
``autodiscover_tasks``) are imported by what needs all tasks: workers, the daemon, some commands. A client, such as a
web application, sends without them, as with Celery. The built-in tasks are those that compositions send, under
Celery's names.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from beatd import signals
from beatd.app import current
from beatd.app.base import AppBase
from beatd.app.canvas import chunks as chunked
from beatd.app.canvas.signature import as_signature
from beatd.app.conf import Conf
from beatd.app.find_app import import_symbol
from beatd.app.pydantic_support import with_models
from beatd.app.retry import add_autoretry
from beatd.app.task import FROM_CONF, Task
from beatd.config.environment import named_in
from beatd.exceptions import Fault, NotRegistered, WrongTaskClass
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
        """Send the chunks of :class:`beatd.app.canvas.chunks`; returns the handle of their group."""
        return chunked(as_signature(task, app), it, n, app=app).group().apply_async()

    @task("backend_cleanup", ignore_result=True)
    def backend_cleanup() -> None:
        """Do nothing: Redis expires results by itself."""


log = logging.getLogger("beatd.app.making")

_MEANINGLESS = ("shared", "lazy", "filter")
"""Options of Celery's decorator that have no effect."""


def checked_base(kind: Any, where: str, option: str = "base") -> type[Task[..., Any]]:
    """Return the class if its instances can be tasks here; raises WrongTaskClass, with the task that is ``where``."""
    if isinstance(kind, type) and issubclass(kind, Task):
        return kind
    what = f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else repr(kind)
    text = (
        f"{what} cannot be the class of a task: it does not inherit from beatd.Task. Classes of packages that inherit "
    )
    text += "from celery.Task need Celery's app and worker"
    raise WrongTaskClass([Fault(where, None, option, text)])


def task_class(
    fun: Callable[..., Any], name: str, base: type[Task[..., Any]], options: Mapping[str, Any]
) -> type[Task[..., Any]]:
    """Return a subclass of ``base`` (or of ``options["base"]``) that runs ``fun``; options become its attributes."""
    rest = {key: value for key, value in options.items() if key not in _MEANINGLESS}
    base = checked_base(rest.pop("base", None) or base, name)
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
        "is_function": True,
        "takes_models": takes_models,
        "run": fun if bind else staticmethod(fun),
        "abstract": False,
        "__doc__": fun.__doc__,
        "__module__": fun.__module__,
        "__wrapped__": original if bind else staticmethod(original),
        "__name__": fun.__name__,
    }
    return type(fun.__name__, (base,), attributes)


def warn_of_another(tasks: TaskRegistry, name: str, fun: Callable[..., Any]) -> None:
    """Log once that ``fun`` is not registered, because another function has its task name already."""
    registered = getattr(tasks[name], "__wrapped__", tasks[name])
    if name not in tasks.taken and _place(registered) != _place(fun):
        tasks.taken.add(name)
        log.warning(
            "Task name %s is taken by %s; %s is not registered: give it another name",
            name,
            _place(registered),
            _place(fun),
            extra={"event": "task_name_taken", "task": name},
        )


def _place(fun: Any) -> str:
    return f"{getattr(fun, '__module__', '')}.{getattr(fun, '__qualname__', type(fun).__qualname__)}"


def module_names(given: Iterable[str] | None) -> tuple[str, ...]:
    """Return the names of modules in a setting, which may be one."""
    return (given,) if isinstance(given, str) else tuple(given or ())


def import_all(names: Iterable[str]) -> None:
    """Import the task modules."""
    for name in names:
        importlib.import_module(name)


def discover(packages: Iterable[str], related_name: str) -> None:
    """Import ``related_name`` of each package. A package without such a module is skipped; its errors are raised.

    The name of a class, as in Django's ``INSTALLED_APPS``, stands for the module that has it, as in Celery.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package or "." not in package:
                raise
            package = package.rpartition(".")[0]  # noqa: PLW2901
        name = f"{package}.{related_name}"
        try:
            importlib.import_module(name if related_name else package)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise


def annotate(task: Task[..., Any], annotations: Any) -> None:
    """Apply ``task_annotations`` to a task: ``{"tasks.add": {"rate_limit": "10/s"}, "*": {…}}``, or a list of these.

    An item may also be an object whose ``annotate(task)`` returns attributes, or the name of its class. Called once per
    task.
    """
    for rules in annotations if isinstance(annotations, list | tuple) else [annotations] if annotations else []:
        matches = _annotations_of(task, import_symbol(rules)() if isinstance(rules, str) else rules)
        for attributes in filter(None, matches):
            for name, value in attributes.items():
                if name.startswith("@"):
                    task.add_around(name[1:], value)
                else:  # a function is a method, as in Celery
                    setattr(type(task) if inspect.isfunction(value) else task, name, value)


def _annotations_of(task: Task[..., Any], rules: Any) -> list[Any]:
    """Return what an item of ``task_annotations`` has for all tasks, and for this one."""
    if isinstance(rules, Mapping):
        return [rules.get("*"), rules.get(task.name)]
    return [rules.annotate_any() if hasattr(rules, "annotate_any") else None, rules.annotate(task)]


class TaskRegistry(dict[str, "Task[..., Any]"]):
    """Tasks by name; raises :class:`~beatd.exceptions.NotRegistered` for an unknown name.

    ``complete`` imports the task modules: a name is unknown only after that.
    """

    def __init__(self, complete: Callable[[], None]) -> None:
        super().__init__()
        self._complete = complete
        self.taken: set[str] = set()
        """Names that more than one function has asked for."""

    def __missing__(self, name: str) -> Task[..., Any]:
        self._complete()
        if name not in self:
            raise NotRegistered(name)
        return self[name]

    def near(self, name: str) -> list[str]:
        """Return similar names, for error messages: alike in spelling, or the same function in another module."""
        function = name.rpartition(".")[2]
        same = [known for known in self if known.rpartition(".")[2] == function]
        return list(dict.fromkeys([*same, *difflib.get_close_matches(name, self, 3)]))[:3]


class Loader(AppBase):
    """The base of an app that reads settings on first use, and imports task modules where all tasks are needed."""

    conf: Conf
    tasks: TaskRegistry

    def __init__(self) -> None:
        self.packages: Callable[[], Iterable[str]] = tuple
        """Default packages of :meth:`autodiscover_tasks`."""
        self.on_import_modules = Signal("app.on_import_modules", careful=False)
        self.on_after_configure = Signal("app.on_after_configure", careful=False)
        self.on_after_finalize = Signal("app.on_after_finalize", careful=False)
        self._packages: list[tuple[Any, str]] = []
        self._finalized = False
        """True as soon as finalization has begun."""
        self._complete = False
        self._importing = False
        """True as soon as the import of the task modules has begun."""
        self._imported = False
        self._shared = 0
        """How many of the process's shared tasks this app has."""
        self._lock, self._process = threading.RLock(), os.getpid()

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Take settings from an object, or from a module or ``"module:attribute"`` by name.

        It is read on first access to a setting, or now with ``force``; ``silent`` ignores a missing module. With
        ``namespace="CELERY"`` only names with the prefix ``CELERY_`` count. Settings on ``conf`` take precedence.
        """
        self.conf.read_later(obj, namespace, silent=silent)
        if force:
            self.conf.changes()

    def config_from_envvar(self, variable: str, silent: bool = False, force: bool = False) -> None:
        """Take settings from the module that an environment variable names; see :meth:`config_from_object`."""
        self.config_from_object(named_in(variable), silent=silent, force=force)

    def add_defaults(self, defaults: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Set defaults: they count where nothing else was set."""
        for name, value in dict(defaults() if callable(defaults) else defaults).items():
            if name not in self.conf.changes():
                self.conf[name] = value

    def setup_security(self, *_: Any, **__: Any) -> None:
        """Raise NotImplementedError: signed messages are not supported."""
        raise NotImplementedError("signed messages are not supported: restrict access to the broker instead")

    def autodiscover_tasks(
        self,
        packages: Iterable[str] | Callable[[], Iterable[str]] | None = None,
        related_name: str | None = "tasks",
        force: bool = False,
        **_: Any,
    ) -> None:
        """Have :meth:`import_tasks` import ``<package>.tasks`` of each package; packages without one are skipped.

        In Django the default is all installed apps. ``force`` imports them now.
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
            del self._packages[0]  # only now, so that a failed import is retried and reported again

    def finalize(self) -> None:
        """Finalize the app: signal ``on_after_configure``, configure all tasks, signal ``on_after_finalize``.

        Runs once, on first use of tasks. Errors of receivers are raised. It imports no task modules. Threads wait for
        the one that does it, but can register tasks meanwhile: one may be importing a module with tasks.
        """
        if self._complete:
            self._make_shared()
        else:
            self._begin(with_modules=False)

    def import_tasks(self) -> None:
        """Import the task modules and finalize the app, in this order, for what needs all tasks. Runs once."""
        if self._imported and self._complete:
            self._make_shared()
        else:
            self._begin(with_modules=True)

    def _begin(self, *, with_modules: bool) -> None:
        if self._process != os.getpid():  # forked while a thread was at it, which does not go on here
            self._lock, self._process = threading.RLock(), os.getpid()
            self._finalized, self._importing = self._complete, self._imported
        with self._lock:
            if not self._finalized:
                self._finalize(with_modules=with_modules)
            elif with_modules and not self._importing:
                self._import_modules()
                self._make_shared()

    def _make_shared(self) -> None:
        """Make the shared tasks of modules that have been imported since the last call."""
        factories = current.shared_task_factories()
        while self._shared < len(factories):
            count = len(factories)
            for make in factories[self._shared : count]:
                make(self)
            self._shared = count

    def _finalize(self, *, with_modules: bool) -> None:
        self._finalized = True
        try:
            self.on_after_configure.send(sender=self, source=self.conf)
            if with_modules and not self._importing:
                self._import_modules()
            self._make_shared()
            add_builtin_tasks(self)
            for task in list(self.tasks.values()):
                self.configure(task)
            self.on_after_finalize.send(sender=self)
            self._complete = True
        except BaseException:
            self._finalized = False
            raise

    def _import_modules(self) -> None:
        self._importing = True
        try:
            self.on_import_modules.send(sender=self)
            signals.import_modules.send(sender=self)
            import_all((*module_names(self.conf.imports), *module_names(self.conf.include)))
            self._discover()
            self._imported = True
        except BaseException:
            self._importing = False
            raise

    def gen_task_name(self, name: str, module: str) -> str:
        """Return ``module.name``; for a task in ``__main__``, ``main.name``."""
        return f"{self.main if module == '__main__' and self.main else module}.{name}"

    def prepare_task(self, task: Any) -> Any:
        """Complete a task object that nobody else has seen yet: app, name, retries, and options of the settings."""
        kind = checked_base(type(task), str(getattr(task, "name", None) or type(task).__name__))
        task.app = self
        if not task.name:
            task.name = self.gen_task_name(kind.__name__, kind.__module__)
        add_autoretry(task, kind.__dict__)  # type: ignore[arg-type]  # a mapping proxy
        if self._finalized:
            self.configure(task)
        return task

    def bind_task(self, task: Task[..., Any]) -> None:
        """Finish the registration of a task."""
        task.on_bound(self)
        if self._finalized:
            self.configure(task)

    def configure(self, task: Task[..., Any]) -> None:
        """Apply settings to a task: annotations, and defaults for options that it does not set."""
        if not task.is_configured:
            task.is_configured = True
            annotate(task, self.conf.task_annotations)
        for attribute, setting in FROM_CONF.items():
            if getattr(task, attribute, None) is None:
                setattr(task, attribute, self.conf[setting])
