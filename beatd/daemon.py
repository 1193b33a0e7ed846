"""The daemon: the parts are put together here, from settings to a running process. Nothing is decided here."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Sequence

from beatd import broker
from beatd.beat.daemon_commands import CommandHandler
from beatd.beat.daemon_status import DaemonStatus, ScheduleStatus
from beatd.beat.delivery import Delivery, DirectDelivery, OutboxDelivery
from beatd.beat.dispatcher import Dispatcher
from beatd.beat.elector import Elector
from beatd.beat.heap import DueHeap
from beatd.beat.held import Held
from beatd.beat.loop import DaemonLoop, ShardLoop
from beatd.beat.manual_dispatch import ManualDispatcher
from beatd.beat.manual_runs import ManualRuns
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Leadership
from beatd.beat.watchdog import Watchdog
from beatd.clock import SystemClock
from beatd.config import Config
from beatd.sources import InForce, RuntimeSource, ScheduleChange
from beatd.state_store import Store
from beatd.store.claims import Claims
from beatd.store.daemon_commands import CommandReply, DaemonCommands
from beatd.store.daemon_registry import Registry
from beatd.store.entry_state import Dispatched, Running
from beatd.store.held_back import HeldBack
from beatd.store.keys import Keys, shard_of
from beatd.store.lease import Leases
from beatd.store.outbox import Outbox
from beatd.store.run_requests import Requests
from beatd.store.script import Replicas

FAULTS_TOLD = 20
"""Faults of the files that are told to who asked for them to be read."""


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
        self.card = DaemonStatus(me, clock, shards=leader.shards, lapse_ms=Elector.lapse_ms(leader.ttl_ms))
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
        self._loop = DaemonLoop(beats, clock, wake)
        self.stop = self._loop.stop
        """End :meth:`run`; may be called from a signal handler."""
        runtime = store.runtime_client()
        self._orderly = CommandHandler(
            DaemonCommands(runtime, keys), me, reload=on_reload, step_down=self._elector.rest
        )
        self._source = RuntimeSource(
            runtime,
            keys,
            config,
            on_change=self._put_in_force,
            on_amend=self._amend,
            on_read=self.card.read,
            on_order=self._orderly.look,
            on_request=self._loop.ring,
            on_faults=self.card.runtime_faults,
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
            CommandReply(
                ok=not faults, digest=digest, entries=entries, faults=shown, more_faults=len(faults) - len(shown)
            )
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
        self.card.schedule = ScheduleStatus(len(config.entries), config.digest, schedule.runtime, schedule.paused)
        self._loop.replace(schedule.entries)

    def _amend(self, changes: ScheduleChange) -> None:
        self.card.schedule = self.card.schedule._replace(runtime=changes.runtime, paused=changes.paused)
        self._loop.amend(changes.put, changes.gone)

    def _turned(self) -> None:
        self._watchdog()
        self.card.turned()

    def _give_up(self) -> None:
        self._elector.stop()
        self._on_hang()

    def _beat(self, seat: Leadership) -> ShardLoop:
        settings, store, keys, clock = self._settings, self._store, self._keys, self._clock
        shard, shards, keep = seat.shard, settings.leader.shards, settings.history.keep
        claims = Claims(store.client, keys, shard=shard, shards=shards, replicas=self._replicas, keep=keep)
        outbox = Outbox(store.client, keys, shard=shard, shards=shards)
        behind_outbox = OutboxDelivery(outbox, self._publisher, clock)
        outlet: Delivery = DirectDelivery(self._publisher, behind_outbox) if store.is_broker else behind_outbox
        messages = MessageBuilder(settings.broker.default_queue, most_bytes=settings.broker.max_message_bytes)
        running = Running(store.client, keys)
        held = Held(HeldBack(store.client, keys, shards=shards), shard)
        dispatcher = Dispatcher(claims, messages, outlet, running, clock, held=held)
        requests = Requests(store.client, keys, shard=shard, keep=keep)
        courier = ManualDispatcher(requests, messages, outlet, running, report=dispatcher.report, clock=clock)
        dispatched = Dispatched(store.client, keys)
        return ShardLoop(
            clock=clock,
            elector=seat,
            claims=claims,
            dispatcher=dispatcher,
            heap=DueHeap(),
            manual=ManualRuns(courier, dispatched, owns=lambda name: shard_of(name, shards) == shard),
            wake=self._wake,
            on_turn=self._turned,
        )
