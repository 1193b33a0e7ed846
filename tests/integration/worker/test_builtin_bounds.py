"""The built-in tasks hold nothing longer than they say: no connection, no thread, no descriptor."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from beatd.worker.builtin.command import Output
from beatd.worker.builtin.http import HttpFailed, http

OPEN = Path("/proc/self/fd")
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def dripping():
    """``dripping(first)``: the place of a server that says this, and then a letter each 50 ms."""
    with contextlib.ExitStack() as stack:
        end = threading.Event()
        stack.callback(end.set)

        def serve(listener, first):
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(first)
                    while not end.wait(0.05):
                        connection.sendall(b"x")

        def start(first):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            threading.Thread(target=serve, args=(listener, first), daemon=True).start()
            return f"://127.0.0.1:{listener.getsockname()[1]}/"

        yield start


@pytest.mark.parametrize(
    ("scheme", "first"),
    [
        ("http", b""),
        ("http", OK + b"X: "),
        ("http", OK + b"Content-Length: 10000\r\n\r\n"),
        ("http", OK + b"\r\n"),
        ("https", b"\x16\x03\x03\x40\x00"),
    ],
)
def test_a_server_that_drips_is_left_in_time(dripping, scheme, first):
    began = time.monotonic()
    with pytest.raises(HttpFailed, match="failed"):
        http(scheme + dripping(first), timeout=0.5)
    assert time.monotonic() - began < 20


def test_a_resolver_that_hangs_is_left_in_time(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30) and [])
    began = time.monotonic()
    try:
        with pytest.raises(HttpFailed, match=r"GET http://slow\.example/ failed: timed out"):
            http("http://slow.example/", timeout=0.3)
    finally:
        over.set()
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".invalid"])
def test_a_host_without_an_address_is_named_as_the_reason(host):
    with pytest.raises(HttpFailed, match="failed: "):
        http(f"http://{host}/", timeout=5)


def test_a_child_in_the_background_holds_neither_thread_nor_descriptor():
    threads, files = threading.active_count(), len(list(OPEN.iterdir()))
    children = []
    try:
        for _ in range(20):
            shell = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!"], stdout=subprocess.PIPE)
            output = Output(shell.stdout, "sh", log=False, last_words_s=0.0)
            shell.wait()
            children.append(int(output.end()[0]))
        assert threading.active_count() <= threads
        assert len(list(OPEN.iterdir())) <= files
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
