"""HTTP server of ``/metrics``, ``/healthz`` and ``/readyz``, in a thread of its own.

A port that is taken is logged and tried again; the process works on without it. Connections are bounded in number and
in time; at the limit the one that has waited longest for a request makes room, so that nobody can use them up.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Protocol, cast

from beatd.clock import Backoff, monotonic, sleep
from beatd.listen_address import ListenAddress, listen, why_not
from beatd.metrics.families import CONTENT_TYPE
from beatd.redaction import encodable

log = logging.getLogger("beatd.metrics")

CONNECTIONS_MAX = 16
REQUEST_S = 10.0
"""Time for a request and its answer, after which the connection is closed."""
_RETRY_FIRST, _RETRY_LONGEST = 1.0, 30.0
"""Seconds between attempts to open a port that is taken."""
_POLL_S = 0.25


class Endpoint(Protocol):
    """The answers of a process about itself. Called from threads of the server; bounded in time."""

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""

    def unhealthy(self) -> Sequence[str]:
        """Return the reasons why the process should be restarted; none: it is healthy."""

    def unready(self) -> Sequence[str]:
        """Return the reasons why the process cannot do its work now; none: it is ready."""


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S
    server_version, sys_version = "beatd", ""

    def do_GET(self) -> None:
        server = cast(_Server, self.server)
        server.answers(self.connection)
        endpoint = server.endpoint
        try:
            match self.path.partition("?")[0]:
                case "/metrics":
                    self._answer(HTTPStatus.OK, endpoint.metrics(), CONTENT_TYPE)
                case "/healthz":
                    self._say(endpoint.unhealthy())
                case "/readyz":
                    self._say(endpoint.unready())
                case _:
                    self._answer(HTTPStatus.NOT_FOUND, b"there are /metrics, /healthz and /readyz\n")
        except OSError:
            raise  # of the connection
        except Exception:
            log.exception("Metrics or health could not be computed", extra={"event": "metrics_failed"})
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error; see the log of the process\n")

    do_HEAD = do_GET  # noqa: N815 - the name is the library's

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer a request that is not understood, in plain text."""
        self.close_connection = True
        self._answer(HTTPStatus(code), f"{message or HTTPStatus(code).phrase}\n".encode())

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""

    def _say(self, reasons: Sequence[str]) -> None:
        body = "".join(f"{' '.join(reason.split())}\n" for reason in reasons) or "ok\n"
        self._answer(HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK, encodable(body).encode())

    def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, endpoint: Endpoint) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.endpoint = endpoint
        self._open: dict[socket.socket, float] = {}
        self._answering: set[socket.socket] = set()
        """Those of which the request has arrived."""

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; one that cannot be accepted, for want of files, is tried again a little later."""
        try:
            return super().get_request()
        except OSError:
            sleep(_POLL_S)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Make room at the limit: who only connects must not keep probes out. Refuse it if all are being answered."""
        if len(self._open) >= CONNECTIONS_MAX:
            oldest = next((one for one in list(self._open) if one not in self._answering), None)
            if oldest is None:
                return False
            self._open.pop(oldest, None)
            _shut(oldest)
        self._open[request] = monotonic()
        return True

    def answers(self, request: socket.socket) -> None:
        """Take note that the request of a connection has arrived."""
        self._answering.add(request)

    def close_overdue(self) -> None:
        """End connections whose time is over: the threads that serve them then end, too."""
        for connection, since in list(self._open.items()):
            if monotonic() - since > REQUEST_S:
                _shut(connection)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._open.pop(request, None)
        self._answering.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of this process."""


def _shut(connection: socket.socket) -> None:
    """End a connection: its thread then ends, too."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class MetricsServer:
    """Serves an :class:`Endpoint` at an address until :meth:`stop`."""

    def __init__(self, address: ListenAddress, endpoint: Endpoint) -> None:
        self._address = address
        self._endpoint = endpoint
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Begin; never fails."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._stopping.set()
        self._thread.join(2 * _POLL_S)

    def _run(self) -> None:
        listener = self._listener()
        if listener is None:
            return
        with _Server(listener, self._endpoint) as server:
            server.timeout = _POLL_S
            address = ListenAddress(*listener.getsockname()[:2])
            log.info("Metrics and health at http://%s", address, extra={"event": "metrics_started"})
            while not self._stopping.is_set():
                server.handle_request()
                server.close_overdue()

    def _listener(self) -> socket.socket | None:
        """Open the port, again and again; None when stopped before."""
        backoff = Backoff(_RETRY_FIRST, _RETRY_LONGEST)
        while not self._stopping.is_set():
            try:
                return listen(*self._address)
            except (OSError, OverflowError) as error:
                pause = backoff.failed()
                if backoff.attempts == 1:
                    self._log_unavailable(error, pause)
                self._stopping.wait(pause)
        return None

    def _log_unavailable(self, error: OSError | OverflowError, pause: float) -> None:
        option = "--metrics-listen"
        reason = (
            why_not(error, *self._address, host_option=option, port_option=option)
            if isinstance(error, OSError)
            else str(error)
        )
        extra = {"event": "metrics_unavailable", "address": str(self._address), "reason": reason}
        log.error("No metrics and health checks: %s; trying again in %g s", reason, pause, extra=extra)
