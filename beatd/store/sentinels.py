"""Sentinels: clients that follow the primary of a service.

Sentinels are asked where it is when a connection is opened, and once a second.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import redis
from redis.sentinel import MasterNotFoundError, SentinelConnectionPool

from beatd.clock import monotonic
from beatd.store.pipeline import JoiningClient
from beatd.store.pool import QuickLending
from beatd.urls import RedisUrl

ASK_S = 1.0
"""Timeout (s) of a sentinel: it answers from memory, and another one can be asked."""

LOOK_EVERY_S = 1.0
"""A primary that is replaced while it lives is told so up to ten seconds later, and what it takes until then is lost.
So the client asks for itself if a connection still leads to the primary."""

_SHARE = 0.1
"""Share of the time that this may take while sentinels are slow to answer."""


class Sentinels:
    """Sentinels of one service, in the order in which they are asked: the one that answered last comes first."""

    def __init__(self, url: RedisUrl, options: dict[str, Any]) -> None:
        self.place = url.place
        self._order = url.sentinels
        self._options = options

    def discover_master(self, service: str) -> tuple[str, int]:
        """Return the address of the primary; called by redis-py's pool.

        Raises ``MasterNotFoundError`` while there is none or no sentinel answers, and ``ResponseError`` when all
        sentinels refuse: then their configuration is wrong.
        """
        said, refusals = [], 0
        for sentinel in self._order:
            try:
                address = self._ask(sentinel, service)
            except (redis.ResponseError, redis.AuthenticationError) as error:
                refusals += 1
                said.append(f"{sentinel[0]}:{sentinel[1]}: {_explained(error, service)}")
            except redis.RedisError as error:
                said.append(f"{sentinel[0]}:{sentinel[1]}: {error}")
            else:
                self._order = (sentinel, *(one for one in self._order if one != sentinel))
                return address
        kind = redis.ResponseError if refusals == len(said) else MasterNotFoundError
        raise kind(f"no sentinel names a primary ({'; '.join(said)})")

    def _ask(self, sentinel: tuple[str, int], service: str) -> tuple[str, int]:
        host, port = sentinel
        # a connection for each question: they are rare, and one that was kept would be stale when it is needed
        with redis.Redis(host=host, port=port, **self._options) as client:
            state: dict[str, Any] = client.sentinel_master(service)
        if state["is_sdown"] or state["is_odown"]:
            raise MasterNotFoundError(f"{service} at {state['ip']}:{state['port']} is down")
        return str(state["ip"]), int(state["port"])


class PrimaryPool(QuickLending, SentinelConnectionPool):
    """Connections to the primary. Those to a former one are not used again."""

    _look_at = 0.0

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Return a connection that is connected; raises redis-py's errors."""
        if monotonic() >= self._look_at:
            self._look()
        return super().get_connection(*args, **kwargs)

    def _look(self) -> None:
        started = monotonic()
        with suppress(redis.RedisError):  # connections that work are used while no sentinel can say better
            self.get_master_address()  # type: ignore[no-untyped-call]
        took = monotonic() - started
        self._look_at = started + max(LOOK_EVERY_S, took / _SHARE)


def connect_through_sentinels(url: RedisUrl, options: dict[str, Any]) -> redis.Redis:
    """Return a client of the primary of the service at ``url``; ``options`` are redis-py's for a connection."""
    asking = {key: value for key, value in options.items() if key.startswith(("socket_", "ssl_"))}
    for key in ("socket_timeout", "socket_connect_timeout"):
        asking[key] = min(asking[key], ASK_S)
    asking |= {
        "retry": options["retry"],
        "username": url.sentinel_username,
        "password": url.sentinel_password,
        "ssl": url.tls,
    }
    sentinels = Sentinels(url, asking)
    pool = PrimaryPool(url.service, sentinels, ssl=url.tls, **options)  # type: ignore[no-untyped-call]
    return JoiningClient.from_pool(pool)


def service_of(client: redis.Redis) -> str | None:
    """Return the service that a client follows, with its sentinels; ``None`` for a client with a fixed address."""
    pool = client.connection_pool
    return pool.sentinel_manager.place if isinstance(pool, PrimaryPool) else None


def _explained(error: redis.RedisError, service: str) -> str:
    text = str(error)
    if "No such master" in text:
        return f"it watches no service named {service!r}"
    if isinstance(error, redis.AuthenticationError) and ("HELLO" in text or "Authentication required" in text):
        return "it demands a password; add ?sentinel_password=… to the URL"
    return text
