"""Message options: the keywords of ``apply_async`` become a message; times become absolute."""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from beatd.exceptions import MessageError
from beatd.message import json_codec
from beatd.message.protocol import JSON, Encoder, TaskMessage, build, new_id

ACCEPTED_AND_UNUSED = frozenset(
    {
        "add_to_parent",
        "chord_size",
        "connection",
        "connection_errors",
        "declare",
        "delivery_mode",
        "exchange_type",
        "mandatory",
        "producer",
        "publisher",
        "router",
        "timeout",
    }
)
"""Keywords of Celery's ``apply_async`` for its producer, and an option that Celery 4 leaves in chords;
accepted for compatibility, without effect."""

_OPTIONS = frozenset(
    {
        "app_id",
        "argsrepr",
        "chain",
        "chord",
        "correlation_id",
        "compression",
        "countdown",
        "eta",
        "exchange",
        "expiration",
        "expires",
        "group_id",
        "group_index",
        "headers",
        "ignore_result",
        "kwargsrepr",
        "link",
        "link_error",
        "message_id",
        "origin",
        "parent_id",
        "priority",
        "queue",
        "replaced_task_nesting",
        "reply_to",
        "result_cls",
        "retries",
        "retry",
        "retry_policy",
        "root_id",
        "route_name",
        "routing_key",
        "serializer",
        "shadow",
        "soft_time_limit",
        "stamped_headers",
        "task_id",
        "task_type",
        "time_limit",
        "user_id",
    }
)
_KNOWN = _OPTIONS | ACCEPTED_AND_UNUSED
_PROPERTIES = ("app_id", "correlation_id", "message_id", "user_id")
"""Properties of AMQP that are passed on as they are."""

Options = Mapping[str, Any]


uuid = new_id
"""Celery's name."""


def check_options(options: Options) -> None:
    """Reject unknown keywords: a misspelt ``contdown`` must not become a task that runs at once."""
    stamped = options.get("stamped_headers") or ()
    if unknown := options.keys() - _KNOWN - set(stamped):
        raise TypeError(f"unknown options for a task message: {', '.join(sorted(unknown))}")
    hard, soft = options.get("time_limit"), options.get("soft_time_limit")
    if hard and soft and soft > hard:
        raise ValueError(f"soft_time_limit must be less than or equal to time_limit: {soft} s is more than {hard} s")


def arguments(task: str, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call; raises TypeError for a mapping or a text in place of positional ones."""
    if type(args) is not tuple and isinstance(args, str | bytes | Mapping):
        raise TypeError(f"{task}() takes positional arguments as a list or a tuple, not as {type(args).__name__}")
    return tuple(args or ()), dict(kwargs or {})


class Parameters:
    """The parameters of a function, and the shapes of arguments that it has accepted: their values do not matter."""

    SHAPES_MAX = 64

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = inspect.signature(function)
        self._accepted: set[tuple[Any, ...]] = set()
        """Numbers of positional arguments, each with the names of the others."""

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError if the function does not accept these arguments."""
        shape = len(args), *kwargs
        if shape not in self._accepted:
            self._signature.bind(*args, **kwargs)
            if len(self._accepted) < self.SHAPES_MAX:
                self._accepted.add(shape)


def message_for(
    task: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Options, *, now: datetime, timezone: str
) -> TaskMessage:
    """Build the message of ``options`` (keywords of ``apply_async``). ``now`` is an aware datetime.

    Raises :class:`MessageError` for values that the serializer cannot carry and for invalid times.
    """
    task_id = options.get("task_id") or new_id()
    countdown = options.get("countdown")
    eta = now + timedelta(seconds=countdown) if countdown else instant(options.get("eta"), now, timezone, "eta")
    expires = instant(options.get("expires"), now, timezone, "expires")
    left = options.get("expiration") if expires is None else (expires - now).total_seconds()
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
        expiration_ms=None if left is None else int(left * 1000),
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
        origin=options.get("origin") or origin(),
        encode=_encoder(options.get("serializer")),
        properties={name: str(options[name]) for name in _PROPERTIES if options.get(name) is not None},
        **{name: str(options[name]) for name in ("argsrepr", "kwargsrepr") if options.get(name) is not None},
    )


def _encoder(serializer: str | None) -> Encoder | None:
    """Return the encoder of kombu's serializer of that name; None for JSON."""
    if serializer in (None, "json", JSON):
        return None
    from beatd.broker.serialization import dumps  # noqa: PLC0415 - costs memory and time; few need it

    return lambda value: dumps(_plain(value), str(serializer))


def _plain(value: Any) -> Any:
    """Make plain containers of signatures: whoever reads a pickle need not have beatd."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def as_received(value: Any, serializer: str | None) -> Any:
    """Encode a value and decode it, for tasks that run in this process."""
    if (encode := _encoder(serializer)) is None:
        return json_codec.loads(json_codec.dumps(value))
    from beatd.broker.serialization import loads  # noqa: PLC0415 - see _encoder()

    content_type, encoding, body = encode(value)
    return loads(body, content_type, encoding)


def instant(value: Any, now: datetime, timezone: str, what: str) -> datetime | None:
    """Return the instant of seconds from now, a timedelta, a datetime (naive: in ``timezone``) or ISO 8601 text."""
    match value:
        case None:
            return None
        case bool():
            pass
        case int() | float():
            with suppress(ValueError, OverflowError):  # NaN, or beyond the end of time
                return now + timedelta(seconds=value)
        case timedelta():
            with suppress(OverflowError):
                return now + value
        case datetime():
            return value if value.tzinfo else value.replace(tzinfo=ZoneInfo(timezone))
        case str():
            try:
                return instant(datetime.fromisoformat(value), now, timezone, what)
            except ValueError:
                pass
    raise MessageError(f"{what}={value!r} is not a valid time: use seconds, a timedelta, a datetime or ISO 8601 text")


def _signatures(value: Any) -> list[Any] | None:
    if value is None:
        return None
    return list(value) if isinstance(value, list | tuple) else [value]


def origin() -> str:
    """Return the sender's name: ``gen<pid>@<host>``, Celery's name for processes that are not workers."""
    return f"gen{os.getpid()}@{_HOST}"


_HOST = socket.gethostname()


def utc_now(now_ms: int) -> datetime:
    """Convert milliseconds since the epoch to an aware datetime."""
    return datetime.fromtimestamp(now_ms / 1000, UTC)
