"""Connections to the state store, and the border where redis-py's errors turn into beatd's.

Every socket has a timeout; nothing here retries: who calls knows whether a repeat is harmless.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from beatd.exceptions import StoreRefused, StoreUnavailable, TermLost


def connect(url: str, *, timeout_ms: int = 5_000, name: str = "beatd") -> redis.Redis:
    """A client of the server at ``url`` (``redis://``, ``rediss://``, ``unix://``); connects on first use.

    ``timeout_ms`` bounds connecting and every answer. ``name`` is shown by ``CLIENT LIST``.
    Raises :class:`StoreRefused` if the URL itself cannot be read.
    """
    seconds = timeout_ms / 1000
    options: dict[str, Any] = {
        "socket_timeout": seconds,
        "health_check_interval": 30,
        "client_name": name,
        "retry": Retry(NoBackoff(), 0),
    }
    if not url.startswith("unix:"):
        options |= {"socket_connect_timeout": seconds, "socket_keepalive": True}
    try:
        return redis.Redis.from_url(url, **options)
    except (ValueError, TypeError) as error:
        raise StoreRefused(f"{redacted(url)} is not a Redis URL: {error}") from None


@contextmanager
def border(client: redis.Redis) -> Iterator[None]:
    """Let beatd's errors out instead of redis-py's; the texts name the server and never its password."""
    try:
        yield
    except redis.RedisError as error:
        raise translated(error, place_of(client)) from error


def translated(error: RedisError, place: str) -> Exception:
    """beatd's error for one of redis-py's."""
    text = str(error)
    match error:
        case ResponseError() if text.startswith("FENCED"):
            return TermLost(text)
        case AuthenticationError() | AuthorizationError() | NoPermissionError():
            return StoreRefused(f"state store {place}: {text}")
        case BusyLoadingError() | ReadOnlyError() | redis.ConnectionError() | redis.TimeoutError():
            return StoreUnavailable(f"state store {place}: {text}")
        case ResponseError() if text.startswith(_PASSING):
            return StoreUnavailable(f"state store {place}: {text}")
        case _:
            return StoreRefused(f"state store {place}: {text}")


_PASSING = ("LOADING", "READONLY", "OOM", "MASTERDOWN", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF")
"""Answers of a server that will do better later."""


def place_of(client: redis.Redis) -> str:
    """Where a client's server is, for people: ``host:port/db`` or the socket's path."""
    options = client.connection_pool.connection_kwargs
    if path := options.get("path"):
        return str(path)
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db', 0)}"


def redacted(url: str) -> str:
    """The URL with its password replaced, fit for logs."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))


class Script:
    """One ``lua/*.lua`` file. Called with the server's copy; sent again when the server has lost it."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._client = client
        self._call = client.register_script(_source(name))

    def __call__(self, keys: Sequence[str | bytes], args: Sequence[Any]) -> Any:
        """Run it; raises :class:`TermLost`, :class:`StoreUnavailable` or :class:`StoreRefused`."""
        with border(self._client):
            return self._call(keys=keys, args=args)


@functools.cache
def _source(name: str) -> str:
    return files("beatd.store").joinpath("lua", f"{name}.lua").read_text()
