"""Serving the page until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette

from beatd.web.connections import (
    HEADERS_MAX,
    KEEP_ALIVE_S,
    REQUEST_WITHIN_S,
    BoundedProtocol,
    HandshakeListener,
    connections_max,
)
from beatd.web.tls import LOOK_S, Certificate

_QUEUE = 128
"""Connections that the kernel holds until they are accepted."""
_HANDSHAKES_AT_ONCE = 4
"""Connections with TLS that are accepted in one turn: their handshakes take several, and are to end before others."""
PATIENCE_S = 1
"""How long answers under way may take when the end has come."""


class _Server(uvicorn.Server):
    """The kernel's queue stays long although asyncio is to accept few at once; TLS has a context of ours."""

    tls: ssl.SSLContext | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        self.config.ssl = self.tls
        if self.tls is not None:
            loop: Any = asyncio.get_running_loop()
            loop.create_server = partial(loop.create_server, ssl_handshake_timeout=REQUEST_WITHIN_S)
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(_QUEUE)


def serve(app: Starlette, listener: socket.socket, *, tls: Certificate | None = None) -> None:
    """Answer until SIGTERM or SIGINT comes, with ``tls`` over HTTPS. To be called in the main thread."""
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # starts are said in our own words, bad requests in answers
    BoundedProtocol.limit = connections_max()
    if tls is not None:
        listener = BoundedProtocol.handshakes = HandshakeListener(listener)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="asyncio",  # whose connections are bounded as they are accepted
        ws="none",  # the page has no WebSocket, and one would be outside of the bounds
        server_header=False,
        proxy_headers=False,
        http=BoundedProtocol,
        # asyncio accepts so many at once, before the first of them can be counted and closed
        backlog=max(2, BoundedProtocol.limit // 8) if tls is None else _HANDSHAKES_AT_ONCE,
        h11_max_incomplete_event_size=HEADERS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=PATIENCE_S,
        timeout_notify=LOOK_S,
        callback_notify=None if tls is None else tls.look,
    )
    server = _Server(config)
    server.tls = None if tls is None else tls.context

    def stop(_: int, __: FrameType | None) -> None:
        """Also called once more by uvicorn at its end, for a signal that it took itself."""
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(sockets=[listener])
