"""A message of RabbitMQ as an envelope, the one form in which messages travel inside the worker."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from beatd.broker.deliveries import Content

_encode = msgspec.json.Encoder().encode
_KEPT = ("correlation_id", "reply_to", "priority", "delivery_mode")


def envelope_of(content: Content, queue: str) -> tuple[bytes, str]:
    """The envelope, and why it cannot be run if that is known already.

    The same message gives the same text, whenever and however often it is delivered.
    """
    given, fault = content.properties, content.fault
    headers = given.get("headers") or {}
    if content.redelivered:
        headers["redelivered"] = True
    properties: dict[str, Any] = {name: given[name] for name in _KEPT if name in given}
    properties["delivery_info"] = {"exchange": content.exchange, "routing_key": content.key or queue}
    properties["body_encoding"] = "base64"
    properties["delivery_tag"] = str(headers.get("id") or given.get("message_id") or "")
    envelope = {
        "body": base64.b64encode(content.body).decode("ascii"),
        "content-encoding": given.get("content_encoding") or "utf-8",
        "content-type": given.get("content_type") or "",
        "headers": headers,
        "properties": properties,
    }
    try:
        return _encode(envelope), fault
    except (ValueError, RecursionError) as error:
        return _encode({**envelope, "headers": {}}), f"its headers cannot be read: {error}"
