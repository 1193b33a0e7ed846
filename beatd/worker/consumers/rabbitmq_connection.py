"""Consumer connection to RabbitMQ: opened by kombu and py-amqp, then read and written here without blocking."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import kombu as _kombu
from amqp.exceptions import AMQPError
from kombu.exceptions import KombuError

from beatd.broker import Arguments
from beatd.broker.amqp_codec import HEARTBEAT, Closed, Content, Stream
from beatd.broker.amqp_queues import ensure_queue
from beatd.broker.rights import explained
from beatd.clock import monotonic
from beatd.exceptions import BrokerError
from beatd.urls import BrokerUrl

kombu: Any = _kombu  # only half of it is typed

_CONNECT_S = 4.0
_SILENCE_S = 60.0
"""Heartbeat interval in seconds: the broker sends one in half of it, and is lost after twice this time."""
_BEAT_S = 10.0
_CHUNK = 1 << 18
_GOODBYE_S = 2.0

_frame = struct.Struct(">BHI").pack
_ack = struct.Struct(">HHQB").pack
_qos = struct.Struct(">HHIHB").pack
_end = b"\xce"


class ConsumerConnection:
    """A channel on its own connection. A method that raises :class:`BrokerError` ends its use."""

    def __init__(
        self, url: str, queues: Sequence[str], arguments: Arguments, declare: Callable[[Any], None] | None = None
    ) -> None:
        """Connect to the first host that answers, and declare missing queues; ``declare`` does so before."""
        parsed = BrokerUrl.parse(url)
        self._place = parsed.shown
        self._lock = threading.Lock()
        self._out = bytearray()
        self._names: dict[str, str] = {}
        """By consumer: the queue."""
        self._former: dict[str, str] = {}
        """Cancelled consumers, whose last messages may still arrive."""
        self._number = 0
        try:
            self._kombu = kombu.Connection(
                parsed.bare, **{"connect_timeout": _CONNECT_S, **parsed.options, "heartbeat": _SILENCE_S}
            )
            self._kombu.ensure_connection(
                max_retries=parsed.bare.count(";"),
                interval_start=0,
                reraise_as_library_errors=False,
                timeout=_CONNECT_S * 4,
            )
            if declare is not None:
                declare(self._kombu)
            connection = self._kombu.connection
            for name in queues:
                ensure_queue(connection, name, priority=0, arguments=arguments(name))
            self._channel = connection.channel().channel_id
            transport = connection.transport
            self._socket: Any = transport.sock
            self._stream = Stream(bytes(getattr(transport, "_read_buffer", b"")))
            self._socket.setblocking(False)
        except (AMQPError, KombuError, OSError) as error:
            raise BrokerError(f"broker {self._place}: {explained(error)}") from error
        self._heard = self._spoke = monotonic()

    @property
    def file(self) -> int:
        return int(self._socket.fileno())

    def consume(self, queues: Sequence[str], prefetch: int) -> None:
        """Consume ``queues``, perhaps none, with a new ``prefetch``; replaces the consumers before."""
        former = list(self._names)
        self._former, self._names = self._names or self._former, {}
        self._method(_qos(60, 10, 0, prefetch, 0))
        for queue in queues:
            self._number += 1
            name = f"{self._number}"
            self._names[name] = queue
            # no-local, no-ack, exclusive: off; no-wait: on
            words = b"\0\0" + _short(queue) + _short(name) + b"\x08" + b"\0\0\0\0"
            self._method(struct.pack(">HH", 60, 20) + words)
        for name in former:
            self._method(struct.pack(">HH", 60, 30) + _short(name) + b"\x01")
        self.flush()

    def queue_of(self, content: Content) -> str:
        return self._names.get(content.consumer) or self._former.get(content.consumer) or content.key

    def read(self) -> Iterator[Content]:
        """Return the deliveries since the last call."""
        while data := self._receive():
            self._heard = monotonic()
            for found in self._stream.feed(data):
                if isinstance(found, Closed):
                    raise BrokerError(f"broker {self._place}: {found.reason or 'the connection was closed'}")
                yield found
        if monotonic() - self._heard > 2 * _SILENCE_S:
            raise BrokerError(f"broker {self._place}: not a sound for {2 * _SILENCE_S:.0f} s")

    def ack(self, tag: int, *, multiple: bool) -> None:
        """Acknowledge a delivery; with ``multiple`` all before it, too."""
        self._method(_ack(60, 80, tag, multiple))

    def give_back(self, tag: int) -> None:
        self._method(_ack(60, 120, tag, 2))

    def reject(self, tag: int) -> None:
        """Reject a delivery: it goes to the dead-letter exchange of its queue, if there is one."""
        self._method(_ack(60, 120, tag, 0))

    def beat(self) -> None:
        """Send a heartbeat if it is due. May be called from another thread."""
        if monotonic() - self._spoke > _BEAT_S:
            with self._lock:
                self._out += HEARTBEAT
            self.flush()

    def flush(self) -> None:
        """Write buffered frames; the rest follows with the next call."""
        with self._lock:
            try:
                while self._out:
                    del self._out[: self._socket.send(self._out)]
                    self._spoke = monotonic()
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            except OSError as error:
                raise BrokerError(f"broker {self._place}: {error}") from error

    def close(self) -> None:
        """Close the connection and wait for the answer: then the last acknowledgements have arrived."""
        with contextlib.suppress(BrokerError, OSError):
            self._method(struct.pack(">HHH", 10, 50, 200) + _short("goodbye") + b"\0\0\0\0", channel=0)
            self._socket.settimeout(_GOODBYE_S)
            with self._lock:
                self._socket.sendall(self._out)
            deadline = monotonic() + _GOODBYE_S
            while monotonic() < deadline and (data := self._socket.recv(_CHUNK)):
                if any(isinstance(found, Closed) for found in self._stream.feed(data)):
                    break
        self.drop()

    def drop(self) -> None:
        """Drop the connection without closing it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # processes that were forked meanwhile have it open, too
            self._socket.close()
        with contextlib.suppress(Exception):
            self._kombu.collect()

    def _receive(self) -> bytes:
        try:
            data: bytes = self._socket.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except OSError as error:
            raise BrokerError(f"broker {self._place}: {error}") from error
        if not data:
            raise BrokerError(f"broker {self._place}: the connection is gone")
        return data

    def _method(self, payload: bytes, channel: int | None = None) -> None:
        number = self._channel if channel is None else channel
        with self._lock:
            self._out += _frame(1, number, len(payload)) + payload + _end


def _short(text: str) -> bytes:
    encoded = text.encode()[:255]
    return bytes((len(encoded),)) + encoded
