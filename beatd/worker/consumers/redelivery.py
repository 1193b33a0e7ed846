"""Marking a message as delivered before, as kombu does: ``headers.redelivered``."""

from __future__ import annotations

from typing import Any

import msgspec

DEATHS = "beatd-deaths"
"""The header that counts how often the message was in hands that died; 0 when it was only given back."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


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


def with_a_death(raw: bytes) -> bytes:
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
