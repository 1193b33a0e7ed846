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
