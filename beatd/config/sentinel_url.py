"""``sentinel://[user:password@]host:port,host:port/service/db?options``: a primary that sentinels are asked for."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

SCHEME = "sentinel://"
PORT = 26379
"""Where sentinels listen unless the URL says otherwise."""

_FORM = "sentinel://HOST:PORT,HOST:PORT/SERVICE/DB"


class SentinelUrl(NamedTuple):
    """What such a URL says. User and password are those of the primary; sentinels have their own, or none."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    db: int
    primary: str
    """A ``redis://`` or ``rediss://`` URL with everything but the primary's address: its host is a placeholder."""
    username: str | None
    password: str | None
    """What the sentinels themselves ask for: ``sentinel_username`` and ``sentinel_password`` in the query."""

    @classmethod
    def parse(cls, url: str) -> SentinelUrl:
        """Read one; raises :class:`ValueError`, whose text repeats nothing that could be a secret."""
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError(f"not a sentinel:// URL: expected {_FORM}") from None
        service, db = _service_and_db(unquote(parts.path.strip("/")))
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        tls = options.pop("ssl", "false").lower()
        if tls not in {"true", "false"}:
            raise ValueError("ssl in the query of a sentinel:// URL is true or false")
        username, password = options.pop("sentinel_username", None), options.pop("sentinel_password", None)
        user, at, hosts = parts.netloc.rpartition("@")
        scheme = "rediss" if tls == "true" else "redis"
        primary = f"{scheme}://{user}{at}primary/{db}?{urlencode(options)}"
        return cls(tuple(map(_host_and_port, hosts.split(","))), service, db, primary, username, password)

    @property
    def place(self) -> str:
        """The service and its sentinels, for people."""
        sentinels = ", ".join(f"{host}:{port}" for host, port in self.sentinels)
        return f"{self.service}/{self.db} of the sentinels {sentinels}"


def names_service(url: str) -> bool:
    """Whether a URL is of this form. kombu's own ``sentinel://`` URLs have a number, or nothing, for the service."""
    return bool(re.match(rf"{SCHEME}[^/?]*/+(?!\d+([/?;]|$))[^/?]", url))


def _service_and_db(path: str) -> tuple[str, int]:
    service, _, db = path.partition("/")
    if not service or service.isdigit():
        raise ValueError(f"a sentinel:// URL names the service that the sentinels watch: expected {_FORM}")
    if not re.fullmatch(r"[0-9]{0,9}", db):
        raise ValueError(f"what follows the service in a sentinel:// URL is the number of a database: expected {_FORM}")
    return service, int(db or 0)


def _host_and_port(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text.strip()}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0:
        raise ValueError(f"a sentinel of a sentinel:// URL has no host, or a port that is none: expected {_FORM}")
    return host, port or PORT
