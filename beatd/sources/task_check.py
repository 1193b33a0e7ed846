"""Check of the calls that entries make, against the tasks of an app; runs in the child process that imports the app.

A call fits when its task is known, its arguments bind to the signature of the task, and pydantic models validate. One
without a queue fits if the app sends the task to the default queue, too. Apps of Celery and of beatd are checked alike.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from beatd.app.pydantic_support import models_of
from beatd.model import Entry
from beatd.sources.task_options import named_address

NO_TASKS = "the app has no tasks of its own, so that those of the entries could not be checked"
_BUILTIN = ("beatd.", "celery.")
_NAMES_MAX = 3
_TEXT_MAX = 300


class Call(NamedTuple):
    """The call of an entry; ``args`` and ``kwargs`` as a worker receives them."""

    entry: str
    task: Any
    args: Any
    kwargs: Any
    queue: str = ""
    """The default queue, if the entry names neither queue nor exchange; empty if it names one."""


def call_of(entry: Entry, default_queue: str) -> Call:
    """Return the call of an entry."""
    named = entry.options.queue or entry.options.exchange
    return Call(entry.name, entry.task, list(entry.args), dict(entry.kwargs), "" if named else default_queue)


class CallFault(NamedTuple):
    """Something wrong with a call: the entry, the key of its table, and what is wrong."""

    entry: str
    key: str
    message: str


def call_faults(app: Any, calls: Iterable[Call]) -> Iterator[CallFault]:
    """Yield what is wrong with the calls."""
    tasks: Mapping[str, Any] = app.tasks
    for call in calls:
        if not isinstance(call.task, str) or call.task.startswith("beatd."):
            continue
        yield from _queue_faults(app, call)
        task = tasks.get(call.task)
        if task is None:
            near = difflib.get_close_matches(call.task, tasks, _NAMES_MAX, 0.6)
            more = f"; did you mean {' or '.join(near)}?" if near else ""
            yield CallFault(call.entry, "task", f'the app has no task "{call.task}"{more}')
        elif getattr(task, "typing", True):
            yield from _argument_faults(task, call)


def _queue_faults(app: Any, call: Call) -> Iterator[CallFault]:
    """Yield a fault if the app sends the task elsewhere than the entry, which names no queue."""
    if not call.queue:
        return
    try:
        address = named_address(app, call.task, call.args, call.kwargs)
    except Exception as error:  # noqa: BLE001 - routers of the user's may raise anything
        text = f"the app has no route for {call.task}: {str(error) or type(error).__name__}"
        yield CallFault(call.entry, "queue", text)
        return
    if address and address != {"queue": call.queue}:
        wanted = ", ".join(f'{name} = "{value}"' for name, value in address.items())
        text = f'it goes to the queue "{call.queue}", but the app sends {call.task} elsewhere; set {wanted}'
        yield CallFault(call.entry, "queue", text)


def has_tasks(app: Any) -> bool:
    """True if the app has a task that is not built in."""
    return not all(name.startswith(_BUILTIN) for name in app.tasks)


def _argument_faults(task: Any, call: Call) -> Iterator[CallFault]:
    if not isinstance(call.args, list | tuple) or not isinstance(call.kwargs, Mapping):
        return  # said where the entry is read
    run = task.run
    try:
        signature = inspect.signature(run)
    except (TypeError, ValueError):  # code that has none, as of an extension module
        return
    try:
        bound = signature.bind(*call.args, **call.kwargs)
    except TypeError as error:
        wanted = str(signature).partition(" -> ")[0]
        text = f"{call.task}{wanted} does not take them: {error}" if len(wanted) < _TEXT_MAX else str(error)
        yield CallFault(call.entry, "kwargs" if call.kwargs and not call.args else "args", text)
        return
    if _takes_models(task):
        yield from _model_faults(run, bound.arguments, call)


def _takes_models(task: Any) -> bool:
    """True for a task that was made with ``pydantic=True``, of either kind of app."""
    if getattr(task, "takes_models", False) or getattr(task, "_dump_pydantic_arguments", None) is not None:
        return True
    code = getattr(task.run, "__code__", None)
    return bool(getattr(code, "co_qualname", "").startswith("pydantic_wrapper"))


def _model_faults(run: Any, arguments: Mapping[str, Any], call: Call) -> Iterator[CallFault]:
    for name, model in models_of(inspect.unwrap(run)).items():
        value = arguments.get(name)
        if value is None:
            continue
        try:
            model.model_validate(value)
        except Exception as error:  # noqa: BLE001 - pydantic's, or of a validator of the user's
            key = "kwargs" if name in call.kwargs else "args"
            yield CallFault(call.entry, key, f"{name} of {call.task}: {_first_error(error)}"[:_TEXT_MAX])


def _first_error(error: Exception) -> str:
    """The first error of a model, without the value: it may be a secret."""
    errors = getattr(error, "errors", None)
    if not callable(errors):
        return type(error).__name__
    found = errors(include_url=False, include_context=False, include_input=False)
    first = found[0]
    place = ".".join(map(str, first["loc"]))
    more = f", and {len(found) - 1} more" if found[1:] else ""
    return f"{place}: {first['msg']}{more}" if place else f"{first['msg']}{more}"
