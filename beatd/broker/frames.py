"""A message as AMQP 0-9-1 puts it on the wire, in one piece.

py-amqp takes several times as long, and this is where a daemon that publishes thousands of messages a second spends
its time. Only what task messages need: basic.publish with its properties, and headers of JSON's types.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any

from beatd.broker.port import Parcel
from beatd.exceptions import MessageError
from beatd.message import TaskMessage

FRAME_OVERHEAD = 8
"""Bytes of a frame beside its payload."""

_METHOD = struct.pack(">HHH", 60, 40, 0)
"""basic.publish; the last is a reserved short."""
_MANDATORY = b"\x01"

_pack_header = struct.Struct(">HHQ").pack
_pack_octet = struct.Struct("B").pack
_pack_short = struct.Struct(">H").pack
_pack_frame = struct.Struct(">BHI").pack
_pack_long = struct.Struct(">I").pack
_pack_text = struct.Struct(">cI").pack
_pack_int = struct.Struct(">ci").pack
_pack_long_int = struct.Struct(">cq").pack
_pack_float = struct.Struct(">cd").pack


def publish(parcel: Parcel, channel: int, frame_max: int) -> bytes:
    """The frames of a mandatory ``basic.publish``.

    Raises :class:`~beatd.exceptions.MessageError` for what AMQP cannot carry: names of more than 255 bytes, integers of
    more than 64 bits.
    """
    message, to = parcel
    try:
        method = b"%b%b%b%b" % (_METHOD, _known(to.exchange), _known(to.key), _MANDATORY)
        header = _pack_header(60, 0, len(message.body)) + _properties(message)
    except (struct.error, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise MessageError(f"AMQP cannot carry it: {error}") from None
    if len(header) > frame_max - FRAME_OVERHEAD:
        raise MessageError(f"AMQP cannot carry it: {len(header)} bytes of headers, where {frame_max} fit in a frame")
    frames = [_frame(1, channel, method), _frame(2, channel, header)]
    step = frame_max - FRAME_OVERHEAD
    frames += (_frame(3, channel, message.body[at : at + step]) for at in range(0, len(message.body), step))
    return b"".join(frames)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"%b%b\xce" % (_pack_frame(kind, channel, len(payload)), payload)


def _properties(message: TaskMessage) -> bytes:
    """In the order of their flags. The correlation id is the task's, by which a message that comes back is known."""
    given = message.properties
    flags = 0x8000 | 0x4000 | 0x2000 | 0x0400
    parts = [b"", _known(message.content_type), _known(message.content_encoding), _table(message.headers)]
    if (delivery_mode := given.get("delivery_mode")) is not None:
        flags |= 0x1000
        parts.append(_pack_octet(delivery_mode))
    if (priority := given.get("priority")) is not None:
        flags |= 0x0800
        parts.append(_pack_octet(priority))
    parts.append(_short(message.id))
    if (reply_to := given.get("reply_to")) is not None:
        flags |= 0x0200
        parts.append(_known(reply_to))
    if (expiration := given.get("expiration")) is not None:
        flags |= 0x0100
        parts.append(_short(expiration))
    parts[0] = _pack_short(flags)
    return b"".join(parts)


def _short(text: str) -> bytes:
    encoded = text.encode()
    return _pack_octet(len(encoded)) + encoded


_known = functools.lru_cache(1_000)(_short)
"""For texts that are the same in most messages."""


def _table(fields: dict[str, Any]) -> bytes:
    encoded = b"".join([_known(name) + _WRITERS[type(value)](value) for name, value in fields.items()])
    return _pack_long(len(encoded)) + encoded


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _pack_text(b"S", len(encoded)) + encoded


def _integer(value: int) -> bytes:
    return _pack_int(b"I", value) if -(2**31) <= value < 2**31 else _pack_long_int(b"l", value)


def _array(value: list[Any]) -> bytes:
    encoded = b"".join([_WRITERS[type(each)](each) for each in value])
    return _pack_text(b"A", len(encoded)) + encoded


_WRITERS: dict[type, Callable[[Any], bytes]] = {
    str: _text,
    bool: lambda value: b"t\x01" if value else b"t\x00",
    int: _integer,
    float: lambda value: _pack_float(b"d", value),
    dict: lambda value: b"F" + _table(value),
    list: _array,
    tuple: _array,
    type(None): lambda _: b"V",
}
