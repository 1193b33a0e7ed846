"""What RabbitMQ sends to a consumer, cut out of the stream of bytes: as much of AMQP 0-9-1 as that needs.

py-amqp takes several times as long, and this is where a worker on RabbitMQ spends its time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from beatd.exceptions import BrokerError

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
        """What is complete with ``data``; raises :class:`BrokerError` if this is not AMQP."""
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
                self._properties = _properties(data, at + 14, flags)
            except (UnicodeDecodeError, LookupError, struct.error, ValueError, RecursionError) as error:
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
            consumer, at = _short(data, at + 4)
            tag, redelivered = _tag_at(data, at)
            exchange, at = _short(data, at + 9)
            key, _ = _short(data, at)
            self._deliver = (consumer, tag, bool(redelivered), exchange, key)
        elif method in ((10, 50), (20, 40)):
            (code,) = _reply_at(data, at + 4)
            return Closed(f"{code} {_short(data, at + 6)[0]}")
        elif method == (10, 51):
            return Closed("")
        elif method == (60, 30):
            return Closed(f"consumer {_short(data, at + 4)[0]} was cancelled, its queue is gone")
        return None


def _short(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    return data[at + 1 : end].decode("utf-8", "replace"), end


def _octet(data: bytes, at: int) -> tuple[int, int]:
    return data[at], at + 1


def _stamp(data: bytes, at: int) -> tuple[int, int]:
    return _stamp_at(data, at)[0], at + 8


def _table(data: bytes, at: int) -> tuple[dict[str, Any], int]:
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
    return found, end


def _array(data: bytes, at: int) -> tuple[list[Any], int]:
    end = at + 4 + _long_at(data, at)[0]
    at += 4
    found = []
    while at < end:
        value, at = _READERS[data[at]](data, at + 1)
        found.append(value)
    return found, end


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = at + 4 + _long_at(data, at)[0]
    return data[at + 4 : end].decode("utf-8", "replace"), end


def _bytes(data: bytes, at: int) -> tuple[str, int]:
    value, end = _long_at(data, at)[0], at + 4
    return data[end : end + value].decode("latin-1"), end + value


def _number(form: str) -> Callable[[bytes, int], tuple[Any, int]]:
    reader = struct.Struct(form)

    def read(data: bytes, at: int) -> tuple[Any, int]:
        return reader.unpack_from(data, at)[0], at + reader.size

    return read


def _decimal(data: bytes, at: int) -> tuple[float, int]:
    (value,) = struct.unpack_from(">i", data, at + 1)
    return value / 10 ** data[at], at + 5


def _moment(data: bytes, at: int) -> tuple[str, int]:
    seconds, end = _stamp(data, at)
    return datetime.fromtimestamp(seconds, UTC).isoformat(), end


_READERS: dict[int, Callable[[bytes, int], tuple[Any, int]]] = {
    ord("S"): _text,
    ord("V"): lambda _, at: (None, at),
    ord("t"): lambda data, at: (data[at] != 0, at + 1),
    ord("F"): _table,
    ord("A"): _array,
    ord("x"): _bytes,
    ord("T"): _moment,
    ord("D"): _decimal,
    **{
        ord(kind): _number(form)
        for kind, form in zip("bBsuIilLfd", (*"bB", ">h", ">H", ">i", ">I", ">q", ">q", ">f", ">d"), strict=True)
    },
}
"""By RabbitMQ's letters for the types of values in tables; each returns the value and where the next one begins."""

_FIELDS: tuple[tuple[int, str, Callable[[bytes, int], tuple[Any, int]]], ...] = (
    (0x8000, "content_type", _short),
    (0x4000, "content_encoding", _short),
    (0x2000, "headers", _table),
    (0x1000, "delivery_mode", _octet),
    (0x0800, "priority", _octet),
    (0x0400, "correlation_id", _short),
    (0x0200, "reply_to", _short),
    (0x0100, "expiration", _short),
    (0x0080, "message_id", _short),
    (0x0040, "timestamp", _stamp),
    (0x0020, "type", _short),
    (0x0010, "user_id", _short),
    (0x0008, "app_id", _short),
    (0x0004, "cluster_id", _short),
)


def _properties(data: bytes, at: int, flags: int) -> dict[str, Any]:
    found = {}
    for flag, name, read in _FIELDS:
        if flags & flag:
            found[name], at = read(data, at)
    return found
