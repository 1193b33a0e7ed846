"""Deadline for a whole HTTP request: looking up the host, connecting, TLS, sending, headers and body.

The timeout of a socket is for each single read: a server that sends a byte a second never exceeds it. So the connection
is shut down when the time is over, whatever it is doing.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import threading
import urllib.request
from typing import Any

from beatd.clock import monotonic


class Deadline:
    """``seconds`` for the block; see :attr:`expired` when something in it has failed."""

    def __init__(self, seconds: float) -> None:
        self._ends_at = monotonic() + seconds
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True
        self.expired = False

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def connect(self, address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        """A connection to one of the addresses of a name, in the time that is left. Raises OSError."""
        failure: OSError = OSError(f"{address[0]} has no address")
        for family, kind, protocol, _name, target in self._look_up(address):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(self._left())
                connection.connect(target)
                connection.settimeout(self._left())
                self._watch(connection)
            except OSError as error:
                connection.close()
                failure = error
            else:
                return connection
        raise failure

    def _look_up(self, address: tuple[str, int]) -> list[tuple[Any, ...]]:
        """Addresses of a host. The resolver has no timeout: one that hangs is left behind in a thread of its own."""
        answers: list[list[tuple[Any, ...]] | Exception] = []

        def ask() -> None:
            try:
                answers.append(socket.getaddrinfo(*address, type=socket.SOCK_STREAM))
            except (OSError, ValueError) as error:  # ValueError: a name that is none
                answers.append(error)

        thread = threading.Thread(target=ask, name="look-up", daemon=True)
        thread.start()
        thread.join(self._left())
        if not answers:
            raise TimeoutError(f"timed out: the address of {address[0]} could not be looked up")
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    def _left(self) -> float:
        if (left := self._ends_at - monotonic()) <= 0:
            raise TimeoutError("timed out")
        return left

    def _watch(self, connection: socket.socket) -> None:
        """Keep a descriptor of its own: TLS takes over the connection's."""
        with self._lock:
            if self.expired:
                raise TimeoutError("timed out")
            self._connections.append(connection.dup())

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class BoundedHandler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens http and https URLs with the connections of a deadline."""

    def __init__(self, deadline: Deadline) -> None:
        urllib.request.HTTPSHandler.__init__(self)
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._connection(http.client.HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._connection(http.client.HTTPSConnection), req)

    def _connection(self, kind: type[http.client.HTTPConnection]) -> Any:
        return functools.partial(_opened, kind, self._deadline)


def _opened(
    kind: type[http.client.HTTPConnection], deadline: Deadline, *given: Any, **options: Any
) -> http.client.HTTPConnection:
    connection = kind(*given, **options)
    connection._create_connection = deadline.connect  # type: ignore[attr-defined]
    return connection
