"""Listening address of the page: its socket and its URL. Needs nothing but Python."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from ipaddress import IPv6Address, ip_address

from beatd.listen_address import listen, why_not

__all__ = ["PORT", "is_loopback", "is_loopback_address", "listen", "missing_packages", "url_of", "why_not"]

PORT = 8800
_NEEDED = ("starlette", "uvicorn", "jinja2")


def missing_packages() -> list[str]:
    """Return the packages of the extra ``beatd[web]`` that are not installed."""
    return [name for name in _NEEDED if find_spec(name) is None]


def is_loopback(listener: socket.socket) -> bool:
    """True if only this machine can reach it."""
    return is_loopback_address(listener.getsockname()[0])


def is_loopback_address(text: str) -> bool:
    """True for an address of this machine that no other can reach, as ``getsockname`` gives it."""
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def url_of(listener: socket.socket, *, secure: bool = False) -> str:
    """The URL to open in a browser on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    scheme = "https" if secure else "http"
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"
