"""From the keywords of ``apply_async`` to a message: times become absolute, options find their header or property."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from beatd.exceptions import MessageError
from beatd.message import TaskMessage, build

ACCEPTED_AND_UNUSED = frozenset(
    {
        "add_to_parent",
        "compression",
        "connection",
        "connection_errors",
        "declare",
        "delivery_mode",
        "mandatory",
        "producer",
        "publisher",
        "reply_to",
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


def new_id() -> str:
    """A fresh task id."""
    return str(uuid.uuid4())


def check_options(options: Options) -> None:
    """Refuse keywords that nobody would read, so that a misspelt ``contdown`` is not a task that runs at once."""
    if unknown := options.keys() - _OPTIONS - ACCEPTED_AND_UNUSED:
        raise TypeError(f"unknown options for a task message: {', '.join(sorted(unknown))}")
    if options.get("serializer") not in (None, "json"):
        raise MessageError(f"serializer {options['serializer']!r} is not supported: beatd's messages are JSON")


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
    return build(
        task,
        task_id,
        args,
        kwargs,
        embed={
            "callbacks": _signatures(options.get("link")),
            "errbacks": _signatures(options.get("link_error")),
            "chain": options.get("chain"),
            "chord": options.get("chord"),
        },
        headers=options.get("headers"),
        priority=options.get("priority"),
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
        shadow=options.get("shadow"),
        origin=origin(),
    )


def route_for(task: str, options: Options, conf: Mapping[str, Any]) -> Route:
    """Where a message goes: the caller's options, then ``task_routes``, then the default queue."""
    routed = {**_routed(task, conf["task_routes"]), **{name: value for name, value in options.items() if value}}
    queue = routed.get("queue")
    queue = getattr(queue, "name", queue)  # a kombu.Queue is as good as its name
    exchange, key = routed.get("exchange"), routed.get("routing_key")
    if queue is None and exchange and key:
        return Route(str(key), str(getattr(exchange, "name", exchange)), str(key))
    return Route(str(queue or conf["task_default_queue"]))


def _routed(task: str, routes: Any) -> dict[str, Any]:
    """The route of the first pattern that fits; routes are a mapping, pairs, a function, or a list of these."""
    for route in routes if isinstance(routes, list | tuple) else [routes]:
        if callable(route):
            found = route(task)
        else:
            pairs = route.items() if isinstance(route, Mapping) else [route] if route else []
            found = next((to for pattern, to in pairs if _matches(pattern, task)), None)
        if found:
            return {"queue": found} if isinstance(found, str) else dict(found)
    return {}


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
