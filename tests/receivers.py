"""Receivers of notifications on this machine: an HTTP server that records, and misbehaves when its path says so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import msgspec


class Received(NamedTuple):
    """A request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return msgspec.json.decode(self.body)


class Receiver:
    """``/hang`` waits for the end; ``/status/N/…`` answers N; ``/to/N/PATH`` redirects by N, for a path
    that begins with ``elsewhere`` to ``location``; anything else is fine.

    ``answers`` are statuses for the next requests to other paths.
    """

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.requests: list[Received] = []
        self.answers: list[int] = []
        self.retry_after = ""
        self.location = ""
        self.over = threading.Event()

    def of(self, path: str) -> list[Received]:
        return [one for one in self.requests if one.path.partition("?")[0] == path]


@contextmanager
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            kept.requests.append(Received(self.command, self.path, dict(self.headers.items()), self.rfile.read(length)))
            status, location = self.answer()
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            if kept.retry_after:
                self.send_header("Retry-After", kept.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def answer(self) -> tuple[int, str]:
            match self.path.partition("?")[0].split("/"):
                case ["", "hang"]:
                    kept.over.wait(30)
                    return 200, ""
                case ["", "status", status, *_]:
                    return int(status), ""
                case ["", "to", status, *rest]:
                    return int(status), kept.location if rest[:1] == ["elsewhere"] else f"/{'/'.join(rest)}"
            return (kept.answers.pop(0) if kept.answers else 200), ""

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads, block_on_close = True, False

        def handle_error(self, *_: Any) -> None:
            """A client that has given up."""

    server = Server(("127.0.0.1", 0), Handler)
    kept = Receiver(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        kept.over.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
