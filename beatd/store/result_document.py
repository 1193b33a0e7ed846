"""The document in which Celery keeps a task's state and result, written and read. No I/O.

``{"status", "result", "traceback", "children", "date_done", "task_id"}``; an exception is
``{"exc_type", "exc_message", "exc_module"}``. Source: ``celery/backends/base.py`` as of Celery 5.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from beatd import exceptions
from beatd.exceptions import MessageError
from beatd.message import json_codec
from beatd.message.protocol import safe_repr

_BILLIARD = {"SoftTimeLimitExceeded", "TimeLimitExceeded", "WorkerLostError", "Terminated"}
_CELERY_MODULES = {"celery.exceptions", "billiard.exceptions"}


def document(
    task_id: str,
    state: str,
    result: Any,
    *,
    date_done: str | None = None,
    traceback: str | None = None,
    children: Sequence[Any] = (),
    **more: Any,
) -> bytes:
    """The document as it is stored and published.

    ``date_done`` is ISO 8601 and only for states in :data:`READY_STATES`. ``more`` are the optional fields, such as
    ``parent_id`` and ``group_id``; those that are None are left out. Raises :class:`MessageError` if JSON cannot carry
    ``result``.
    """
    fields = {
        "status": state,
        "result": result,
        "traceback": traceback,
        "children": list(children),
        "date_done": date_done,
        "task_id": task_id,
    }
    fields.update((name, value) for name, value in more.items() if value is not None)
    return (json_codec.dumps_plain if type(result) in _PLAIN and "args" not in more else json_codec.dumps)(fields)


_PLAIN = frozenset({type(None), bool, int, str})
"""Types of most results."""


def exception_payload(error: BaseException) -> dict[str, Any]:
    """An exception as JSON. beatd's own go under the names that a Celery client can import."""
    kind = type(error)
    return {
        "exc_type": kind.__qualname__,
        "exc_message": [_json_safe(arg) for arg in error.args],
        "exc_module": _celery_module(kind),
    }


def named_error(name: str, *arguments: Any, module: str = "celery.exceptions") -> dict[str, Any]:
    """The payload of an exception known by name only, for example kombu's ``EncodeError``."""
    return {"exc_type": name, "exc_message": list(arguments), "exc_module": module}


def exception_from(payload: Any) -> BaseException:
    """The exception in a stored result: the class itself where it can be imported already, else one of its name.

    Nothing is imported for it, and what is no exception is never called: a stored result cannot run code.
    """
    if isinstance(payload, BaseException):
        return payload
    if not isinstance(payload, dict) or "exc_type" not in payload:
        return Exception(payload)
    name, message = str(payload["exc_type"]), payload.get("exc_message", ())
    kind = _class(str(payload.get("exc_module") or ""), name)
    arguments = message if isinstance(message, list | tuple) else (message,)
    try:
        return kind(*arguments)
    except Exception:  # noqa: BLE001 - a user's constructor may want other arguments: the name and text must survive
        return Exception(f"{kind.__name__}({', '.join(map(repr, arguments))})")


def _celery_module(kind: type) -> str:
    if kind.__module__ != exceptions.__name__:
        return kind.__module__
    return "billiard.exceptions" if kind.__name__ in _BILLIARD else "celery.exceptions"


def _class(module: str, name: str) -> type[BaseException]:
    if module in _CELERY_MODULES and hasattr(exceptions, name):
        found: Any = getattr(exceptions, name)
    else:
        found = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
    if found is None:
        return type(name, (Exception,), {"__module__": module})
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise MessageError(f"a stored result names {module}.{name}, which is no exception class")
    if not issubclass(found, Exception):  # a task's SystemExit must not end the client that asks for its result
        return type(name, (Exception,), {"__module__": module})
    return found


def _json_safe(value: Any) -> Any:
    try:
        json_codec.dumps(value)
    except MessageError:
        return repr(value)
    return value


def carried(value: Any) -> Any:
    """Return a value that JSON can carry: what it cannot is text in it."""
    try:
        json_codec.dumps(value)
    except MessageError:
        if isinstance(value, dict):
            return {str(name): carried(each) for name, each in value.items()}
        return [carried(each) for each in value] if isinstance(value, list | tuple) else safe_repr(value)
    return value
