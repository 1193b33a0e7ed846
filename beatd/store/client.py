"""Redis client of the state store: connections, and translation of redis-py's errors into beatd's.

Every socket has a timeout; nothing here retries: only the caller knows if a repeat is harmless.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeGuard

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
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from beatd.exceptions import (
    StoreDenied,
    StoreRefused,
    StoreRolledBack,
    StoreUnavailable,
    StoreUnwritable,
    TermLost,
    WrongUrl,
)
from beatd.store.cluster import ClusterClient
from beatd.store.credentials import password_command
from beatd.store.pipeline import JoiningClient
from beatd.store.pool import ConnectionPool
from beatd.store.sentinels import connect_through_sentinels, service_of
from beatd.store.topology import Topology, slot_of
from beatd.urls import RedisUrl


def is_cluster(client: redis.Redis) -> TypeGuard[ClusterClient]:
    """True for the client of a cluster."""
    return isinstance(client, ClusterClient)


def try_nodes(client: ClusterClient) -> int:
    """Try every node of a cluster that has slots; returns how many there are.

    Raises beatd's errors if one cannot be reached, if two give the same address, or if slots have none.
    """
    with translate_errors(client):
        nodes, missing = client.topology.owners(), client.topology.unserved()
        if missing:
            raise ClusterDownError(f"CLUSTERDOWN {missing:,} {'slot has' if missing == 1 else 'slots have'} no node")
        if shared := client.topology.shared():
            raise redis.ConnectionError(f"several nodes give the same address, {shared[0]}; {_ANNOUNCE}")
        for address in nodes:
            with client.topology.connection(address) as connection:
                connection.send_command("PING")
                connection.read_response()
    return len(nodes)


Role = Literal["state store", "broker", "result backend"]
"""What a server is used for. Errors begin with it, see :func:`server_of`."""


def connect(
    url: str | RedisUrl, *, timeout_ms: int = 5_000, name: str = "beatd", role: Role = "state store"
) -> redis.Redis:
    """Return a client of the server at ``url`` (``redis://``, ``rediss://``, ``unix://``); connects on first use.

    With ``sentinel://`` it is a client of the primary: sentinels are asked for each new connection. With
    ``redis+cluster://`` it is a client of all nodes of a cluster. Raises :class:`WrongUrl`.
    ``timeout_ms`` bounds connecting and every answer. ``name`` is shown by ``CLIENT LIST``, ``role`` in errors.
    """
    parsed = RedisUrl.parse(url)
    for option in _FILES:
        path = parsed.options.get(option)
        if path and (wrong := _unusable(path)):
            raise WrongUrl(parsed.shown, f"{option}: {wrong}")
    seconds = timeout_ms / 1000
    options: dict[str, Any] = {
        "socket_timeout": seconds,
        "health_check_interval": 30,
        "client_name": name,
        "protocol": 2,
        "max_connections": _UNBOUNDED,
        **_NO_DRIVER_INFO,
        "redis_connect_func": _shake_hands,
        "retry": Retry(NoBackoff(), 0),
    }
    options |= {} if parsed.path else {"socket_connect_timeout": seconds, "socket_keepalive": True}
    options |= parsed.arguments
    if parsed.password_command:
        options["credential_provider"] = password_command(parsed.password_command, options.pop("username", None))
    kind = UnixDomainSocketConnection if parsed.path is not None else SSLConnection if parsed.tls else Connection
    if parsed.service is not None:
        client = connect_through_sentinels(parsed, options)
    elif parsed.nodes:
        client = ClusterClient(parsed, options, kind)
    else:
        client = JoiningClient.from_pool(ConnectionPool(connection_class=kind, **options))
    client.beatd_role = role  # type: ignore[attr-defined]
    return client


def _unusable(path: str) -> str:
    """Return why a file cannot be used; empty if it is there."""
    try:
        Path(path).stat()
    except FileNotFoundError:
        return f"there is no file {path}"
    except (OSError, ValueError) as error:
        return f"the file {path} cannot be read: {getattr(error, 'strerror', None) or error}"
    return ""


_UNBOUNDED = 2**31
"""redis-py 8 would refuse the hundred-first connection, also when all others have ended that it was not given back."""
_NO_DRIVER_INFO: dict[str, None] = {"driver_info": None} if hasattr(redis, "driver_info") else {}
"""It is not sent anyway, and redis-py would read it from a file for each connection, also when none can be opened."""


def _shake_hands(connection: Any) -> None:
    """Authenticate, name and select in one round trip: redis-py waits for the answer to each, and asks for more."""
    provider = connection.credential_provider
    credentials = provider.get_credentials() if provider else (connection.username, connection.password)
    credentials = [part for part in credentials if part]
    commands = [("AUTH", *credentials)] if credentials else []
    if connection.db:
        commands.append(("SELECT", connection.db))
    commands.append(("CLIENT", "SETNAME", connection.client_name))
    connection._parser.on_connect(connection)
    connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    try:
        for _ in commands[:-1]:
            connection.read_response()
    except (AuthenticationError, ResponseError) as error:
        if provider:
            provider.forget()
            raise redis.ConnectionError(f"the password of password_command is refused: {error}") from error
        raise
    try:
        connection.read_response()
    except ResponseError as error:
        if "unknown command" not in str(error).lower():  # some services have no CLIENT; it works without a name
            raise


def subscription(client: redis.Redis, key: str) -> redis.client.PubSub:
    """Listen to channels at the server that has ``key``; messages about subscriptions come only from a cluster."""
    if isinstance(client, ClusterClient):
        return client.pubsub(key=key)
    return client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-any-return, no-untyped-call]


def has_moved(client: redis.Redis, channel: redis.client.PubSub, key: str) -> bool:
    """True if another node of a cluster than the one that is listened to is known to have ``key`` by now."""
    connection = channel.connection
    if not isinstance(client, ClusterClient) or connection is None:
        return False
    return client.topology.last_owner(slot_of(key)) not in (None, (connection.host, connection.port))


def listeners(client: redis.Redis, channels: Sequence[str]) -> list[int]:
    """The number of listeners of each channel, which in a cluster are those of one slot's node."""
    if not isinstance(client, ClusterClient):
        counts: Any = client.pubsub_numsub(*channels)
        return [int(count) for _, count in counts]
    topology = client.topology
    with topology.connection(topology.owner(slot_of(channels[0]))) as connection:
        connection.send_command("PUBSUB", "SHARDNUMSUB", *channels)
        return [int(count) for count in connection.read_response()[1::2]]


def connection_to(client: redis.Redis, key: str) -> AbstractContextManager[Any]:
    """Lend a connection to the server that has ``key``."""
    if isinstance(client, ClusterClient):
        return _connection_to_owner(client.topology, key)
    return _LentConnection(client.connection_pool)


class _LentConnection:
    """A connection of a pool, for the time of a ``with`` block. The loop of the daemon takes one in every turn: a
    generator in place of this class costs as much as half of what the pool does."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool = pool

    def __enter__(self) -> Any:
        self._connection = self._pool.get_connection()
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._pool.release(self._connection)


@contextmanager
def _connection_to_owner(topology: Topology, key: str) -> Iterator[Any]:
    """An answer that the slot is elsewhere is one to try again."""
    try:
        with topology.connection(topology.owner(slot_of(key))) as connection:
            yield connection
    except AskError as error:
        topology.note(error)
        raise TryAgainError(_moved(error)) from error


def _moved(error: AskError) -> str:
    return f"slot {error.slot_id}: {error.host}:{error.port}"


_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
"""Options of a URL that name files: the error of a connection would not name the missing one."""


@contextmanager
def translate_errors(client: redis.Redis) -> Iterator[None]:
    """Raise beatd's errors in place of redis-py's; the texts name the server and never its password."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise translated(error, client) from error


def translated(error: RedisError | OSError, client: redis.Redis) -> Exception:
    """Return beatd's error for one of redis-py's, of a command of ``client``."""
    if isinstance(error, OSError):  # before redis-py has a connection: no file can be opened any more
        return StoreUnavailable(f"{server_of(client)}: {error.strerror or error}")
    if isinstance(client, ClusterClient) and isinstance(error, AskError):
        client.topology.note(error)
        return store_error(TryAgainError(_moved(error)), server_of(client))
    if "read only replica" in str(error) and not isinstance(client, ClusterClient):
        # a failover behind one address: connections that are open stay with the former primary, new ones do not
        client.connection_pool.disconnect(inuse_connections=False)
    return store_error(error, server_of(client))


def store_error(error: RedisError, server: str) -> Exception:
    """Return beatd's error for one of redis-py's. ``server``: its role and place, see :func:`server_of`."""
    text = _text_of(error)
    match error:
        case ResponseError() if text.startswith("FENCED"):
            return TermLost(text)
        case ResponseError() if text.startswith("ROLLBACK"):
            return StoreRolledBack(f"{server} lost writes that it had confirmed: {text.partition(' ')[2]}")
        case ResponseError() if text.startswith("CORRUPT"):
            return StoreRefused(f"{server}: {text.partition(' ')[2]}")
        case AuthenticationError() if "HELLO" in text or "Authentication required" in text:
            return StoreDenied(f"{server}: it demands a password, and its URL has none")
        case AuthenticationError() | AuthorizationError():
            return StoreDenied(f"{server}: {text}")
        case BusyLoadingError() | ClusterDownError() | TryAgainError():
            return StoreUnavailable(f"{server}: {text}")
        case redis.ConnectionError() | redis.TimeoutError():
            return _unreachable(error, text, server)
        case ResponseError() if isinstance(error, ReadOnlyError | OutOfMemoryError) or _code_of(error) in _UNWRITABLE:
            return StoreUnwritable(f"{server}: {text}")
        case ResponseError() if _code_of(error) in _PASSING:
            return StoreUnavailable(f"{server}: {text}")
        case _:
            return StoreRefused(f"{server}: {text}")


def _code_of(error: RedisError) -> str:
    """The code with which the answer of a server begins."""
    return _OF_PIPELINES.sub("", str(error)).partition(" ")[0]


def _text_of(error: RedisError) -> str:
    """The text of an error, with what to do about it where a cluster is the reason."""
    if denied := _denial(str(error)):
        return f"{denied}; {_RIGHTS}"
    text = str(error).partition(" script: ")[0]  # where in a script it happened says nothing to people
    text = _OF_PIPELINES.sub("", text)
    if found := _OF_SOCKETS.fullmatch(text):
        text = found[1] or found[2]
    text = text.removesuffix(".")  # sentences go on after it
    if plain := next((plain for words, plain in _IN_WORDS.items() if words in text), ""):
        return plain
    if isinstance(error, ClusterDownError):
        return f"CLUSTERDOWN {text.removeprefix('CLUSTERDOWN ')}; {_COVERAGE}"
    if isinstance(error, TryAgainError):
        return f"a slot is on the move to another node ({text})"
    if "cluster support disabled" in text:
        return "this server is no cluster: write redis:// instead of redis+cluster://"
    if text.startswith(_OF_CLUSTERS) or isinstance(error, MovedError | AskError):
        return f"{IS_CLUSTER} ({text})"
    return text


def _denial(text: str) -> str:
    """A right that a user lacks, in words; versions of servers have other texts. Empty for other errors."""
    if found := _OF_COMMANDS.search(text):
        return f"the user may not run {found[1].upper().replace('|', ' ')}: add +{found[1]}"
    if "can't run this command" in text:
        return "the user may not run a command of beatd's scripts"
    found = _OF_NAMES.search(text)
    return f"the user may not use one of the {found[1]}s" if found else ""


def _unreachable(error: RedisError, text: str, server: str) -> Exception:
    """Return the error of a failed connection, with a hint where TLS is or may be the reason."""
    if isinstance(error, MasterNotFoundError):
        return StoreUnavailable(f"{server}: {text}")
    if distrust := _DISTRUST.search(text):
        hint = "name the authority that signed it with ?ssl_ca_certs=FILE in the URL, and the server as it does"
        wrong = f"its certificate is not trusted: {distrust[1].strip(' .')}; {hint}"
        return StoreRefused(f"{server}: {wrong}")
    if any(word in text for word in _NO_TLS):
        return StoreUnavailable(f"{server}: it does not speak TLS on this port; write redis:// ({text})")
    if "handshake" in str(error.__context__):  # a plain Redis waits for the end of what it takes for a command
        text = f"{text}: the TLS handshake was not answered; if it does not speak TLS on this port, write redis://"
    if any(word in text for word in _CLOSED):
        text = f"{text} (so does a server that expects TLS: rediss://)"
    return StoreUnavailable(f"{server}: {text}")


_OF_SOCKETS = re.compile(
    r"Error (?:-?\d+ )?(?:connecting to \S+\. (?!Error)(\S.*)|while (?:reading|writing) [^(]*\(-?\d+, '([^']+)'\))"
)
"""Errors of connections as redis-py words them: the number, and the place, which stands before the text anyway."""
_OF_PIPELINES = re.compile(r"^Command # \d+ \(.*?\) of pipeline caused error: (?!WRONGTYPE)", re.DOTALL)
"""Words of redis-py before an error of one command of several; where they name the key, they stay."""
_IN_WORDS = {
    "read only replica": "it is a read-only replica and takes no writes: wait for its failover, or name the primary",
    "used memory > 'maxmemory'": "its memory is full (maxmemory) and it takes no writes: empty queues, or give it more",
    "MISCONF": "it cannot save its data to disk and takes no writes: see its log, and whether its disk is full",
    "invalid username-password": "invalid username-password pair or user is disabled; correct the URL and start again",
}
"""What servers say of their own state, and the same with what to do."""
_OF_COMMANDS = re.compile(r"no permissions? to run the '([^']+)' command")
_OF_NAMES = re.compile(r"(?i:no permissions? to|can't) access (?:a|(?:at least )?one of the) (key|channel)")
_RIGHTS = "beatd check --connect names the rights that are missing, docs/managed-stores.md those that are needed"
_OF_CLUSTERS = ("CROSSSLOT", "MOVED ", "ASK ")
_DISTRUST = re.compile(r"certificate verify failed: ([^(\n]{1,300})\(_ssl")
_NO_TLS = ("WRONG_VERSION_NUMBER", "wrong version number", "RECORD_LAYER_FAILURE", "record layer failure")
_CLOSED = ("Connection closed by server", "Connection reset by peer")

_ANNOUNCE = "set cluster-announce-ip on them to addresses that lead to them from here"
IS_CLUSTER = "this server is a node of a Redis Cluster: write redis+cluster:// instead of redis://"
_COVERAGE = "with cluster-require-full-coverage no, only the shards in slots without a node wait"

_UNWRITABLE = ("READONLY", "OOM", "NOREPLICAS", "MISCONF")
"""Error codes of a server that takes no writes for now. redis-py has classes for the first two, without their code."""
_PASSING = ("LOADING", "MASTERDOWN", "BUSY", "TRYAGAIN", "CLUSTERDOWN")
"""Error codes of a server that is not ready for now."""


def is_of_foreign_type(error: object) -> bool:
    """True for the refusal of one key that is of another type: it says nothing about other keys, and stays."""
    return isinstance(error, StoreRefused) and "WRONGTYPE" in str(error)


def slowest_place(client: redis.Redis) -> str:
    """Return the place of the server that took longest to answer: in a cluster, of one of its nodes."""
    return str(client.topology.slowest()) if isinstance(client, ClusterClient) else place_of(client)


def server_of(client: redis.Redis) -> str:
    """Return role and place of a client's server: ``broker localhost:6379/0``."""
    return f"{getattr(client, 'beatd_role', 'state store')} {place_of(client)}"


def place_of(client: redis.Redis) -> str:
    """Return the place of a client's server: ``host:port/db``, the socket's path, or the service of sentinels."""
    if service := service_of(client):
        return service
    if isinstance(client, ClusterClient):
        return client.place
    options = client.connection_pool.connection_kwargs
    if path := options.get("path"):
        return str(path)
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db', 0)}"
