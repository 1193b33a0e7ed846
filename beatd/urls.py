"""Redis and AMQP URLs as typed values: parsed once, strictly, and shown without their secrets.

Syntax that all URLs share is read in :mod:`beatd.url_parts`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from beatd import url_parts
from beatd.exceptions import WrongUrl
from beatd.url_options import AMQP, REDIS, TLS
from beatd.url_parts import ENCODE, Host, Parts, host_and_port, is_host, read_options, scheme_of, split, wrong_url

__all__ = ["is_host", "scheme_of"]

REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+socket", "sentinel")
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
STORE_SCHEMES = (*REDIS_SCHEMES, *CLUSTER_SCHEMES)
"""Of a state store. No broker is a cluster: a queue is a list in one slot, and claims are in the slots of shards."""
AMQP_SCHEMES = ("amqp", "amqps", "pyamqp")
SENTINEL = "sentinel://"
SENTINEL_PORT = 26379
"""Where sentinels listen unless the URL says otherwise."""
SENTINEL_FORM = "sentinel://HOST:PORT,HOST:PORT/SERVICE/DB"

CLUSTER_BROKER = (
    "a Redis Cluster can be the state store, and no broker; expected RabbitMQ, or a Redis that is not a cluster"
)

_NUMBER = re.compile(r"[0-9]{1,9}")
_MANY_SENTINELS = re.compile(r";(?=sentinel://)")


class _Url:
    """Base of typed URLs: shown without secrets by ``str`` and ``repr``."""

    parts: Parts

    @property
    def shown(self) -> str:
        """The URL for people: no secret is in it."""
        return self.parts.shown

    def __str__(self) -> str:
        return self.parts.shown

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parts.shown!r})"


@dataclass(frozen=True, repr=False)
class RedisUrl(_Url):
    """A Redis server: by address, by socket, the primary of a service that sentinels watch, or nodes of a cluster."""

    parts: Parts
    host: str | None = None
    port: int | None = None
    path: str | None = None
    """The Unix socket."""
    username: str | None = None
    password: str | None = None
    password_command: tuple[str, ...] = ()
    """The program that prints the password, and its arguments."""
    database: int = 0
    tls: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    """redis-py's, with their types."""
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    nodes: tuple[tuple[str, int], ...] = ()
    """Nodes of a cluster that are asked for the others."""

    @classmethod
    def parse(cls, text: str | RedisUrl) -> RedisUrl:
        """Read one; raises :class:`WrongUrl`, whose text has nothing of the URL but its scheme."""
        return text if isinstance(text, RedisUrl) else _redis(text)

    @property
    def place(self) -> str:
        """The service and its sentinels, the nodes of a cluster, the socket, or ``host:port/db``."""
        if self.nodes:
            return f"cluster {', '.join(f'{host}:{port}' for host, port in self.nodes)}"
        if self.service is not None:
            sentinels = ", ".join(f"{host}:{port}" for host, port in self.sentinels)
            return f"{self.service}/{self.database} of the sentinels {sentinels}"
        return self.path or f"{self.host or 'localhost'}:{self.port or 6379}/{self.database}"

    @property
    def arguments(self) -> dict[str, Any]:
        """redis-py's keyword arguments for a connection, without its class."""
        given = {"host": self.host, "port": self.port, "path": self.path}
        login = {"username": self.username, "password": self.password}
        return {key: value for key, value in (given | login).items() if value is not None} | {
            "db": self.database,
            **self.options,
        }


@dataclass(frozen=True, repr=False)
class BrokerUrl(_Url):
    """A RabbitMQ, or several to choose from."""

    parts: Parts
    hosts: tuple[Host, ...]
    username: str | None
    password: str | None
    virtual_host: str
    bare: str
    """For kombu: all servers, without options."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """kombu's keyword arguments for a connection, with their types."""
    alternatives: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | BrokerUrl) -> BrokerUrl:
        """Read one; raises :class:`WrongUrl`, whose text has nothing of the URL but its scheme."""
        return text if isinstance(text, BrokerUrl) else _amqp(text)

    @property
    def shown(self) -> str:
        """The URLs for people: no secret is in them."""
        return ";".join((self.parts._replace(query="").shown, *self.alternatives))

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"BrokerUrl({self.shown!r})"


def names_service(text: str) -> bool:
    """True for ``sentinel://`` URLs in beatd's form. kombu's have a number, or nothing, for the service."""
    if not text.startswith(SENTINEL) or _MANY_SENTINELS.search(text):
        return False
    path = text.removeprefix(SENTINEL).partition("?")[0].partition("/")[2].strip("/")
    service = path.partition("/")[0].partition(";")[0]
    return bool(service) and not service.isdigit()


def is_redis(text: str) -> bool:
    """True for a Redis server, or a primary behind sentinels, that beatd speaks to without kombu."""
    scheme = scheme_of(text)
    return names_service(text) if scheme == "sentinel" else scheme in REDIS_SCHEMES


def is_cluster(text: str) -> bool:
    """True for the URL of a Redis Cluster."""
    return scheme_of(text) in CLUSTER_SCHEMES


def is_store(text: str) -> bool:
    """True for a server that can be a state store: a Redis by itself, behind sentinels, or as a cluster."""
    return scheme_of(text) in STORE_SCHEMES


def is_amqp(text: str) -> bool:
    """True for a RabbitMQ, or several alternatives divided by semicolons."""
    return scheme_of(text) in AMQP_SCHEMES


def check_broker(text: str) -> None:
    """Raise :class:`WrongUrl` for a URL of a broker that cannot be used; those that only kombu knows are kombu's."""
    if is_redis(text):
        RedisUrl.parse(text)
    elif is_amqp(text):
        BrokerUrl.parse(text)
    elif is_cluster(text):
        raise wrong_url(scheme_of(text), CLUSTER_BROKER)
    else:
        url_parts.check_kombu(text, (*REDIS_SCHEMES, *AMQP_SCHEMES))


def shown(text: str) -> str:
    """Any URL for people, and never a secret: of one that cannot be read, the scheme alone."""
    if text == "embedded":
        return text
    scheme = scheme_of(text)
    try:
        if is_redis(text) or is_cluster(text):
            return RedisUrl.parse(text).shown
        if is_amqp(text):
            return BrokerUrl.parse(text).shown
        return ";".join(split(one)._replace(query="").shown for one in text.split(";"))
    except WrongUrl:
        return f"{scheme}://…" if scheme else "…"


def with_login(
    text: str,
    *,
    host: str | None = None,
    port: int | None = None,
    username: str | None = None,
    password: str | None = None,
    password_command: Sequence[str] = (),
) -> str:
    """The URL with what is given beside it. Raises :class:`WrongUrl` if the URL says it, too."""
    first, *others = text.split(";") if is_amqp(text) else [text]
    parts, scheme = split(first), scheme_of(text)
    for key, value, said in (
        ("username", username, parts.username),
        ("password", password, parts.password),
        ("host", host, parts.hosts and not parts.hosts.startswith(":")),
        ("port", port, re.search(r":[0-9]*$", parts.hosts)),
    ):
        if value is not None and said:
            raise wrong_url(scheme, f"it has a {key}, and `{key}` is given beside it: leave one of them out")
    if (host or port) and scheme in {"unix", "redis+socket", "sentinel", *CLUSTER_SCHEMES}:
        raise wrong_url(scheme, f"`host` and `port` have no meaning beside a {scheme}:// URL")
    hosts = parts.hosts
    if host is not None:
        hosts = (f"[{host}]" if ":" in host and not host.startswith("[") else host) + hosts
    if port is not None:
        hosts = f"{hosts or 'localhost'}:{port}"
    user, secret = username or parts.username, password or parts.password
    login = quote(user or "", safe="") + (f":{quote(secret, safe='')}" if secret else "")
    if password_command:
        if scheme not in STORE_SCHEMES:
            raise wrong_url(scheme, "`password_command` is for Redis servers only")
        if secret:
            raise wrong_url(scheme, "it has a password, and `password_command` is given beside it: leave one out")
        option = f"password_command={quote(json.dumps(list(password_command)), safe='')}"
        parts = parts._replace(query=f"{parts.query}&{option}" if parts.query else option)
    more = [  # a URL says all of itself; a host alone has the rest of the first URL
        with_login(one, port=port, username=username, password=password) if "://" in one else one for one in others
    ]
    return ";".join([parts._replace(hosts=hosts, userinfo=login or None).text, *more])


@lru_cache(maxsize=256)
def _redis(text: str) -> RedisUrl:
    scheme = scheme_of(text)
    if scheme not in STORE_SCHEMES:
        raise wrong_url(scheme, "expected redis://, rediss://, unix://, sentinel:// or redis+cluster://")
    parts = split(text)
    options = read_options(scheme, parts.query, {**REDIS, **TLS})
    options.pop("global_keyprefix", None)  # of keys, not of connections: see beatd.url_keyprefix
    read = {
        "username": parts.username or options.pop("username", None),
        "password": parts.password or options.pop("password", None),
    }
    if {"username", "password"} & options.keys():
        raise wrong_url(scheme, "user or password are there twice: before the host, and as an option")
    build = _BUILD.get(scheme, _address)
    command = options.pop("password_command", ())
    if command and read["password"]:
        raise wrong_url(scheme, "it has a password and a password_command: leave one of them out")
    found = replace(
        build(parts, options), username=read["username"], password=read["password"], password_command=command
    )
    if not found.tls and (strays := [name for name in options if name in TLS]):
        secure = scheme.replace("redis", "rediss") if scheme in CLUSTER_SCHEMES else "rediss"
        raise wrong_url(scheme, f"its option {strays[0]} is about TLS: write {secure}://")
    return replace(found, options=options)


def _database(scheme: str, options: dict[str, Any], path: str) -> int:
    """From ``db`` or ``virtual_host`` in the query, or the path."""
    said = [options.pop(name) for name in ("db", "virtual_host") if name in options]
    if path:
        if not _NUMBER.fullmatch(path):
            raise wrong_url(scheme, f"its database is not a number; if that is a part of a password: {ENCODE}")
        said.append(int(path))
    if len(set(said)) > 1:
        raise wrong_url(scheme, "it names two databases")
    return int(said[0]) if said else 0


def _address(parts: Parts, options: dict[str, Any]) -> RedisUrl:
    for name in ("ssl", "sentinel_username", "sentinel_password"):
        if name in options:
            hint = "write rediss://" if name == "ssl" else "it is for sentinel:// URLs"
            raise wrong_url(parts.scheme, f"its option {name} has no meaning here: {hint}")
    host, port = host_and_port(parts.scheme, parts.hosts)
    database = _database(parts.scheme, options, unquote(parts.path.strip("/")))
    return RedisUrl(parts, host=host or None, port=port, database=database, tls=parts.scheme == "rediss")


def _socket(parts: Parts, options: dict[str, Any]) -> RedisUrl:
    if parts.hosts:
        raise wrong_url(parts.scheme, "expected the absolute path of a socket: unix:///path/to/socket?db=0")
    if len(parts.path) < 2:
        raise wrong_url(parts.scheme, "it names no socket: unix:///path/to/socket?db=0")
    if strays := {"ssl", "sentinel_username", "sentinel_password"} & options.keys():
        raise wrong_url(parts.scheme, f"its option {min(strays)} has no meaning here")
    return RedisUrl(parts, path=unquote(parts.path), database=_database(parts.scheme, options, ""))


def _sentinel_service(parts: Parts, options: dict[str, Any]) -> RedisUrl:
    service, _, db = unquote(parts.path.strip("/")).partition("/")
    if not service or service.isdigit():
        raise wrong_url("sentinel", f"it names no service that the sentinels watch: expected {SENTINEL_FORM}")
    if db and not _NUMBER.fullmatch(db):
        raise wrong_url(
            "sentinel", f"what follows the service is not the number of a database: expected {SENTINEL_FORM}"
        )
    hosts = [host_and_port("sentinel", each) for each in parts.hosts.split(",")]
    if not all(host for host, _ in hosts):
        raise wrong_url("sentinel", f"one of its sentinels has no host: expected {SENTINEL_FORM}")
    return RedisUrl(
        parts,
        service=service,
        database=_database("sentinel", options, db),
        tls=bool(options.pop("ssl", False)),
        sentinels=tuple((host, port or SENTINEL_PORT) for host, port in hosts),
        sentinel_username=options.pop("sentinel_username", None),
        sentinel_password=options.pop("sentinel_password", None),
    )


def _cluster(parts: Parts, options: dict[str, Any]) -> RedisUrl:
    for name in ("ssl", "sentinel_username", "sentinel_password"):
        if name in options:
            hint = "write rediss+cluster://" if name == "ssl" else "it is for sentinel:// URLs"
            raise wrong_url(parts.scheme, f"its option {name} has no meaning here: {hint}")
    hosts = [host_and_port(parts.scheme, each) for each in parts.hosts.split(",")]
    if not all(host for host, _ in hosts):
        raise wrong_url(parts.scheme, f"one of its nodes has no host: expected {parts.scheme}://HOST:PORT,HOST:PORT")
    if _database(parts.scheme, options, unquote(parts.path.strip("/"))):
        raise wrong_url(parts.scheme, "a cluster has database 0 only: leave the number out")
    nodes = tuple((host, port or 6379) for host, port in hosts)
    return RedisUrl(parts, nodes=nodes, tls=parts.scheme == "rediss+cluster")


_BUILD = {
    "sentinel": _sentinel_service,
    "unix": _socket,
    "redis+socket": _socket,
    **dict.fromkeys(CLUSTER_SCHEMES, _cluster),
}


@lru_cache(maxsize=256)
def _amqp(text: str) -> BrokerUrl:
    first, *others = text.split(";")
    scheme = scheme_of(first)
    if scheme not in AMQP_SCHEMES:
        raise wrong_url(scheme, "expected amqp:// or amqps://")
    parts = split(first)
    options = _kombu_options(read_options(scheme, parts.query, {**AMQP, **TLS}), scheme)
    hosts, bare, names = [host_and_port(scheme, parts.hosts)], [parts._replace(query="").text], []
    for other in filter(None, others):
        if "://" not in other:
            hosts.append(host_and_port(scheme, other))
            bare.append(other)
            names.append(other)
            continue
        one = _amqp(other)
        if one.options and one.options != options:
            raise wrong_url(scheme, "its alternatives have other options: write them once, in the first URL")
        hosts += one.hosts
        bare.append(one.bare)
        names.append(one.shown)
    virtual_host = unquote(parts.path[1:]) or "/"
    return BrokerUrl(
        parts, tuple(hosts), parts.username, parts.password, virtual_host, ";".join(bare), options, tuple(names)
    )


def _kombu_options(options: dict[str, Any], scheme: str) -> dict[str, Any]:
    """Options under kombu's names: TLS options become one table with py-amqp's names."""
    tls = {name: options.pop(name) for name in list(options) if name in TLS}
    if tls and scheme != "amqps":
        raise wrong_url(scheme, f"its option {min(tls)} is about TLS: write amqps://")
    words = {"ssl_ca_certs": "ca_certs", "ssl_certfile": "certfile", "ssl_keyfile": "keyfile", "ssl_ciphers": "ciphers"}
    made = {word: tls.pop(name) for name, word in words.items() if name in tls}
    if "ssl_cert_reqs" in tls:
        made["cert_reqs"] = CERT_REQS[tls.pop("ssl_cert_reqs")]
    if tls:
        raise wrong_url(
            scheme, f"its option {min(tls)} is unknown for amqps://; use one of: {', '.join(sorted(words))}"
        )
    return {**options, **({"ssl": made} if made else {})}


CERT_REQS = {"none": 0, "optional": 1, "required": 2}
"""The values of :class:`ssl.VerifyMode`."""


def redis_url(url: str) -> str:
    """The URL in redis-py's spelling: Celery writes ``redis+socket:///path`` for redis-py's ``unix:///path``."""
    scheme, _, rest = url.partition("://")
    if scheme != "redis+socket":
        return url
    return f"unix://{rest.replace('virtual_host=', 'db=')}"
