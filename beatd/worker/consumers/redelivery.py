"""Marking a message as delivered before, as kombu does: ``headers.redelivered``."""

from __future__ import annotations

from typing import Any

import msgspec

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


def mark_redelivered(raw: bytes) -> bytes:
    """The envelope with the mark; one that cannot be read is returned as it is, and buried by whoever takes it."""
    try:
        envelope = _decode(raw)
        envelope["headers"]["redelivered"] = True
        envelope["properties"]["delivery_info"]["redelivered"] = True
    except (msgspec.MsgspecError, KeyError, TypeError, RecursionError):
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
