"""The AMQP 0-9-1 codec: messages encoded for publishing, and deliveries decoded from the stream of bytes.

py-amqp takes several times as long, and a daemon that publishes, or a worker that consumes, thousands of messages a
second spends its time here. Only what task messages need: basic.publish and basic.deliver, properties, and headers.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from beatd.broker.publisher import OutgoingMessage
from beatd.exceptions import BrokerError, MessageError
from beatd.message.protocol import TaskMessage

HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_END = 0xCE
_MOST = 1 << 30
"""No frame is larger; a length beyond it is no length."""

_frame_at = struct.Struct(">BHI").unpack_from
_method_at = struct.Struct(">HH").unpack_from
_content_at = struct.Struct(">HHQH").unpack_from
_tag_at = struct.Struct(">QB").unpack_from
_long_at = struct.Struct(">I").unpack_from
_stamp_at = struct.Struct(">Q").unpack_from
_reply_at = struct.Struct(">H").unpack_from


class Content(NamedTuple):
    """A message as it was delivered."""

    consumer: str
    tag: int
    """The delivery tag, by which it is acknowledged on this channel."""
    redelivered: bool
    exchange: str
    key: str
    properties: dict[str, Any]
    """By AMQP's names; ``headers`` is one of them."""
    body: bytes
    fault: str = ""
    """What in its properties cannot be read; they are empty then."""


class Closed(NamedTuple):
    """The broker ends the channel, the connection, or a consumer whose queue is gone."""

    reason: str


class Stream:
    """Cuts what one channel gets out of a connection's bytes."""

    def __init__(self, already_read: bytes = b"") -> None:
        self._buffer = bytearray(already_read)
        self._deliver: tuple[str, int, bool, str, str] | None = None
        self._properties: dict[str, Any] = {}
        self._fault = ""
        self._size = 0
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Content | Closed]:
        """Return the frames that ``data`` completes; raises :class:`BrokerError` if this is not AMQP."""
        buffer = self._buffer
        buffer += data
        view, start, size = bytes(buffer), 0, len(buffer)
        try:
            while size - start >= 8:
                kind, _, length = _frame_at(view, start)
                end = start + 7 + length
                if length > _MOST or (end < size and view[end] != _END):
                    raise BrokerError("the broker sent something that is no AMQP")
                if end >= size:
                    break
                found = self._frame(kind, view, start + 7, end)
                start = end + 1
                if found is not None:
                    yield found
        finally:
            del buffer[:start]

    def _frame(self, kind: int, data: bytes, at: int, end: int) -> Content | Closed | None:
        if kind == 1:
            return self._method(data, at)
        if kind == 2:
            _, _, self._size, flags = _content_at(data, at)
            self._parts, self._fault = [], ""
            try:
                self._properties = _read_properties(data, at + 14, flags)
            except (ArithmeticError, LookupError, struct.error, ValueError, RecursionError) as error:
                self._properties, self._fault = {}, f"its properties cannot be read: {error}"
        elif kind == 3:
            self._parts.append(data[at:end])
            self._size -= end - at
        else:
            return None
        return self._whole() if self._size <= 0 else None

    def _whole(self) -> Content | None:
        if self._deliver is None:
            return None
        found = Content(*self._deliver, self._properties, b"".join(self._parts), self._fault)
        self._deliver = None
        self._parts = []
        return found

    def _method(self, data: bytes, at: int) -> Closed | None:
        method = _method_at(data, at)
        if method == (60, 60):
            consumer, at = _read_short(data, at + 4)
            tag, redelivered = _tag_at(data, at)
            exchange, at = _read_short(data, at + 9)
            key, _ = _read_short(data, at)
            self._deliver = (consumer, tag, bool(redelivered), exchange, key)
        elif method in ((10, 50), (20, 40)):
            (code,) = _reply_at(data, at + 4)
            return Closed(f"{code} {_read_short(data, at + 6)[0]}")
        elif method == (10, 51):
            return Closed("")
        elif method == (60, 30):
            return Closed(f"consumer {_read_short(data, at + 4)[0]} was cancelled, its queue is gone")
        return None


def _read_short(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    return data[at + 1 : end].decode("utf-8", "replace"), end


def _read_octet(data: bytes, at: int) -> tuple[int, int]:
    return data[at], at + 1


def _read_stamp(data: bytes, at: int) -> tuple[int, int]:
    return _stamp_at(data, at)[0], at + 8


def _read_table(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    end = at + 4 + _long_at(data, at)[0]
    at += 4
    found: dict[str, Any] = {}
    while at < end:
        after = at + 1 + data[at]
        name = data[at + 1 : after].decode("utf-8", "replace")
        kind = data[after]
        if kind == 83:  # S: most of all
            begin = after + 5
            at = begin + _long_at(data, after + 1)[0]
            found[name] = data[begin:at].decode("utf-8", "replace")
        elif kind == 86:  # V
            found[name] = None
            at = after + 1
        else:
            found[name], at = _READERS[kind](data, after + 1)
    _check_end(at, end)
    return found, end


def _read_array(data: bytes, at: int) -> tuple[list[Any], int]:
    end = at + 4 + _long_at(data, at)[0]
    at += 4
    found = []
    while at < end:
        value, at = _READERS[data[at]](data, at + 1)
        found.append(value)
    _check_end(at, end)
    return found, end


def _check_end(at: int, end: int) -> None:
    """Raise ValueError if what is in a table or an array goes on behind its end: it would be read again and again."""
    if at != end:
        raise ValueError("a table does not end where it says")


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    end = at + 4 + _long_at(data, at)[0]
    return data[at + 4 : end].decode("utf-8", "replace"), end


def _read_bytes(data: bytes, at: int) -> tuple[str, int]:
    value, end = _long_at(data, at)[0], at + 4
    return data[end : end + value].decode("latin-1"), end + value


def _read_number(form: str) -> Callable[[bytes, int], tuple[Any, int]]:
    reader = struct.Struct(form)

    def read(data: bytes, at: int) -> tuple[Any, int]:
        return reader.unpack_from(data, at)[0], at + reader.size

    return read


def _read_decimal(data: bytes, at: int) -> tuple[float, int]:
    (value,) = struct.unpack_from(">i", data, at + 1)
    return value / 10 ** data[at], at + 5


def _read_moment(data: bytes, at: int) -> tuple[str | int, int]:
    """Return a time as text; a number that is none, such as that of a time before 1970, unchanged."""
    seconds, end = _read_stamp(data, at)
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(), end
    except (ValueError, OverflowError, OSError):
        return seconds, end


_READERS: dict[int, Callable[[bytes, int], tuple[Any, int]]] = {
    ord("S"): _read_text,
    ord("V"): lambda _, at: (None, at),
    ord("t"): lambda data, at: (data[at] != 0, at + 1),
    ord("F"): _read_table,
    ord("A"): _read_array,
    ord("x"): _read_bytes,
    ord("T"): _read_moment,
    ord("D"): _read_decimal,
    **{
        ord(kind): _read_number(form)
        for kind, form in zip("bBsuIilLfd", (*"bB", ">h", ">H", ">i", ">I", ">q", ">q", ">f", ">d"), strict=True)
    },
}
"""By RabbitMQ's letters for the types of values in tables; each returns the value and where the next one begins."""

_FIELDS: tuple[tuple[int, str, Callable[[bytes, int], tuple[Any, int]]], ...] = (
    (0x8000, "content_type", _read_short),
    (0x4000, "content_encoding", _read_short),
    (0x2000, "headers", _read_table),
    (0x1000, "delivery_mode", _read_octet),
    (0x0800, "priority", _read_octet),
    (0x0400, "correlation_id", _read_short),
    (0x0200, "reply_to", _read_short),
    (0x0100, "expiration", _read_short),
    (0x0080, "message_id", _read_short),
    (0x0040, "timestamp", _read_stamp),
    (0x0020, "type", _read_short),
    (0x0010, "user_id", _read_short),
    (0x0008, "app_id", _read_short),
    (0x0004, "cluster_id", _read_short),
)


def _read_properties(data: bytes, at: int, flags: int) -> dict[str, Any]:
    found = {}
    for flag, name, read in _FIELDS:
        if flags & flag:
            found[name], at = read(data, at)
    return found


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


def publish(outgoing: OutgoingMessage, channel: int, frame_max: int) -> bytes:
    """The frames of a mandatory ``basic.publish``.

    Raises :class:`~beatd.exceptions.MessageError` for what AMQP cannot carry: names of more than 255 bytes, integers of
    more than 64 bits.
    """
    message, to = outgoing
    try:
        method = b"%b%b%b%b" % (_METHOD, _write_known(to.exchange), _write_known(to.key), _MANDATORY)
        header = _pack_header(60, 0, len(message.body)) + _write_properties(message)
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


def _write_properties(message: TaskMessage) -> bytes:
    """In the order of their flags. The correlation id is the task's, by which a message that comes back is known."""
    given = message.properties
    flags = 0x8000 | 0x4000 | 0x2000 | 0x0400
    parts = [
        b"",
        _write_known(message.content_type),
        _write_known(message.content_encoding),
        _write_table(message.headers),
    ]
    if (delivery_mode := given.get("delivery_mode")) is not None:
        flags |= 0x1000
        parts.append(_pack_octet(delivery_mode))
    if (priority := given.get("priority")) is not None:
        flags |= 0x0800
        parts.append(_pack_octet(priority))
    parts.append(_write_short(message.id))
    if (reply_to := given.get("reply_to")) is not None:
        flags |= 0x0200
        parts.append(_write_known(reply_to))
    if (expiration := given.get("expiration")) is not None:
        flags |= 0x0100
        parts.append(_write_short(expiration))
    for name, flag in _RARE.items():
        if (value := given.get(name)) is not None:
            flags |= flag
            parts.append(_write_short(str(value)))
    parts[0] = _pack_short(flags)
    return b"".join(parts)


_RARE = {"message_id": 0x0080, "user_id": 0x0010, "app_id": 0x0008}


def _write_short(text: str) -> bytes:
    encoded = text.encode()
    return _pack_octet(len(encoded)) + encoded


_write_known = functools.lru_cache(1_000)(_write_short)
"""For texts that are the same in most messages."""


def _write_table(fields: dict[str, Any]) -> bytes:
    encoded = b"".join([_write_known(name) + _WRITERS[type(value)](value) for name, value in fields.items()])
    return _pack_long(len(encoded)) + encoded


def _write_text(value: str) -> bytes:
    encoded = value.encode()
    return _pack_text(b"S", len(encoded)) + encoded


def _write_integer(value: int) -> bytes:
    return _pack_int(b"I", value) if -(2**31) <= value < 2**31 else _pack_long_int(b"l", value)


def _write_array(value: list[Any]) -> bytes:
    encoded = b"".join([_WRITERS[type(each)](each) for each in value])
    return _pack_text(b"A", len(encoded)) + encoded


_WRITERS: dict[type, Callable[[Any], bytes]] = {
    str: _write_text,
    bool: lambda value: b"t\x01" if value else b"t\x00",
    int: _write_integer,
    float: lambda value: _pack_float(b"d", value),
    dict: lambda value: b"F" + _write_table(value),
    list: _write_array,
    tuple: _write_array,
    type(None): lambda _: b"V",
}
