"""Options of a task, and routes of its app, in the fields of an entry.

``celery beat`` sends an entry by ``apply_async`` of its task, in a process that has the app: so the options of the task
(``@app.task(queue=…)``) and ``task_routes`` count. The daemon sends without the app, so they are put into the entry
when the app is read. Apps of Celery and of beatd are treated alike. This runs in the process that imports the app.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from beatd.app.conf_urls import first_url
from beatd.app.routing import Queues, Route, destination, matching_route
from beatd.broker.redis_keys import PRIORITY_STEPS, SEPARATOR
from beatd.config.fields import is_off
from beatd.urls import is_redis

_ADDRESS = ("queue", "exchange", "routing_key")
_OF_TASK = (*_ADDRESS, "priority", "expires", "time_limit", "soft_time_limit", "ignore_result")
"""Options that a call takes from its task where it does not have them itself."""
_SENT = (*_OF_TASK, "shadow")

_UNUSED = {
    "add_to_parent": "a run of the daemon has no parent",
    "compression": "messages of the daemon are not compressed",
    "delivery_mode": "messages are persistent",
    "retry": "the daemon sends until the broker has the message",
    "retry_policy": "the daemon sends until the broker has the message",
}
"""Options without effect on what a worker does with the message, each with the reason."""


class _Sent(NamedTuple):
    """Options and destination of a call when it is sent."""

    options: Mapping[str, Any]
    """Options without those of the address."""
    route: Route
    named: bool
    """Something names the route: it is not the default queue for want of another one."""


def with_task_options(app: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a registration with ``options`` as they are when ``celery beat`` sends it.

    The entry's own options take precedence, then those of the task, then those of the route, as in Celery; None in the
    entry's own says that the option of the task does not count, and False that neither does that of ``[defaults]``.
    ``queue`` is not set if none of them names a queue or an exchange. Raises QueueNotFound for a queue that the app
    does not allow, and ValueError for a list of Redis from which its workers do not take; a router of the app may raise
    anything.
    """
    found, own = dict(fields), fields.get("options") or {}
    if not isinstance(own, Mapping) or not isinstance(fields.get("task"), str) or own.keys() & fields.keys():
        return found  # the reader of entries refuses it
    options = {**own, **{name: fields[name] for name in _SENT if name in fields}}
    off = {name: False for name in _SENT if is_off(name, options.get(name))}
    options |= dict.fromkeys(off)
    if not all(isinstance(getattr(value, "name", value), str | None) for value in map(options.get, _ADDRESS)):
        return found  # likewise
    found = {name: value for name, value in fields.items() if name not in _SENT}
    args, kwargs = fields.get("args"), fields.get("kwargs")
    sent = _sent(app, fields["task"], (args or (), kwargs or {}), options)
    address = _address(sent, app)
    _check_list(sent.options.get("priority"), address, app)
    more = {name: value for name, value in options.items() if name not in _SENT and name not in _UNUSED}
    found["options"] = {**off, **more, **sent.options, **address}
    return found


def unused_options(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the options of a registration that :func:`with_task_options` leaves out, each with the reason."""
    options = fields.get("options")
    for name in options if isinstance(options, Mapping) else ():
        if name in _UNUSED:
            yield f"options.{name}", f"it has no effect: {_UNUSED[name]}"


def named_address(app: Any, task: str, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return ``queue``, or ``exchange`` and ``routing_key``, of a call without options; empty for the default queue.

    Raises as :func:`with_task_options`.
    """
    return _address(_sent(app, task, (args, kwargs), {}), app)


def _sent(app: Any, name: str, arguments: tuple[Any, Any], given: Mapping[str, Any]) -> _Sent:
    """Return what the call is sent with; an option in ``given``, also None, is not taken from the task."""
    task = app.tasks.get(name)
    of_task = {option: getattr(task, option, None) for option in _OF_TASK}
    of_task["ignore_result"] = of_task["ignore_result"] or None  # False is what workers do by default
    if task is not None and of_task["priority"] is None:
        of_task["priority"] = app.conf.task_default_priority
    options = {**of_task, **given}
    if task is not None:
        options["shadow"] = options.get("shadow") or task.shadow_name(*arguments, options)
    routed = _set(matching_route(name, *arguments, options, app.conf["task_routes"], task))
    options = _set({**routed, **_set(options)})
    return _Sent(
        {option: value for option, value in options.items() if option in _SENT and option not in _ADDRESS},
        _fanout(options, app.conf) or destination(routed, options, app.conf),
        any(option in options for option in _ADDRESS),
    )


def _fanout(options: Mapping[str, Any], conf: Any) -> Route | None:
    """The route to a queue of a fanout exchange, such as kombu's ``Broadcast``; None for any other queue.

    Raises ValueError on Redis, where kombu sends to all workers by pub/sub.
    """
    if not conf.task_queues:
        return None
    declared = Queues(conf)
    named = options.get("queue") or conf.task_default_queue
    named = str(getattr(named, "name", named))
    queue = declared.name_of(named)
    found = next((one for one in declared.bindings() if one.queue == queue and one.kind == "fanout"), None)
    if found is None or (options.get("exchange") and options.get("routing_key")):
        return None
    if is_redis(first_url(conf.broker_url or "")):
        raise ValueError(
            f"queue {named!r} has an exchange of the type fanout, for all workers; on Redis the daemon sends to one "
            "worker: let a task send it"
        )
    return Route(queue, found.exchange, found.key or queue)


def _address(sent: _Sent, app: Any) -> dict[str, Any]:
    route = sent.route
    if route.exchange:
        return {"exchange": route.exchange, "routing_key": route.routing_key}
    is_default = not sent.named and route.queue == str(app.conf.task_default_queue)
    return {} if is_default else {"queue": route.queue}


def unread_steps(app: Any) -> list[int]:
    """Return the priority steps of the daemon whose lists on Redis the app's workers do not take from."""
    options = _redis_options(app)
    steps = options.get("priority_steps") or PRIORITY_STEPS
    return [step for step in PRIORITY_STEPS if step not in steps or (step and _separates(options))]


def _redis_options(app: Any) -> Mapping[str, Any]:
    """The app's transport options, if its broker is a Redis."""
    options = app.conf.broker_transport_options or {}
    return options if options and is_redis(first_url(app.conf.broker_url or "")) else {}


def _separates(options: Mapping[str, Any]) -> bool:
    """True if names of keys have another separator than the daemon's."""
    return bool(options.get("sep", SEPARATOR) != SEPARATOR)


def _check_list(priority: Any, address: Mapping[str, Any], app: Any) -> None:
    """Raise ValueError if the app's workers do not take from the list on Redis to which the message goes."""
    if "exchange" in address and _separates(_redis_options(app)):
        raise ValueError("an exchange whose bindings have the separator sep of broker_transport_options: name a queue")
    unread = unread_steps(app)
    if not unread or not isinstance(priority or 0, int):
        return
    if max(step for step in PRIORITY_STEPS if step <= max(priority or 0, 0)) in unread:
        fit = [str(step) for step in PRIORITY_STEPS if step not in unread]
        raise ValueError(
            f"priority {priority or 0}: the app's workers do not take from its list on Redis, because of "
            f"priority_steps or sep in broker_transport_options; they take: {', '.join(fit) or 'none'}"
        )


def _set(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
