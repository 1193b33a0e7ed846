"""Bounds on connections: how many there are, and how long a request may take to arrive.

Without them whoever can connect keeps the page from everybody: with idle connections until no descriptor is
left, or with requests that never end.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from beatd.clock import monotonic

log = logging.getLogger("beatd.web")

REQUEST_WITHIN_S = 10.0
"""Within this a request must have arrived, its headers and its body."""
KEEP_ALIVE_S = 5
"""How long a connection may be idle after an answer."""
HEADERS_MAX = 16 << 10
"""Bytes of a request's line and headers."""
_CONNECTIONS_MAX = 256
_SHARE = 0.75
"""Share of the connections that one address may have: it cannot keep all others out."""
_LOG_EVERY_S = 60.0


def connections_max() -> int:
    """Return the limit of connections: files, the store and the threads need descriptors, too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else max(4, min(_CONNECTIONS_MAX, soft // 2))


class BoundedProtocol(H11Protocol):
    """One connection. Beyond the limit it is closed at once; so is one whose request does not arrive in time."""

    limit = _CONNECTIONS_MAX
    request_within = REQUEST_WITHIN_S
    address = ""
    """The address of the peer."""
    _logged_at = -_LOG_EVERY_S
    _refused = 0
    _accepted = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Take it, or close it."""
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        alike = sum(getattr(each, "address", "") == self.address for each in self.connections)
        if len(self.connections) >= self.limit or alike >= max(2, int(self.limit * _SHARE)):
            transport.abort()
            self._log_refused()
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

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        if self._accepted:
            super().connection_lost(exc)

    def eof_received(self) -> None:
        """Nothing more will come."""

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

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()

    def _log_refused(self) -> None:
        kind, now = type(self), monotonic()
        kind._refused += 1
        if now - kind._logged_at >= _LOG_EVERY_S:
            kind._logged_at = now
            log.warning(
                "Too many connections: the limit is %d; %d were closed",
                self.limit,
                kind._refused,
                extra={"event": "web_connections_refused", "limit": self.limit, "refused": kind._refused},
            )
            kind._refused = 0


def _head_size(data: bytes) -> int:
    """Return the number of bytes of a request's line and headers, as far as they are in ``data``."""
    end = data.find(b"\r\n\r\n")
    return len(data) if end < 0 else end
