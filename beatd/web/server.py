"""Serving the page until told to stop."""

from __future__ import annotations

import logging
import signal
import socket
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from beatd.web.connections import HEADERS_MAX, KEEP_ALIVE_S, BoundedProtocol, connections_max

_QUEUE = 128
"""Connections that the kernel holds until they are accepted."""
PATIENCE_S = 1
"""How long answers under way may take when the end has come."""


class _Server(uvicorn.Server):
    """The kernel's queue stays long although asyncio is to accept few at once."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(_QUEUE)


def serve(app: Starlette, listener: socket.socket) -> None:
    """Answer until SIGTERM or SIGINT comes. To be called in the main thread."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # that it starts and stops is said in our own words
    BoundedProtocol.limit = connections_max()
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            http=BoundedProtocol,
            # asyncio accepts so many at once, before the first of them can be counted and closed
            backlog=max(2, BoundedProtocol.limit // 8),
            h11_max_incomplete_event_size=HEADERS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=PATIENCE_S,
        )
    )

    def stop(_: int, __: FrameType | None) -> None:
        """Also called once more by uvicorn at its end, for a signal that it took itself."""
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(sockets=[listener])
