"""Where the parts are put together: from settings to a running daemon. Nothing is decided here."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from beatd import broker
from beatd.beat.card import Card, Schedule
from beatd.beat.courier import Courier
from beatd.beat.dispatcher import Dispatcher
from beatd.beat.elector import Elector
from beatd.beat.heap import DueHeap
from beatd.beat.held import Held
from beatd.beat.loop import Loop
from beatd.beat.manual import Manual
from beatd.beat.messages import Messages
from beatd.beat.orders import Orderly
from beatd.beat.outlet import OutboxOutlet, Outlet, StoreOutlet
from beatd.beat.seat import Seat
from beatd.beat.service import Beat
from beatd.beat.watchdog import Watchdog
from beatd.clock import SystemClock
from beatd.config import Config
from beatd.exceptions import StoreUnavailable
from beatd.model import Settings
from beatd.sources import Amended, InForce, StoreSource
from beatd.store import server
from beatd.store.claims import Claims
from beatd.store.client import connect
from beatd.store.dispatched import Dispatched
from beatd.store.embedded import find_embedded, open_embedded
from beatd.store.held_back import HeldBack
from beatd.store.keys import Keys, shard_of
from beatd.store.lease import Leases
from beatd.store.orders import Answer, Orders
from beatd.store.outbox import Outbox
from beatd.store.registry import Registry
from beatd.store.replicas import Replicas
from beatd.store.requests import Requests
from beatd.store.running import Running

if TYPE_CHECKING:
    import redis

log = logging.getLogger("beatd")

RETRY_MIN, RETRY_MAX = 0.1, 5.0
"""Seconds between attempts to reach the state store at the start."""

FAULTS_TOLD = 20
"""Faults of the files that are told to who asked for them to be read."""


@contextmanager
def state_store(settings: Settings) -> Iterator[str]:
    """The URL of the state store; ``"embedded"`` becomes one that is started here, or shared, and stopped last."""
    if settings.redis.url != "embedded":
        yield settings.redis.url
        return
    with open_embedded(settings.state_dir) as embedded:
        yield embedded.url


def running_store(settings: Settings) -> str:
    """The URL of the state store for a command that only looks, which does not start one for that.

    Raises :class:`~beatd.exceptions.StoreUnavailable` if it is to be embedded, and none runs.
    """
    url = find_embedded(settings.state_dir) if settings.redis.url == "embedded" else settings.redis.url
    if url is None:
        raise StoreUnavailable(f"no daemon is alive: the embedded state store in {settings.state_dir} does not run")
    return url


def daemon_id() -> str:
    """An identity for this process: readable, and never used twice, so that a restarted daemon is another one."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class Daemon:
    """One beatd process: it campaigns for its share of the shards, and while it leads one, that one's beat beats.

    ``on_hang`` is called, from another thread, when the loop has not got on for a minute; ``on_reload``, from another
    thread, when somebody wants the files to be read again.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        *,
        on_hang: Callable[[], None],
        on_reload: Callable[[], None],
    ) -> None:
        settings = config.settings
        clock, wake, leader = SystemClock(), threading.Event(), settings.leader
        keys, me, client = Keys(settings.redis.prefix), daemon_id(), store.elector_client()
        self._on_hang = on_hang
        self._settings, self._store, self._keys, self._clock, self._wake = settings, store, keys, clock, wake
        self._publisher = broker.open(settings.broker.url or store.url)
        self.card = Card(me, clock, shards=leader.shards, lapse_ms=Elector.lapse_ms(leader.ttl_ms))
        """What this daemon says of itself."""
        self._elector = Elector(
            Leases(client, keys, daemon_id=me, ttl_ms=leader.ttl_ms),
            Registry(client, keys),
            clock,
            shards=leader.shards,
            ttl_ms=leader.ttl_ms,
            renew_ms=leader.renew_ms,
            status=self.card.status,
            on_change=wake.set,
        )
        self._replicas = Replicas(settings.redis.wait_replicas, settings.redis.wait_timeout_ms)
        self._watchdog = Watchdog(self._give_up)
        beats = [self._beat(seat) for seat in self._elector.seats]
        self.card.shards = beats
        self._loop = Loop(beats, clock, wake)
        self.stop = self._loop.stop
        """End :meth:`run`; may be called from a signal handler."""
        runtime = store.runtime_client()
        self._orderly = Orderly(Orders(runtime, keys), me, reload=on_reload, step_down=self._elector.rest)
        self._source = StoreSource(
            runtime,
            keys,
            config,
            on_change=self._put_in_force,
            on_amend=self._amend,
            on_read=self.card.read,
            on_order=self._orderly.look,
            on_request=self._loop.ring,
        )
        self.replace = self._source.rebase
        """Put what files and app say in force, from any thread, with the store's entries and pauses over it."""

    def reading(self) -> None:
        """The files are about to be read again."""
        self._orderly.begin()

    def has_read(self, faults: Sequence[str]) -> None:
        """They have been, and have these faults: whoever asked for it is told."""
        entries, digest, shown = self.card.schedule.entries, self.card.schedule.digest, list(faults[:FAULTS_TOLD])
        self._orderly.end(
            Answer(ok=not faults, digest=digest, entries=entries, faults=shown, more_faults=len(faults) - len(shown))
        )

    def run(self) -> None:
        """Serve until told to stop; then give the leases back."""
        self._source.start()
        self._watchdog.start()
        while not (self._source.read.wait(0.1) or self._loop.stopping):
            self._watchdog()  # without the pauses nothing may leave
        self._elector.start()
        try:
            self._loop.run()
        finally:
            self._watchdog.stop()
            self._elector.stop()
            self._source.stop()
            self._publisher.close()

    def _put_in_force(self, schedule: InForce) -> None:
        config = schedule.config
        self.card.schedule = Schedule(len(config.entries), config.digest, schedule.runtime, schedule.paused)
        self._loop.replace(schedule.entries)

    def _amend(self, changes: Amended) -> None:
        self.card.schedule = self.card.schedule._replace(runtime=changes.runtime, paused=changes.paused)
        self._loop.amend(changes.put, changes.gone)

    def _turned(self) -> None:
        self._watchdog()
        self.card.turned()

    def _give_up(self) -> None:
        self._elector.stop()
        self._on_hang()

    def _beat(self, seat: Seat) -> Beat:
        settings, store, keys, clock = self._settings, self._store, self._keys, self._clock
        shard, shards, keep = seat.shard, settings.leader.shards, settings.history.keep
        claims = Claims(store.client, keys, shard=shard, shards=shards, replicas=self._replicas, keep=keep)
        outbox = Outbox(store.client, keys, shard=shard, shards=shards)
        behind_outbox = OutboxOutlet(outbox, self._publisher, clock)
        outlet: Outlet = StoreOutlet(self._publisher, behind_outbox) if store.is_broker else behind_outbox
        messages = Messages(settings.broker.default_queue, most_bytes=settings.broker.max_message_bytes)
        running = Running(store.client, keys)
        held = Held(HeldBack(store.client, keys, shards=shards), shard)
        dispatcher = Dispatcher(claims, messages, outlet, running, clock, held=held)
        requests = Requests(store.client, keys, shard=shard, keep=keep)
        courier = Courier(requests, messages, outlet, running, report=dispatcher.report, clock=clock)
        dispatched = Dispatched(store.client, keys)
        return Beat(
            clock=clock,
            elector=seat,
            claims=claims,
            dispatcher=dispatcher,
            heap=DueHeap(),
            manual=Manual(courier, dispatched, owns=lambda name: shard_of(name, shards) == shard),
            wake=self._wake,
            on_turn=self._turned,
        )


class Store:
    """The state store as it was found: reachable, fit, and whether it is the broker, too."""

    def __init__(self, settings: Settings, url: str) -> None:
        """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`."""
        self.url = url
        self._timeout_ms = settings.redis.timeout_ms
        self._ttl_ms = settings.leader.ttl_ms
        self.client = connect(url, timeout_ms=self._timeout_ms)
        server.inspect(self.client)
        if settings.redis.wait_replicas:
            server.check_wait(self.client)
        self.is_broker = self._is_broker(settings.broker.url)

    def elector_client(self) -> redis.Redis:
        """A connection of its own, with a timeout short enough for a second attempt before trust ends."""
        return connect(self.url, timeout_ms=min(self._timeout_ms, self._ttl_ms // 3), name="beatd-elector")

    def runtime_client(self) -> redis.Redis:
        """A connection of its own for runtime entries and orders."""
        return connect(self.url, timeout_ms=self._timeout_ms, name="beatd-runtime")

    def _is_broker(self, broker_url: str | None) -> bool:
        if broker_url is None:
            return True
        if not broker.is_redis(broker_url):
            return False
        with connect(broker.redis_url(broker_url), timeout_ms=self._timeout_ms) as other:
            return server.same(self.client, other)


def await_store(
    settings: Settings,
    url: str,
    stopping: threading.Event,
    *,
    fail_fast: bool = False,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Store | None:
    """The store, when it can be reached; ``None`` if ``stopping`` was set before that.

    ``on_wait`` is called after each attempt that failed, with the reason.

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
            on_wait(str(error))
            stopping.wait(pause)
            pause = min(pause * 2, RETRY_MAX)
    return None
