"""Routing: choose the queue or exchange of a message by call options, ``task_routes`` and the default queue."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from beatd.app.find_app import import_symbol
from beatd.app.message_options import Options
from beatd.broker.bindings import Binding
from beatd.exceptions import MessageError, QueueNotFound

DIRECT_EXCHANGE = "C.dq2"
"""Exchange of ``worker_direct``: the routing key is the worker's name."""


def direct_queue(worker: str) -> str:
    """Return the name of the queue that only this worker takes from, with ``worker_direct``."""
    return f"{worker}.dq2"


class Queues:
    """Queue declarations of ``task_queues``, ``task_queue_max_priority`` and ``task_default_queue_type``.

    ``task_queues`` is as in Celery: kombu's ``Queue`` objects, names, or a mapping of name to options.
    """

    def __init__(self, conf: Mapping[str, Any]) -> None:
        self._given = _given(conf.get("task_queues") or ())
        self._default_queue = str(conf.get("task_default_queue"))
        self._default_exchange = str(conf.get("task_default_exchange") or self._default_queue)
        self._default_kind = str(conf.get("task_default_exchange_type") or "direct")
        self._default_key = str(conf.get("task_default_routing_key") or self._default_queue)
        self._has_direct = bool(conf.get("worker_direct"))
        self._default: dict[str, Any] = {}
        if conf.get("task_default_queue_type"):
            self._default["x-queue-type"] = conf["task_default_queue_type"]
        self._missing: dict[str, Any] = {}
        if conf.get("task_create_missing_queue_type") == "quorum":
            self._missing["x-queue-type"] = "quorum"
        if (max_priority := conf.get("task_queue_max_priority")) is not None:
            self._default["x-max-priority"] = int(max_priority)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in ``task_queues``."""
        return tuple(self._given)

    def name_of(self, queue: str) -> str:
        """Return the name of a queue that is known by an alias, such as kombu's ``Broadcast``."""
        return next((name for name, given in self._given.items() if given.get("alias") == queue), queue)

    def bindings(self, worker: str | None = None) -> Iterator[Binding]:
        """Yield the bindings of ``task_queues``; a queue without an exchange of its own has the app's default one.

        With ``worker_direct``, also that of the queue of ``worker``.
        """
        for name, given in self._given.items():
            yield from self._bindings(name, given)
        if worker is not None and self._has_direct:
            yield Binding(direct_queue(worker), DIRECT_EXCHANGE, worker)

    def _bindings(self, name: str, given: Mapping[str, Any]) -> Iterator[Binding]:
        exchange: Any = given.get("exchange")
        kind = given.get("exchange_type") or "direct"
        key = given.get("routing_key") or given.get("binding_key")
        deletes = bool(given.get("auto_delete"))
        several = list(given.get("bindings") or ())
        for one in several:
            yield Binding(
                name, str(one.exchange.name), str(one.routing_key or ""), one.exchange.type, one.exchange.durable
            )
        if isinstance(exchange, str) and exchange:
            yield Binding(name, exchange, str(key or name), kind, auto_delete=deletes)
        elif exchange and exchange.name:
            key = key or ("" if exchange.type == "fanout" else self._default_key)
            yield Binding(name, str(exchange.name), str(key), exchange.type, exchange.durable, deletes)
        elif given and not several and (key or self._default_kind != "direct"):
            yield Binding(name, self._default_exchange, str(key or self._default_key), self._default_kind)

    def binding_of(self, queue: str, worker: str | None = None) -> Binding:
        """Return the first binding of a queue; of one without any, that to the exchange of its own name."""
        found = (one for one in self.bindings(worker) if one.queue == queue)
        return next(found, Binding(queue, queue, queue))

    def arguments(self, name: str) -> dict[str, Any]:
        """Return the declaration arguments of a queue. Quorum queues do not take ``x-max-priority``."""
        missing = self._missing if name not in self._given and name != self._default_queue else {}
        arguments = {**self._default, **missing, **_arguments(self._given.get(name, {}))}
        if arguments.get("x-queue-type") == "quorum":
            arguments.pop("x-max-priority", None)
        return arguments


def _given(queues: Any) -> dict[str, dict[str, Any]]:
    if isinstance(queues, Mapping):
        return {str(name): dict(options) for name, options in queues.items()}
    return {str(getattr(queue, "name", queue)): dict(getattr(queue, "__dict__", {})) for queue in queues}


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    arguments = dict(given.get("queue_arguments") or {})
    if (max_priority := given.get("max_priority")) is not None:
        arguments["x-max-priority"] = int(max_priority)
    return arguments


class Route(NamedTuple):
    """The destination of a message; see :class:`beatd.broker.Publisher`."""

    queue: str
    exchange: str = ""
    routing_key: str | None = None
    options: Mapping[str, Any] = {}
    """Further message options in ``task_routes``, such as a priority."""


def route_for(  # noqa: PLR0917 - Celery's arguments of a router
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Options, conf: Any, task: Any = None
) -> Route:
    """Return the route of a message: call options first, then ``task_routes``, then the default queue.

    Raises :class:`QueueNotFound` for a queue that is not in ``task_queues`` (default: the default queue) when
    ``task_create_missing_queues`` is off.
    """
    return destination(matching_route(name, args, kwargs, options, conf["task_routes"], task), options, conf)


def destination(routed: Options, options: Options, conf: Any) -> Route:
    """Return the route of a message by its call options and by ``routed``, what :func:`matching_route` found.

    An exchange with a routing key outweighs a queue, and a queue an exchange without one, as in Celery. Raises
    :class:`QueueNotFound` as :func:`route_for`.
    """
    address = {**routed, **{name: options[name] for name in _ADDRESS if options.get(name)}}
    more = {name: value for name, value in routed.items() if name not in _ADDRESS}
    queue, exchange, key = (
        _name(address.get("queue")),
        _name(address.get("exchange")),
        _name(address.get("routing_key")),
    )
    is_closed = not conf["task_create_missing_queues"] and not hasattr(address.get("queue"), "name")
    if conf["task_queues"]:
        declared = Queues(conf)
        if is_closed and (queue or not (exchange and key)):
            _check_declared(queue or conf["task_default_queue"], declared.names)
        wanted = declared.name_of(queue or str(conf["task_default_queue"]))
        return _by_bindings(wanted, exchange, key, tuple(declared.bindings()))._replace(options=more)
    if exchange and key:
        return Route(key, exchange, key, more)
    queue = queue or str(conf["task_default_queue"])
    if is_closed:
        _check_declared(queue, (str(conf["task_default_queue"]),))
    return Route(queue, options=more)


def _name(value: Any) -> str:
    """Return the name of a queue or an exchange of kombu's, or a text; empty for none."""
    return str(getattr(value, "name", value) or "")


def _check_declared(queue: str, known: Sequence[str]) -> None:
    if queue not in known:
        raise QueueNotFound(f"queue {queue!r} is not in task_queues: {', '.join(known)}")


def _by_bindings(wanted: str, exchange: str, key: str, bindings: Sequence[Binding]) -> Route:
    """Return the route that the bindings of ``task_queues`` give, as Celery has it.

    Where they lead to one queue, the message goes to that queue: so nothing is lost before its first worker starts.
    """
    own = next((one for one in bindings if one.queue == wanted), None)
    if exchange and key:
        place = exchange, key
    elif own is None or own.kind == "direct":
        return Route(wanted)
    else:
        place = own.exchange, key or own.key
    found = list(dict.fromkeys(one.queue for one in bindings if one.takes(*place)))
    return Route(found[0]) if len(found) == 1 else Route(place[1] or place[0], *place)


_ADDRESS = ("queue", "exchange", "routing_key")


def matching_route(  # noqa: PLR0917 - Celery's arguments of a router
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Options, routes: Any, task: Any = None
) -> dict[str, Any]:
    """Return the route of the first matching pattern; routes are a mapping, pairs, a function, or a list of these.

    A function, or an object's ``route_for_task``, is called as in Celery: ``(name, args, kwargs, options, task=task)``,
    with the task itself where it is registered, else None.
    """
    for route in _routers(routes):
        if callable(router := getattr(route, "route_for_task", route)):
            match = _call_router(router, name, (args, kwargs, dict(options)), task)
        else:
            match = _matching(route, name)
        if match is not None:
            return {"queue": match} if isinstance(match, str) else dict(match)
    return {}


def _routers(routes: Any) -> Iterator[Any]:
    """Yield functions, objects, and lists of (pattern, route) pairs; names are imported, nested lists are opened."""
    if isinstance(routes, str) and routes:
        yield _router(import_symbol(routes))
    elif isinstance(routes, Mapping):
        yield list(routes.items())
    elif isinstance(routes, tuple) and _is_pair(routes) and not _is_router(routes[0]):
        yield [routes]
    elif isinstance(routes, list | tuple):
        if routes and all(map(_is_pair, routes)):
            yield list(routes)
        else:
            for nested in routes:
                yield from _routers(nested)
    elif routes:
        yield routes


def _is_router(pattern: Any) -> bool:
    """True for the name of a router, ``module.attribute``; Celery has no pair of pattern and route outside of lists."""
    return isinstance(pattern, str) and "." in pattern and pattern.replace(".", "_").isidentifier()


def _is_pair(value: Any) -> bool:
    """True for ``(pattern, route)``."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and isinstance(value[0], str | re.Pattern)
        and isinstance(value[1], Mapping | str)
        and ":" not in str(value[0])  # the name of a router: "module:attribute"
    )


def _matching(pairs: Sequence[Any], task: str) -> Any:
    """Return the route of the exact name, else of the first pattern that matches."""
    exact = (to for pattern, to in pairs if pattern == task)
    return next(exact, next((to for pattern, to in pairs if _matches(pattern, task)), None))


def _router(found: Any) -> Any:
    """Return an instance of a class with ``route_for_task``; anything else as it is."""
    return found() if isinstance(found, type) and hasattr(found, "route_for_task") else found


def _call_router(router: Any, name: str, call: tuple[Any, Any, Any], task: Any) -> Any:
    """Call a router with Celery 5's arguments, with fewer as in older versions, or with the name only."""
    for given, more in ((call, {"task": task}), (call[:2], {}), ((), {})):
        try:
            inspect.signature(router).bind(name, *given, **more)
        except TypeError:
            continue
        return router(name, *given, **more)
    raise MessageError(f"the router {router!r} does not take (name, args, kwargs, options, task=None)")


def _matches(pattern: Any, task: str) -> bool:
    """True if the task fits a regular expression, or a text with ``*``: others are names, as in Celery."""
    return bool(pattern.match(task)) if hasattr(pattern, "match") else "*" in pattern and fnmatchcase(task, pattern)
