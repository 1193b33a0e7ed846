"""Connections to the page are bounded, by number and by time, also when descriptors are scarce."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time

import pytest

PROGRAM = """
import logging, resource, socket

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from beatd.web import connections
from beatd.web.server import serve

connections.BoundedProtocol.request_within = 1.0
logging.basicConfig()
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listener.getsockname()[1], flush=True)
serve(Starlette(routes=[Route("/", lambda _: PlainTextResponse("ok"))]), listener)
"""


@pytest.fixture
def page():
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
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
    assert time.monotonic() - began < 8


def test_a_request_that_is_too_large_is_refused(page):
    with connected(page) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)
        assert b" 200 " not in answer(connection)


def test_a_flood_of_connections_is_survived_with_a_short_log(page):
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connected(page))
        time.sleep(0.3)
    deadline = time.monotonic() + 10
    found = b""
    while b" 200 " not in found and time.monotonic() < deadline:
        with connected(page) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            found = answer(connection)
    assert b" 200 " in found
    page.terminate()
    log = page.communicate(timeout=10)[1]
    assert log.count("Too many connections") == 1
    assert len(log) < 2_000
