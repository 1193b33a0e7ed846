"""Where the parts are put together: from settings to a running daemon. Nothing is decided here."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from beatd import broker
from beatd.beat.dispatcher import Dispatcher
from beatd.beat.elector import Elector
from beatd.beat.heap import DueHeap
from beatd.beat.messages import Messages
from beatd.beat.outlet import OutboxOutlet, Outlet, StoreOutlet
from beatd.beat.service import Beat
from beatd.clock import Clock, SystemClock
from beatd.exceptions import StoreUnavailable
from beatd.model import Settings
from beatd.store import server
from beatd.store.claims import Claims
from beatd.store.client import connect
from beatd.store.embedded import open_embedded
from beatd.store.keys import Keys
from beatd.store.lease import Lease
from beatd.store.outbox import Outbox
from beatd.store.running import Running

if TYPE_CHECKING:
    import redis

log = logging.getLogger("beatd")

RETRY_MIN, RETRY_MAX = 0.1, 5.0
"""Seconds between attempts to reach the state store at the start."""


@contextmanager
def state_store(settings: Settings) -> Iterator[str]:
    """The URL of the state store; ``"embedded"`` becomes one that is started here, or shared, and stopped last."""
    if settings.redis.url != "embedded":
        yield settings.redis.url
        return
    with open_embedded(settings.state_dir) as embedded:
        yield embedded.url


def daemon_id() -> str:
    """An identity for this process: readable, and never used twice, so that a restarted daemon is another one."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class Daemon:
    """One beatd process: it campaigns, and while it leads, its beat beats.

    ``on_turn`` is called after every turn of the loop: what feeds a watchdog.
    """

    def __init__(self, settings: Settings, store: Store, *, on_turn: Callable[[], None] = lambda: None) -> None:
        clock, wake, leader = SystemClock(), threading.Event(), settings.leader
        keys = Keys(settings.redis.prefix)
        lease = Lease(store.elector_client(), keys, shard=0, daemon_id=daemon_id(), ttl_ms=leader.ttl_ms)
        self._elector = Elector(lease, clock, ttl_ms=leader.ttl_ms, renew_ms=leader.renew_ms, on_change=wake.set)
        claims = Claims(store.client, keys)
        outlet = self._outlet(settings, store, keys, clock)
        self._beat = Beat(
            clock=clock,
            elector=self._elector,
            claims=claims,
            dispatcher=Dispatcher(
                claims, Messages(settings.broker.default_queue), outlet, Running(store.client, keys), clock
            ),
            outlet=outlet,
            heap=DueHeap(),
            wake=wake,
            on_turn=on_turn,
        )
        self.replace = self._beat.replace
        """Put another schedule in force, from any thread."""
        self.stop = self._beat.stop
        """End :meth:`run`; may be called from a signal handler."""

    def run(self) -> None:
        """Serve until told to stop; then give the lease back."""
        self._elector.start()
        try:
            self._beat.run()
        finally:
            self._elector.stop()

    @staticmethod
    def _outlet(settings: Settings, store: Store, keys: Keys, clock: Clock) -> Outlet:
        publisher = broker.open(settings.broker.url or store.url)
        return StoreOutlet(publisher) if store.is_broker else OutboxOutlet(Outbox(store.client, keys), publisher, clock)


class Store:
    """The state store as it was found: reachable, fit, and whether it is the broker, too."""

    def __init__(self, settings: Settings, url: str) -> None:
        """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`."""
        self.url = url
        self._timeout_ms = settings.redis.timeout_ms
        self._ttl_ms = settings.leader.ttl_ms
        self.client = connect(url, timeout_ms=self._timeout_ms)
        server.inspect(self.client)
        self.is_broker = self._is_broker(settings.broker.url)

    def elector_client(self) -> redis.Redis:
        """A connection of its own, with a timeout short enough for a second attempt before trust ends."""
        return connect(self.url, timeout_ms=min(self._timeout_ms, self._ttl_ms // 3), name="beatd-elector")

    def _is_broker(self, broker_url: str | None) -> bool:
        if broker_url is None:
            return True
        if not broker.is_redis(broker_url):
            return False
        with connect(broker.redis_url(broker_url), timeout_ms=self._timeout_ms) as other:
            return server.same(self.client, other)


def await_store(settings: Settings, url: str, stopping: threading.Event, *, fail_fast: bool = False) -> Store | None:
    """The store, when it can be reached; ``None`` if ``stopping`` was set before that.

    Raises :class:`~beatd.exceptions.StoreRefused`, and with ``fail_fast`` :class:`~beatd.exceptions.StoreUnavailable`.
    """
    pause = RETRY_MIN
    while not stopping.is_set():
        try:
            return Store(settings, url)
        except StoreUnavailable as error:
            if fail_fast:
                raise
            log.warning("%s; trying again in %.1f s", error, pause, extra={"event": "store_unavailable"})
            stopping.wait(pause)
            pause = min(pause * 2, RETRY_MAX)
    return None
