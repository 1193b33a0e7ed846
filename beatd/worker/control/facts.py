"""The shapes in which workers describe requests, queues, their broker and their settings: Celery's, field by field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from beatd import wire
from beatd.exceptions import MessageError
from beatd.message import open_envelope, safe_repr
from beatd.store.client import redacted
from beatd.worker.control.station import Station
from beatd.worker.request import Request

_MASK = "********"
_SECRET = re.compile("API|TOKEN|KEY|SECRET|PASS|SIGNATURE|DATABASE|CREDENTIAL", re.IGNORECASE)
_WITH_PASSWORD = re.compile(r"(\w[\w+.-]*://[^/@:\s;]*):[^@\s;]+@")


def request_info(station: Station, request: Request, *, tag: int | None = None, began: float | None = None) -> Any:
    """A request as ``inspect active`` and the like show it. ``began`` is when it did (seconds since the epoch)."""
    args, kwargs = _arguments(request)
    return {
        "id": request.id,
        "name": request.name,
        "args": args,
        "kwargs": kwargs,
        "type": request.headers.task,
        "hostname": station.hostname,
        "time_start": began,
        "acknowledged": request.acknowledged,
        "delivery_info": _delivery(request),
        "worker_pid": station.tools.pool.pid_of(tag) if tag is not None and began is not None else None,
    }


def _arguments(request: Request) -> tuple[list[Any], dict[str, Any]]:
    try:
        match wire.loads(open_envelope(request.delivery.raw).body):
            case [list() as args, dict() as kwargs, *_]:
                return json_safe(args), json_safe(kwargs)
    except MessageError:
        pass  # it will be buried when it is its turn
    return [], {}


def _delivery(request: Request) -> dict[str, Any]:
    try:
        message = open_envelope(request.delivery.raw)
    except MessageError:
        return {}
    info = message.properties.get("delivery_info") or {}
    return {
        "exchange": info.get("exchange") or "",
        "routing_key": info.get("routing_key") or request.delivery.queue,
        "priority": message.properties.get("priority"),
        "redelivered": bool(message.headers.get("redelivered")),
    }


def queue_info(name: str) -> dict[str, Any]:
    """A queue as ``inspect active_queues`` shows it: direct, durable, named like its exchange and its key."""
    exchange = {
        "name": name,
        "type": "direct",
        "arguments": None,
        "durable": True,
        "passive": False,
        "auto_delete": False,
        "delivery_mode": None,
        "no_declare": False,
    }
    nothing = ("queue_arguments", "binding_arguments", "consumer_arguments")
    limits = ("no_declare", "expires", "message_ttl", "max_length", "max_length_bytes", "max_priority")
    return {
        "name": name,
        "exchange": exchange,
        "routing_key": name,
        **dict.fromkeys(nothing),
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": False,
        "alias": None,
        "bindings": [],
        **dict.fromkeys(limits),
    }


def broker_info(url: str) -> dict[str, Any]:
    """The broker as ``inspect stats`` shows it: without its password."""
    parts = urlsplit(url.split(";", maxsplit=1)[0])
    transport = parts.scheme.removeprefix("py") or "redis"
    secure = transport in {"rediss", "amqps"}
    transport = transport.removesuffix("s") if secure else transport
    on_socket = transport in {"unix", "redis+socket"}
    named = parse_qs(parts.query)
    database = named.get("virtual_host") or named.get("db") or [""]
    return {
        "hostname": unquote(parts.path) if on_socket else parts.hostname or "localhost",
        "userid": parts.username or None,
        "virtual_host": (database[0] if on_socket else unquote(parts.path[1:])) or _FIRST.get(transport, "0"),
        "port": _port(parts) or _PORTS.get(transport),
        "insist": False,
        "ssl": secure,
        "transport": transport,
        "connect_timeout": 4,
        "transport_options": {},
        "login_method": "PLAIN" if transport.startswith("amqp") else None,
        "uri_prefix": None,
        "heartbeat": 0.0,
        "failover_strategy": "round-robin",
        "alternates": [],
        "credential_provider": None,
    }


_PORTS = {"redis": 6379, "amqp": 5672}
_FIRST = {"amqp": "/"}
"""The virtual host that is meant when a URL names none; on Redis a database."""


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        return None


def censored(settings: Mapping[Any, Any]) -> dict[str, Any]:
    """Settings fit to be shown: JSON values, what sounds like a secret masked, and no password in any URL."""
    return {str(name): _shown(str(name), value) for name, value in settings.items() if not str(name).startswith("__")}


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return censored(value)
    if _SECRET.search(name):
        return _MASK
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown("", each) for each in value]
    if isinstance(value, str):
        return _without_password(value)
    return value if value is None or isinstance(value, bool | int | float) else _without_password(safe_repr(value))


def _without_password(text: str) -> str:
    return _WITH_PASSWORD.sub(rf"\1:{_MASK}@", redacted(text) if "://" in text and " " not in text else text)


def json_safe(value: Any) -> Any:
    """The value, or its words if JSON cannot carry it."""
    try:
        wire.dumps(value)
    except MessageError:
        return safe_repr(value)
    return value
