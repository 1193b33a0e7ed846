"""Bounds on connections: how many there are, how long a request may take to arrive, and an answer to be taken.

Without them whoever can connect keeps the page from everybody: with idle connections until no descriptor is
left, or with requests and answers that never end. At the limit the connection that has waited longest for a request
makes room for a new one, so that a flood of idle ones keeps nobody out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from beatd.clock import monotonic

log = logging.getLogger("beatd.web")

REQUEST_WITHIN_S = 10.0
"""Within this a request must have arrived, its headers and its body."""
TAKEN_WITHIN_S = 30.0
"""Time in which the peer must take more of an answer."""
KEEP_ALIVE_S = 5
"""How long a connection may be idle after an answer."""
HEADERS_MAX = 16 << 10
"""Bytes of a request's line and headers."""
_CONNECTIONS_MAX, _HANDSHAKES_MAX = 256, 64
_SHARE = 0.75
"""Share of the connections that one address may have: it cannot keep all others out."""
_LOG_EVERY_S = 60.0


def connections_max() -> int:
    """Return the limit of connections: files, the store and the threads need descriptors, too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else max(4, min(_CONNECTIONS_MAX, soft // 2))


class HandshakeListener(socket.socket):
    """A listening socket for TLS of which at most :attr:`limit` connections are in their handshake: each has a buffer
    of 256 KiB. Beyond, the oldest of them makes room."""

    limit = _HANDSHAKES_MAX

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self._handshakes: OrderedDict[int, socket.socket] = OrderedDict()

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection, with room for it."""
        accepted, address = super().accept()
        if len(self._handshakes) >= self.limit:
            _, oldest = self._handshakes.popitem(last=False)
            with contextlib.suppress(OSError):  # it has ended by itself
                oldest.shutdown(socket.SHUT_RDWR)
        self._handshakes[accepted.fileno()] = accepted
        self._handshakes.move_to_end(accepted.fileno())
        return accepted, address

    def has_met(self, descriptor: int) -> None:
        """Take note that a connection has ended its handshake."""
        self._handshakes.pop(descriptor, None)


class BoundedProtocol(H11Protocol):
    """One connection. It is closed when its request does not arrive or its answer is not taken in time, and to make
    room for another one while no request has arrived."""

    limit = _CONNECTIONS_MAX
    request_within, taken_within = REQUEST_WITHIN_S, TAKEN_WITHIN_S
    handshakes: HandshakeListener | None = None
    address = ""
    """The address of the peer."""
    _logged_at = -_LOG_EVERY_S
    _refused = 0
    _accepted = False
    _timer: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Take it, or close it."""
        if self.handshakes is not None:
            self.handshakes.has_met(transport.get_extra_info("socket").fileno())
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        others: list[Any] = list(self.connections)
        alike = [each for each in others if each.address == self.address]
        is_full, is_share = len(others) >= self.limit, len(alike) >= max(2, int(self.limit * _SHARE))
        if is_full or is_share:
            self._log_closed()
            if not self._make_room(alike if is_share else others):
                transport.abort()
                return
        self._accepted = True
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        if not self._accepted:
            return
        self._watch()
        if self.conn.their_state is h11.IDLE and _head_size(data) > HEADERS_MAX:  # h11 looks at incomplete ones only
            self.send_400_response("Request line and headers are too large.")
            return
        super().data_received(data)
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP. Where the answer has begun there can be no other: the connection is cut."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self._untake()
        if self._accepted:
            super().connection_lost(exc)

    def eof_received(self) -> None:
        """Nothing more will come."""

    def pause_writing(self) -> None:
        """The peer takes less than there is."""
        super().pause_writing()
        self._take()

    def resume_writing(self) -> None:
        """The peer has taken most of what there was."""
        super().resume_writing()
        if not self.cycle.response_complete:
            self._untake()

    def on_response_complete(self) -> None:
        """The rest of the answer is on its way."""
        super().on_response_complete()
        self._take()

    @property
    def waits_until(self) -> float | None:
        """The end of its time to send a request; None while one is answered."""
        timer = self._timer or self.timeout_keep_alive_task
        return None if timer is None or self.transport.get_write_buffer_size() else timer.when()

    def _make_room(self, others: Iterable[BoundedProtocol]) -> bool:
        """Close the one of these whose time to send a request ends first; False if all are being answered."""
        waiting = [(until, id(each), each) for each in others if (until := each.waits_until) is not None]
        if not waiting:
            return False
        _, _, oldest = min(waiting)
        oldest.transport.abort()
        self.connections.discard(oldest)
        return True

    def _watch(self) -> None:
        """Have the timer run for as long as a request is expected or on its way."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._unwatch()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.request_within, self._too_slow)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take(self) -> None:
        """Have the peer take what waits to be sent."""
        self._untake()
        if self.transport.get_write_buffer_size():
            self._taking = self.loop.call_later(self.taken_within, self._not_taken)

    def _not_taken(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closing it would wait for the peer

    def _untake(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _too_slow(self) -> None:
        self.transport.abort()

    def _log_closed(self) -> None:
        kind, now = type(self), monotonic()
        kind._refused += 1
        if now - kind._logged_at >= _LOG_EVERY_S:
            kind._logged_at = now
            log.warning(
                "Too many connections: the limit is %d; %d more came, and idle ones were closed for them",
                self.limit,
                kind._refused,
                extra={"event": "web_connections_refused", "limit": self.limit, "refused": kind._refused},
            )
            kind._refused = 0


def _head_size(data: bytes) -> int:
    """Return the number of bytes of a request's line and headers, as far as they are in ``data``."""
    end = data.find(b"\r\n\r\n")
    return len(data) if end < 0 else end
