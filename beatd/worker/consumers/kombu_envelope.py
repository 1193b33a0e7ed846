"""kombu's message as an envelope, the one form in which messages travel inside the worker."""

from __future__ import annotations

from typing import Any

from beatd.message import TaskMessage, envelope


def queue_of(message: Any) -> str:
    """Where it came from, as far as the transport says that."""
    return str((message.delivery_info or {}).get("routing_key") or "")


def envelope_of(message: Any) -> tuple[bytes, str]:
    """The envelope, and why it cannot be run if it cannot be read."""
    try:
        return _envelope(message), f"it cannot be unpacked: {message.errors[0]!r}" if message.errors else ""
    except Exception as error:  # noqa: BLE001 - transports decode what they get, and anything may come out
        return b"{}", f"it cannot be read: {error!r}"


def _envelope(message: Any) -> bytes:
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body or b"")
    headers = dict(message.headers or {})
    headers.pop("compression", None)  # kombu has unpacked it
    if (message.delivery_info or {}).get("redelivered"):
        headers["redelivered"] = True
    properties = {
        name: value
        for name in ("correlation_id", "reply_to", "priority")
        if (value := message.properties.get(name)) is not None
    }
    return envelope(
        TaskMessage(
            headers=headers,
            body=body,
            properties=properties,
            content_type=str(message.content_type),
            content_encoding=str(message.content_encoding),
        ),
        queue=queue_of(message),
        exchange=str((message.delivery_info or {}).get("exchange") or ""),
    )
