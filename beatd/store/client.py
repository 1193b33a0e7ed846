"""Connections to the state store, and the border where redis-py's errors turn into beatd's.

Every socket has a timeout; nothing here retries: who calls knows whether a repeat is harmless.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError as NoPrimary

from beatd.exceptions import StoreRefused, StoreUnavailable, StoreWentBack, TermLost, WrongUrl
from beatd.store import sentinel
from beatd.store.keys import type_of
from beatd.store.replicas import Replicas
from beatd.urls import RedisUrl


def connect(url: str | RedisUrl, *, timeout_ms: int = 5_000, name: str = "beatd") -> redis.Redis:
    """A client of the server at ``url`` (``redis://``, ``rediss://``, ``unix://``); connects on first use.

    With ``sentinel://`` it is one of whatever the sentinels call the primary: they are asked for each new connection.
    ``timeout_ms`` bounds connecting and every answer. ``name`` is shown by ``CLIENT LIST``.
    Raises :class:`WrongUrl` if the URL cannot be used.
    """
    parsed = RedisUrl.parse(url)
    for option in _FILES:
        path = parsed.options.get(option)
        if path and not Path(path).exists():
            raise WrongUrl(parsed.shown, f"{option}: there is no file {path}")
    seconds = timeout_ms / 1000
    options: dict[str, Any] = {
        "socket_timeout": seconds,
        "health_check_interval": 30,
        "client_name": name,
        "retry": Retry(NoBackoff(), 0),
    }
    if parsed.path is None:
        options |= {"socket_connect_timeout": seconds, "socket_keepalive": True}
    options |= parsed.arguments
    if parsed.service is not None:
        return sentinel.connect(parsed, options)
    kind = UnixDomainSocketConnection if parsed.path is not None else SSLConnection if parsed.tls else Connection
    return redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **options))


_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
"""Options of a URL that name files: the error of a connection would not say which is missing."""


@contextmanager
def border(client: redis.Redis) -> Iterator[None]:
    """Let beatd's errors out instead of redis-py's; the texts name the server and never its password."""
    try:
        yield
    except redis.RedisError as error:
        raise translated(error, place_of(client)) from error


def translated(error: RedisError, place: str) -> Exception:
    """beatd's error for one of redis-py's."""
    text = str(error).partition(" script: ")[0]  # where in a script it happened says nothing to people
    if text.startswith(_OF_CLUSTERS) or isinstance(error, MovedError | AskError):
        text = f"{IS_CLUSTER} ({text})"
    match error:
        case ResponseError() if text.startswith("FENCED"):
            return TermLost(text)
        case ResponseError() if text.startswith("WENTBACK"):
            return StoreWentBack(f"state store {place} lost writes that it had confirmed: {text.partition(' ')[2]}")
        case ResponseError() if text.startswith("CORRUPT"):
            return StoreRefused(f"state store {place}: {text.partition(' ')[2]}")
        case AuthenticationError() if "HELLO" in text or "Authentication required" in text:
            return StoreRefused(f"state store {place}: it demands a password, and its URL has none")
        case AuthenticationError() | AuthorizationError() | NoPermissionError():
            return StoreRefused(f"state store {place}: {text}")
        case BusyLoadingError() | ReadOnlyError() | OutOfMemoryError() | ClusterDownError() | TryAgainError():
            return StoreUnavailable(f"state store {place}: {text}")
        case redis.ConnectionError() | redis.TimeoutError():
            return _unreachable(error, text, place)
        case ResponseError() if text.startswith(_PASSING):
            return StoreUnavailable(f"state store {place}: {text}")
        case _:
            return StoreRefused(f"state store {place}: {text}")


def _unreachable(error: RedisError, text: str, place: str) -> Exception:
    """For a connection that failed: in words of TLS where that is the reason, or may be."""
    if isinstance(error, NoPrimary):
        return StoreUnavailable(f"state store {place}: {text}")
    if distrust := _DISTRUST.search(text):
        hint = "name the authority that signed it with ?ssl_ca_certs=FILE in the URL, and the server as it does"
        wrong = f"its certificate is not trusted: {distrust[1].strip(' .')}; {hint}"
        return StoreRefused(f"state store {place}: {wrong}")
    if any(word in text for word in _NO_TLS):
        return StoreUnavailable(f"state store {place}: it does not speak TLS on this port; write redis:// ({text})")
    if any(word in text for word in _CLOSED):
        text = f"{text} (so does a server that expects TLS: rediss://)"
    return StoreUnavailable(f"state store {place}: {text}")


_OF_CLUSTERS = ("CROSSSLOT", "MOVED ", "ASK ")
_DISTRUST = re.compile(r"certificate verify failed: ([^(\n]{1,300})\(_ssl")
_NO_TLS = ("WRONG_VERSION_NUMBER", "wrong version number", "RECORD_LAYER_FAILURE", "record layer failure")
_CLOSED = ("Connection closed by server", "Connection reset by peer")

IS_CLUSTER = "it is a Redis Cluster, which beatd does not use; give the URL of a server that is not part of one"

_PASSING = ("LOADING", "READONLY", "OOM", "MASTERDOWN", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF")
"""Answers of a server that will do better later."""


def place_of(client: redis.Redis) -> str:
    """Where a client's server is, for people: ``host:port/db``, the socket's path, or the service of sentinels."""
    if service := sentinel.place_of(client):
        return service
    options = client.connection_pool.connection_kwargs
    if path := options.get("path"):
        return str(path)
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db', 0)}"


class Script:
    """One ``lua/*.lua`` file. Called with the server's copy; sent again when the server has lost it.

    ``prelude`` is another file, whose functions it calls.
    """

    def __init__(self, client: redis.Redis, name: str, *, prelude: str | None = None) -> None:
        self._client = client
        self._call = client.register_script((_source(prelude) if prelude else "") + _source(name))

    def __call__(self, keys: Sequence[str | bytes], args: Sequence[Any]) -> Any:
        """Run it; raises :class:`TermLost`, :class:`StoreUnavailable` or :class:`StoreRefused`."""
        with naming(self._client, keys):
            return self._call(keys=keys, args=args)

    def stream(
        self, calls: Iterable[tuple[Sequence[str], Sequence[Any]]], replicas: Replicas | None = None
    ) -> Iterator[Any]:
        """The answers to many calls, in order. The next call is made ready while the server works on the one before.

        With ``replicas`` an answer is handed out when these have confirmed what the call wrote, or did not in time.
        Raises as a single call does; what became of the calls under way is then unknown.
        """
        touched: set[str] = set()
        replicas = replicas if replicas and replicas.command else None
        with naming(self._client, touched):
            connection: Any = self._client.connection_pool.get_connection()
            under_way = 0
            try:
                for keys, args in calls:
                    touched.update(keys)
                    # EVAL, not EVALSHA: a server that has lost the script must not stop a stream half way
                    connection.send_command("EVAL", self._call.script, len(keys), *keys, *args)
                    if replicas:
                        connection.send_command(*replicas.command)
                    under_way += 1
                    if under_way > 1:
                        answer = _read(connection, replicas)
                        under_way -= 1
                        yield answer
                while under_way:
                    answer = _read(connection, replicas)
                    under_way -= 1
                    yield answer
            finally:
                if under_way:
                    connection.disconnect()  # an answer that nobody read would be taken for the next one's
                self._client.connection_pool.release(connection)


def _read(connection: Any, replicas: Replicas | None) -> Any:
    """The answer to a call, and what replicas say of it."""
    answer = connection.read_response()
    if replicas:
        try:
            replicas.confirmed(connection.read_response())
        except ResponseError:  # the right to wait was taken; what was claimed stays claimed
            replicas.confirmed(0)
    return answer


@contextmanager
def naming(client: redis.Redis, keys: Iterable[str | bytes]) -> Iterator[None]:
    """A :func:`border` that names the key when one of them is of another type than beatd's."""
    try:
        with border(client):
            yield
    except StoreRefused as error:
        if "WRONGTYPE" in str(error) and (foreign := _foreign(client, keys)):
            raise StoreRefused(f"{error} ({foreign})") from error
        raise


def _foreign(client: redis.Redis, keys: Iterable[str | bytes]) -> str:
    """Which of the keys are not beatd's own, in words; empty if that cannot be found out."""
    names = [key.decode() if isinstance(key, bytes) else key for key in keys]
    try:
        with client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.type(name)
            found = [raw.decode() for raw in pipeline.execute()]
    except redis.RedisError:
        return ""
    there = {name: kind for name, kind in zip(names, found, strict=True) if kind != "none"}
    wrong = [
        f"the key {name} is a {kind} and should be a {wanted}"
        for name, kind in there.items()
        if (wanted := type_of(name)) is not None and kind != wanted
    ]
    return "; ".join(wrong or [f"the key {name} is a {kind}" for name, kind in there.items() if type_of(name) is None])


@functools.cache
def _source(name: str) -> str:
    return files("beatd.store").joinpath("lua", f"{name}.lua").read_text()
