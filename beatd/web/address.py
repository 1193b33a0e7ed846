"""Listening address of the page: the socket, its URL, and why there is none. Needs nothing but Python."""

from __future__ import annotations

import errno
import socket
from importlib.util import find_spec

PORT = 8800
_NEEDED = ("starlette", "uvicorn", "jinja2")
_LOOPBACK = ("127.", "::1")


def missing_packages() -> list[str]:
    """Return the packages of the extra ``beatd[web]`` that are not installed."""
    return [name for name in _NEEDED if find_spec(name) is None]


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is one that is free. Raises OSError, see :func:`why_not`."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family, backlog=128)


def why_not(error: OSError, host: str, port: int, *, host_option: str = "--host", port_option: str = "--port") -> str:
    """Explain why the address cannot be used, and which option helps."""
    if isinstance(error, socket.gaierror):
        return f"{host} is not an address of this machine; choose another with {host_option}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} of {host} is taken; choose another with {port_option}"
        case errno.EACCES | errno.EPERM:
            return f"port {port} of {host} is not for ordinary users; choose one above 1023 with {port_option}"
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine; choose another with {host_option}"
    return f"cannot listen at {host}, port {port}: {error.strerror or error}"


def is_loopback(listener: socket.socket) -> bool:
    """True if only this machine can reach it."""
    return str(listener.getsockname()[0]).startswith(_LOOPBACK)


def url_of(listener: socket.socket) -> str:
    """The URL to open in a browser on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
