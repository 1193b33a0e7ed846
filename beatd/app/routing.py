"""Routing: the queue or exchange of a message, by the caller's options, ``task_routes``, and the default queue."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from beatd.app.find_app import import_symbol
from beatd.app.message_options import Options
from beatd.exceptions import MessageError


class Queues:
    """What ``task_queues``, ``task_queue_max_priority`` and ``task_default_queue_type`` say.

    ``task_queues`` is Celery's: kombu's ``Queue`` objects, names, or a table of name to options.
    """

    def __init__(self, conf: Mapping[str, Any]) -> None:
        self._given = _given(conf.get("task_queues") or ())
        self._default: dict[str, Any] = {}
        if conf.get("task_default_queue_type"):
            self._default["x-queue-type"] = conf["task_default_queue_type"]
        if (most := conf.get("task_queue_max_priority")) is not None:
            self._default["x-max-priority"] = int(most)

    @property
    def names(self) -> tuple[str, ...]:
        """Those of ``task_queues``."""
        return tuple(self._given)

    def arguments(self, name: str) -> dict[str, Any]:
        """What to make the queue of that name with. Quorum queues have two priorities of their own, and no others."""
        found = {**self._default, **self._given.get(name, {})}
        if found.get("x-queue-type") == "quorum":
            found.pop("x-max-priority", None)
        return found


def _given(queues: Any) -> dict[str, dict[str, Any]]:
    if isinstance(queues, Mapping):
        return {str(name): _arguments(options) for name, options in queues.items()}
    return {str(getattr(each, "name", each)): _arguments(each) for each in queues}


def _arguments(options: Any) -> dict[str, Any]:
    given = options if isinstance(options, Mapping) else getattr(options, "__dict__", {})
    found = dict(given.get("queue_arguments") or {})
    if (most := given.get("max_priority")) is not None:
        found["x-max-priority"] = int(most)
    return found


class Route(NamedTuple):
    """Where a message goes: see :class:`beatd.broker.Publisher`."""

    queue: str
    exchange: str = ""
    routing_key: str | None = None
    options: Mapping[str, Any] = {}
    """Further options that ``task_routes`` has for the message: a priority, for one."""


def route_for(task: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Options, conf: Any) -> Route:
    """Where a message goes: the caller's options, then ``task_routes``, then the default queue.

    Raises :class:`MessageError` for a queue that is not in ``task_queues`` when ``task_create_missing_queues`` is off.
    """
    found = _routed(task, args, kwargs, options, conf["task_routes"])
    routed = {**found, **{name: options[name] for name in _PLACE if options.get(name)}}
    more = {name: value for name, value in found.items() if name not in _PLACE}
    queue = routed.get("queue")
    queue = getattr(queue, "name", queue)  # a kombu.Queue is as good as its name
    exchange, key = routed.get("exchange"), routed.get("routing_key")
    if queue is None and exchange and key:
        return Route(str(key), str(getattr(exchange, "name", exchange)), str(key), more)
    queue = str(queue or conf["task_default_queue"])
    if not conf["task_create_missing_queues"] and queue not in (known := Queues(conf).names):
        raise MessageError(f"no queue {queue!r} in task_queues, there are: {', '.join(known) or 'none'}")
    return Route(queue, options=more)


_PLACE = ("queue", "exchange", "routing_key")


def _routed(task: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Options, routes: Any) -> dict[str, Any]:
    """The route of the first pattern that fits; routes are a mapping, pairs, a function, or a list of these.

    A function, or an object's ``route_for_task``, is called as in Celery: ``(name, args, kwargs, options, task=None)``.
    """
    for given in routes if isinstance(routes, list) or _is_pairs(routes) else [routes]:
        route = import_symbol(given) if isinstance(given, str) and given else given
        if callable(asked := getattr(route, "route_for_task", route)):
            found = _asked(asked, task, args, kwargs, options)
        else:
            pairs = route.items() if isinstance(route, Mapping) else [route] if route else []
            found = next((to for pattern, to in pairs if _matches(pattern, task)), None)
        if found:
            return {"queue": found} if isinstance(found, str) else dict(found)
    return {}


def _is_pairs(routes: Any) -> bool:
    return isinstance(routes, tuple) and not (len(routes) == 2 and isinstance(routes[0], str | re.Pattern))


def _asked(route: Any, task: str, args: Any, kwargs: Any, options: Any) -> Any:
    """Ask a router, which takes Celery 5's arguments, or fewer as in older versions, or only the name."""
    for given, more in (((args, kwargs, dict(options)), {"task": None}), ((args, kwargs), {}), ((), {})):
        try:
            inspect.signature(route).bind(task, *given, **more)
        except TypeError:
            continue
        return route(task, *given, **more)
    raise MessageError(f"the router {route!r} does not take (name, args, kwargs, options, task=None)")


def _matches(pattern: Any, task: str) -> bool:
    return bool(pattern.match(task)) if hasattr(pattern, "match") else fnmatchcase(task, pattern)
