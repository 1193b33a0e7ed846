"""Where an app's tasks come from: functions, made into task classes, and modules, imported for the tasks in them."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from beatd.app.models import with_models
from beatd.app.task import Task

log = logging.getLogger(__name__)

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
