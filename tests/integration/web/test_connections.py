"""Connections to the page are bounded, by number and by time, also when descriptors are scarce."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import wait_for

PROGRAM = """
import logging, resource, socket, sys

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from beatd.web import connections
from beatd.web.server import serve

connections.BoundedProtocol.request_within = float(sys.argv[1])
connections.BoundedProtocol.taken_within = 1.0
logging.basicConfig()
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listener.getsockname()[1], flush=True)
large = "x" * 20_000_000
routes = [Route("/", lambda _: PlainTextResponse("ok")), Route("/large", lambda _: PlainTextResponse(large))]
serve(Starlette(routes=routes), listener)
"""


@pytest.fixture
def page(request):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(getattr(request, "param", 1.0))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.port = int(process.stdout.readline())
    yield process
    if process.poll() is None:
        process.terminate()
        process.communicate(timeout=10)


def connected(page):
    return socket.create_connection(("127.0.0.1", page.port), timeout=10)


def answer(connection):
    """All that comes until the server closes the connection."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            found += data
    return found


@pytest.mark.parametrize(
    "begin",
    [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx"],
)
def test_a_request_that_does_not_arrive_is_not_waited_for(page, begin):
    began = time.monotonic()
    with connected(page) as connection:
        connection.sendall(begin)
        answer(connection)
    assert time.monotonic() - began < 10, "which is the timeout of reading here"


def test_a_request_that_is_too_large_is_refused(page):
    with connected(page) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)
        assert b" 200 " not in answer(connection)


def test_a_flood_of_connections_is_survived_with_a_short_log(page):
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connected(page))
        log = page.stderr.readline()
    deadline = time.monotonic() + 10
    found = b""
    while b" 200 " not in found and time.monotonic() < deadline:
        with connected(page) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            found = answer(connection)
    assert b" 200 " in found
    page.terminate()
    log += page.communicate(timeout=10)[1]
    assert log.count("Too many connections") == 1
    assert len(log) < 2_000


@pytest.mark.parametrize("page", [300.0], indirect=True)
def test_a_connection_without_a_request_makes_room_for_another(page):
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(page)) for _ in range(100)]
        for _ in range(3):
            with connected(page) as visitor:
                visitor.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert b" 200 " in answer(visitor)
        assert answer(idle[0]) == b"", "the oldest was closed"
        idle[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b" 200 " in answer(idle[-1]), "the newest is still there"


def test_an_answer_that_is_not_taken_is_not_waited_for(page):
    files = Path(f"/proc/{page.pid}/fd")
    with connected(page) as first:
        first.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer(first)
    before = len(list(files.iterdir()))
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", page.port))
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1)
        wait_for(lambda: len(list(files.iterdir())) == before, 30, "its end while nothing more is read")
        assert len(answer(connection)) < 20_000_000


def test_what_is_no_http_after_the_answer_leaves_no_lines_in_the_log(page):
    with connected(page) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert b" 405 " in connection.recv(65536)
        connection.sendall(b"no size of a chunk\r\n")
        answer(connection)
    with connected(page) as connection:
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + upgrade + b"\r\n")
        assert b" 200 " in connection.recv(65536), "it is answered like any other request"
    page.terminate()
    assert page.communicate(timeout=10)[1] == ""
