"""Envelopes: the form of messages inside the worker, with their redelivery mark and death count."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from beatd.broker.amqp_codec import Content
from beatd.message import json_codec
from beatd.message.protocol import DEATHS

_encode = msgspec.json.Encoder().encode
_KEPT = ("correlation_id", "reply_to", "priority", "delivery_mode")


def envelope_of(content: Content, queue: str) -> tuple[bytes, str]:
    """Return the envelope, and the reason if it cannot be run.

    Every delivery of a message gives the same text.
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


_DECODER = msgspec.json.Decoder(dict[str, Any])


def mark_redelivered(raw: bytes) -> bytes:
    """Mark an envelope as redelivered; an unreadable one is returned unchanged, and buried by its next consumer."""
    try:
        envelope = json_codec.decode_as(_DECODER, raw)
        envelope["headers"]["redelivered"] = True
        envelope["headers"].setdefault(DEATHS, 0)
        envelope["properties"]["delivery_info"]["redelivered"] = True
    except (ValueError, KeyError, TypeError, RecursionError):
        return raw
    return json_codec.dumps_plain(envelope)


RECEIVED = "beatd-received"
"""Header of a parked message: it was logged and announced to monitors when it came in."""


def mark_received(raw: bytes) -> bytes:
    """Mark the envelope of a message that a worker has read, and parks."""
    try:
        envelope = json_codec.decode_as(_DECODER, raw)
        envelope["headers"][RECEIVED] = True
    except (ValueError, KeyError, TypeError, RecursionError):
        return raw
    return json_codec.dumps_plain(envelope)


def count_death(raw: bytes) -> bytes:
    """Add one to the death count of an envelope."""
    try:
        envelope = json_codec.decode_as(_DECODER, raw)
        envelope["headers"][DEATHS] = int(envelope["headers"].get(DEATHS) or 0) + 1
    except (ValueError, KeyError, TypeError, RecursionError):
        return raw
    return json_codec.dumps_plain(envelope)
