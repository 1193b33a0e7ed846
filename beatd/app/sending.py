"""From the keywords of ``apply_async`` to a message: times become absolute, options find their header or property."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from beatd.app.queues import Queues
from beatd.exceptions import MessageError
from beatd.message import TaskMessage, build

ACCEPTED_AND_UNUSED = frozenset(
    {
        "add_to_parent",
        "connection",
        "connection_errors",
        "declare",
        "delivery_mode",
        "exchange_type",
        "expiration",
        "mandatory",
        "producer",
        "publisher",
        "result_cls",
        "retry",
        "retry_policy",
        "route_name",
        "router",
        "timeout",
    }
)
"""Keywords of Celery's ``apply_async`` that steer its producer and mean nothing to beatd's."""

_OPTIONS = frozenset(
    {
        "chain",
        "chord",
        "correlation_id",
        "compression",
        "countdown",
        "eta",
        "exchange",
        "expires",
        "group_id",
        "group_index",
        "headers",
        "ignore_result",
        "link",
        "link_error",
        "parent_id",
        "priority",
        "queue",
        "replaced_task_nesting",
        "reply_to",
        "retries",
        "root_id",
        "routing_key",
        "serializer",
        "shadow",
        "soft_time_limit",
        "stamped_headers",
        "task_id",
        "task_type",
        "time_limit",
    }
)

Options = Mapping[str, Any]


class Route(NamedTuple):
    """Where a message goes: see :class:`beatd.broker.Publisher`."""

    queue: str
    exchange: str = ""
    routing_key: str | None = None
    options: Mapping[str, Any] = {}
    """Further options that ``task_routes`` has for the message: a priority, for one."""


def new_id() -> str:
    """A fresh task id: a UUID of version 4."""
    drawn = secrets.token_hex(16)
    variant = "89ab"[int(drawn[16], 16) & 3]
    return f"{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-{variant}{drawn[17:20]}-{drawn[20:]}"


def check_options(options: Options) -> None:
    """Refuse keywords that nobody would read, so that a misspelt ``contdown`` is not a task that runs at once."""
    stamped = options.get("stamped_headers") or ()
    if unknown := options.keys() - _OPTIONS - ACCEPTED_AND_UNUSED - set(stamped):
        raise TypeError(f"unknown options for a task message: {', '.join(sorted(unknown))}")
    if options.get("serializer") not in (None, "json"):
        raise MessageError(f"serializer {options['serializer']!r} is not supported: beatd's messages are JSON")
    hard, soft = options.get("time_limit"), options.get("soft_time_limit")
    if hard and soft and soft > hard:
        raise ValueError(f"soft_time_limit ({soft} s) must not be greater than time_limit ({hard} s)")


def message_for(
    task: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Options, *, now: datetime, timezone: str
) -> TaskMessage:
    """The message that ``options`` (keywords of ``apply_async``) describe. ``now`` is an aware datetime.

    Raises :class:`MessageError` for what JSON cannot carry and for times that cannot be read.
    """
    task_id = options.get("task_id") or new_id()
    countdown = options.get("countdown")
    eta = now + timedelta(seconds=countdown) if countdown else instant(options.get("eta"), now, timezone, "eta")
    expires = instant(options.get("expires"), now, timezone, "expires")
    left = None if expires is None else int((expires - now).total_seconds() * 1000)
    stamped = options.get("stamped_headers")
    return build(
        task,
        task_id,
        args,
        kwargs,
        embed={
            "callbacks": _signatures(options.get("link")),
            "errbacks": _signatures(options.get("link_error")),
            "chain": options.get("chain") or None,
            "chord": options.get("chord"),
        },
        headers=options.get("headers"),
        priority=options.get("priority"),
        reply_to=options.get("reply_to") or "",
        expiration_ms=left,
        eta=eta and eta.isoformat(),
        expires=expires and expires.isoformat(),
        retries=options.get("retries") or 0,
        timelimit=[options.get("time_limit"), options.get("soft_time_limit")],
        root_id=options.get("root_id") or task_id,
        parent_id=options.get("parent_id"),
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        ignore_result=options.get("ignore_result"),
        replaced_task_nesting=options.get("replaced_task_nesting") or 0,
        shadow=options.get("shadow"),
        stamped_headers=None if stamped is None else list(stamped),
        stamps={name: options.get(name) for name in stamped or ()},
        origin=origin(),
    )


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


def import_symbol(path: str) -> Any:
    """What ``"module:attribute"`` or ``"module.attribute"`` names."""
    module, _, name = path.replace(":", ".").rpartition(".")
    return getattr(importlib.import_module(module), name)


def _matches(pattern: Any, task: str) -> bool:
    return bool(pattern.match(task)) if hasattr(pattern, "match") else fnmatchcase(task, pattern)


def instant(value: Any, now: datetime, timezone: str, what: str) -> datetime | None:
    """A moment given as seconds from now, timedelta, datetime (naive: in ``timezone``) or ISO 8601 text."""
    match value:
        case None:
            return None
        case bool():
            pass
        case int() | float():
            return now + timedelta(seconds=value)
        case timedelta():
            return now + value
        case datetime():
            return value if value.tzinfo else value.replace(tzinfo=ZoneInfo(timezone))
        case str():
            try:
                return instant(datetime.fromisoformat(value), now, timezone, what)
            except ValueError:
                pass
    raise MessageError(f"{what}={value!r} is no moment: seconds, a timedelta, a datetime or ISO 8601 text")


def _signatures(value: Any) -> list[Any] | None:
    if value is None:
        return None
    return list(value) if isinstance(value, list | tuple) else [value]


def origin() -> str:
    """Who sends: ``gen<pid>@<host>``, as Celery calls processes without a name."""
    return f"gen{os.getpid()}@{_HOST}"


_HOST = socket.gethostname()


def utc_now(now_ms: int) -> datetime:
    """Milliseconds since the epoch as an aware datetime."""
    return datetime.fromtimestamp(now_ms / 1000, UTC)
