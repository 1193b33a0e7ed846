"""The server of metrics and health: probes are answered whatever else connects."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import socket
import time
from collections.abc import Iterator

import pytest

from beatd.listen_address import ListenAddress, listen
from beatd.metrics import server
from beatd.metrics.server import CONNECTIONS_MAX, MetricsServer
from tests.conftest import wait_for


class Endpoint:
    """Answers at once."""

    def metrics(self) -> bytes:
        return b"m 1\n"

    def unhealthy(self) -> list[str]:
        return []

    def unready(self) -> list[str]:
        return ["caf\udce9.toml cannot be read"]


@pytest.fixture
def port(free_port) -> Iterator[int]:
    number = free_port()
    served = MetricsServer(ListenAddress("127.0.0.1", number), Endpoint())
    served.start()
    wait_for(lambda: answers(number), 10, "the server")
    yield number
    served.stop()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return ask(port, "/healthz") == 200
    return False


def ask(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


@pytest.mark.parametrize("begin", [b"", b"GET /metrics HTTP/1.1\r\nHost:"])
def test_connections_without_a_request_keep_no_probe_out(port: int, begin: bytes) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(2 * CONNECTIONS_MAX):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            idle.sendall(begin)
        assert [ask(port, path) for path in ("/healthz", "/readyz", "/metrics", "/x")] == [200, 503, 200, 404]


class Full(socket.socket):
    """A listener that can accept nothing, because the process has no file left."""

    def accept(self):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_process_without_files_does_not_spin() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        full = Full(listener.family, listener.type, listener.proto, fileno=listener.detach())
        with server._Server(full, Endpoint()) as served:
            began = time.monotonic()
            for _ in range(3):
                served.handle_request()
    assert time.monotonic() - began > 2 * server._POLL_S
