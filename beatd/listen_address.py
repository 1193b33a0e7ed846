"""Listen address: ``HOST:PORT`` as a value, its socket, and the reason when it cannot be opened. Needs only Python."""

from __future__ import annotations

import errno
import re
import socket
from typing import NamedTuple

_WRITTEN = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\s:\[\]/]+)):(?P<port>[0-9]{1,5})")

PATTERN = r"^(?:\[[0-9A-Fa-f:.%]+\]|[^\s:\[\]/]+):[0-9]{1,5}$"
"""The same for JSON Schema."""


class ListenAddress(NamedTuple):
    """An address to listen on. Port 0: any free port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """Read ``127.0.0.1:9464`` or ``[::1]:9464``; raises ValueError with what would be right."""
        found = _WRITTEN.fullmatch(text)
        if found is None or int(found["port"]) > 65_535:
            raise ValueError('expected HOST:PORT, as "127.0.0.1:9464" or "[::]:9464"')
        return cls(found["v6"] or found["host"], int(found["port"]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def for_clients(self) -> ListenAddress:
        """The address that a client on this machine connects to: loopback for "all interfaces"."""
        return self._replace(host={"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host))  # noqa: S104


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is one that is free. Raises OSError, see :func:`why_not`."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (UnicodeError, ValueError) as error:  # no name of a host: too long, or with characters that none has
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from None
    family, _, _, _, address = addresses[0]
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
