"""Inspect replies for requests, queues, broker and settings, with Celery's fields."""

from __future__ import annotations

from typing import Any

from beatd.broker.bindings import Binding
from beatd.exceptions import MessageError
from beatd.message import json_codec
from beatd.message.protocol import open_envelope, safe_repr
from beatd.url_keyprefix import OPTION, global_keyprefix
from beatd.urls import BrokerUrl, RedisUrl, is_amqp, is_redis, scheme_of
from beatd.worker.control.panel import WorkerView
from beatd.worker.request import Request


def request_info(
    view: WorkerView, request: Request, *, tag: int | None = None, began: float | None = None, as_text: bool = False
) -> Any:
    """Describe a request as ``inspect active`` does. ``began``: its start (seconds since the epoch).

    ``as_text``: arguments as the text that their sender made for monitors.
    """
    headers = request.headers
    args, kwargs = (headers.argsrepr, headers.kwargsrepr) if as_text else _arguments(request)
    return {
        "id": request.id,
        "name": request.name,
        "args": args,
        "kwargs": kwargs,
        "type": request.headers.task,
        "hostname": view.hostname,
        "time_start": began,
        "acknowledged": request.acknowledged,
        "delivery_info": _delivery(request),
        "worker_pid": view.tools.pool.pid_of(tag) if tag is not None and began is not None else None,
    }


def _arguments(request: Request) -> tuple[list[Any], dict[str, Any]]:
    try:
        match json_codec.loads(open_envelope(request.delivery.raw).body):
            case [list() as args, dict() as kwargs, *_]:
                return json_safe(args), json_safe(kwargs)
    except MessageError:
        pass  # buried when its turn comes
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


def queue_info(bound: Binding) -> dict[str, Any]:
    """Describe a queue as ``inspect active_queues`` does."""
    exchange = {
        "name": bound.exchange,
        "type": bound.kind,
        "arguments": None,
        "durable": bound.durable,
        "passive": False,
        "auto_delete": False,
        "delivery_mode": None,
        "no_declare": False,
    }
    nothing = ("queue_arguments", "binding_arguments", "consumer_arguments")
    limits = ("no_declare", "expires", "message_ttl", "max_length", "max_length_bytes", "max_priority")
    return {
        "name": bound.queue,
        "exchange": exchange,
        "routing_key": bound.key,
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
    """Describe the broker as ``inspect stats`` does, without its password."""
    scheme = scheme_of(url)
    known = RedisUrl.parse(url) if is_redis(url) else BrokerUrl.parse(url) if is_amqp(url) else None
    transport = scheme.removeprefix("py") or "redis"
    secure = transport in {"rediss", "amqps"}
    transport = transport.removesuffix("s") if secure else transport
    host, port, virtual_host = _place(known)
    return {
        "hostname": host or "localhost",
        "userid": known.username if known else None,
        "virtual_host": virtual_host,
        "port": port or _PORTS.get(transport),
        "insist": False,
        "ssl": secure,
        "transport": transport,
        "connect_timeout": 4,
        "transport_options": {OPTION: prefix} if (prefix := global_keyprefix(url)) else {},
        "login_method": "PLAIN" if transport.startswith("amqp") else None,
        "uri_prefix": None,
        "heartbeat": 0.0,
        "failover_strategy": "round-robin",
        "alternates": [],
        "credential_provider": None,
    }


_PORTS = {"redis": 6379, "amqp": 5672}


def _place(url: RedisUrl | BrokerUrl | None) -> tuple[str | None, int | None, str]:
    """Return the host or socket, the port, and the database or virtual host."""
    match url:
        case BrokerUrl():
            return *url.hosts[0], url.virtual_host
        case RedisUrl():
            host, port = url.sentinels[0] if url.sentinels else (url.path or url.host, url.port)
            return host, port, str(url.database)
    return None, None, ""


def json_safe(value: Any) -> Any:
    """Return the value, or its repr if JSON cannot carry it."""
    try:
        json_codec.dumps(value)
    except MessageError:
        return safe_repr(value)
    return value
