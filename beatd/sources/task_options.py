"""Options of a task, and routes of its app, in the fields of an entry.

``celery beat`` sends an entry by ``apply_async`` of its task, in a process that has the app: so the options of the task
(``@app.task(queue=…)``) and ``task_routes`` count. The daemon sends without the app, so they are put into the entry
when the app is read. Apps of Celery and of beatd are treated alike. This runs in the process that imports the app.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beatd.app.routing import Route, destination, matching_route

_ADDRESS = ("queue", "exchange", "routing_key")
_SENT = (*_ADDRESS, "priority", "expires")
"""Options of a task that its workers cannot know from their own copy of it, as they know its time limits."""


def with_task_options(app: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a registration with what its task and the routes of the app add to its ``options``.

    The entry's own options take precedence, then those of the task, then those of the route, as in Celery. ``queue`` is
    not set if none of them names a queue or an exchange. Raises QueueNotFound for a queue that the app does not allow;
    a router of the app may raise anything.
    """
    found, options = dict(fields), fields.get("options") or {}
    if not isinstance(options, Mapping) or not isinstance(fields.get("task"), str):
        return found  # the reader of entries refuses it
    given = _set({**options, **{name: fields[name] for name in _SENT if name in fields}})
    args, kwargs = fields.get("args"), fields.get("kwargs")
    route, added = _route_of(app, fields["task"], (args or (), kwargs or {}), given)
    more = {name: value for name, value in added.items() if name not in given}
    if route is not None and not given.keys() & set(_ADDRESS):
        more |= _address(route)
    if more:
        found["options"] = {**options, **more}
    return found


def named_address(app: Any, task: str, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return ``queue``, or ``exchange`` and ``routing_key``, of a call without options; empty for the default queue.

    Raises as :func:`with_task_options`.
    """
    route, _ = _route_of(app, task, (args, kwargs), {})
    return {} if route is None else _address(route)


def _route_of(
    app: Any, name: str, arguments: tuple[Any, Any], given: Mapping[str, Any]
) -> tuple[Route | None, dict[str, Any]]:
    """The destination of a call, if anything but the default queue is named, and the priority and expiry to add."""
    task = app.tasks.get(name)
    options = {**_set({option: getattr(task, option, None) for option in _SENT}), **given}
    routed = _set(matching_route(name, *arguments, options, app.conf["task_routes"], task))
    named = any(option in options or option in routed for option in _ADDRESS)
    added = {option: value for option, value in {**routed, **options}.items() if option in {"priority", "expires"}}
    return destination(routed, options, app.conf) if named else None, added


def _address(route: Route) -> dict[str, Any]:
    if route.exchange:
        return {"exchange": route.exchange, "routing_key": route.routing_key}
    return {"queue": route.queue}


def _set(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
