"""Options of a task, and routes of its app, in the fields of an entry.

``celery beat`` sends an entry by ``apply_async`` of its task, in a process that has the app: so the options of the task
(``@app.task(queue=…)``) and ``task_routes`` count. The daemon sends without the app, so they are put into the entry
when the app is read. Apps of Celery and of beatd are treated alike. This runs in the process that imports the app.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from beatd.app.routing import Route, destination, matching_route

_ADDRESS = ("queue", "exchange", "routing_key")
_OF_TASK = (*_ADDRESS, "priority", "expires", "time_limit", "soft_time_limit", "ignore_result")
"""Options that a call takes from its task where it does not have them itself."""
_SENT = (*_OF_TASK, "shadow")


class _Sent(NamedTuple):
    """What a call is sent with."""

    options: Mapping[str, Any]
    """Options without those of the address."""
    route: Route
    named: bool
    """Something names the route: it is not the default queue for want of another one."""


def with_task_options(app: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a registration with ``options`` as they are when ``celery beat`` sends it.

    The entry's own options take precedence, then those of the task, then those of the route, as in Celery; None in the
    entry's own says that the option of the task does not count. ``queue`` is not set if none of them names a queue or
    an exchange. Raises QueueNotFound for a queue that the app does not allow; a router of the app may raise anything.
    """
    found, own = dict(fields), fields.get("options") or {}
    if not isinstance(own, Mapping) or not isinstance(fields.get("task"), str) or own.keys() & fields.keys():
        return found  # the reader of entries refuses it
    options = {**own, **{name: found.pop(name) for name in _SENT if name in found}}
    args, kwargs = fields.get("args"), fields.get("kwargs")
    sent = _sent(app, fields["task"], (args or (), kwargs or {}), options)
    more = {name: value for name, value in options.items() if name not in _SENT}
    found["options"] = {**more, **sent.options, **_address(sent, app)}
    return found


def named_address(app: Any, task: str, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return ``queue``, or ``exchange`` and ``routing_key``, of a call without options; empty for the default queue.

    Raises as :func:`with_task_options`.
    """
    return _address(_sent(app, task, (args, kwargs), {}), app)


def _sent(app: Any, name: str, arguments: tuple[Any, Any], given: Mapping[str, Any]) -> _Sent:
    """What the call is sent with; the options that ``given`` has, also as None, are not taken from the task."""
    task = app.tasks.get(name)
    options = {**{option: getattr(task, option, None) for option in _OF_TASK}, **given}
    if task is not None:
        options["shadow"] = options.get("shadow") or task.shadow_name(*arguments, options)
    routed = _set(matching_route(name, *arguments, options, app.conf["task_routes"], task))
    options = _set({**routed, **_set(options)})
    return _Sent(
        {option: value for option, value in options.items() if option in _SENT and option not in _ADDRESS},
        destination(routed, options, app.conf),
        any(option in options for option in _ADDRESS),
    )


def _address(sent: _Sent, app: Any) -> dict[str, Any]:
    route = sent.route
    if route.exchange:
        return {"exchange": route.exchange, "routing_key": route.routing_key}
    is_default = not sent.named and route.queue == str(app.conf.task_default_queue)
    return {} if is_default else {"queue": route.queue}


def _set(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
