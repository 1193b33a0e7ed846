"""Envelopes: the one form in which messages travel inside the worker, and their redelivery mark and count of deaths."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from beatd.broker.amqp_codec import Content

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


DEATHS = "beatd-deaths"
"""The header that counts how often the message was in hands that died; 0 when it was only given back."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def mark_redelivered(raw: bytes) -> bytes:
    """The envelope with the mark; one that cannot be read is returned as it is, and buried by whoever takes it."""
    try:
        envelope = _decode(raw)
        envelope["headers"]["redelivered"] = True
        envelope["headers"].setdefault(DEATHS, 0)
        envelope["properties"]["delivery_info"]["redelivered"] = True
    except (msgspec.MsgspecError, KeyError, TypeError, RecursionError):
        return raw
    return _encode(envelope)


def count_death(raw: bytes) -> bytes:
    """The envelope of a message that was in the hands of a process or worker when that died."""
    try:
        envelope = _decode(raw)
        envelope["headers"][DEATHS] = int(envelope["headers"].get(DEATHS) or 0) + 1
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError):
        return raw
    return _encode(envelope)


def without_mark(raw: bytes) -> bytes:
    """The envelope without a mark, if it has one and can be read."""
    if b'"redelivered"' not in raw:
        return raw
    try:
        envelope = _decode(raw)
        envelope["headers"].pop("redelivered", None)
        envelope["properties"].get("delivery_info", {}).pop("redelivered", None)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, RecursionError):
        return raw
    return _encode(envelope)
