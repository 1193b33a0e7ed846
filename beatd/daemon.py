"""Daemon: the composition root, from settings to a running process. Nothing is decided here."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from itertools import chain

from beatd import broker
from beatd.beat.audit import ScheduleAudit
from beatd.beat.daemon_commands import CommandHandler
from beatd.beat.daemon_status import DaemonParts, DaemonStatus, ScheduleStatus
from beatd.beat.delivery import Delivery, DirectDelivery, NoDelivery, OutboxDelivery
from beatd.beat.dispatcher import Dispatcher
from beatd.beat.elector import Elector
from beatd.beat.heap import DueHeap
from beatd.beat.held import Held
from beatd.beat.loop import DaemonLoop, ShardLoop
from beatd.beat.manual_dispatch import ManualDispatcher
from beatd.beat.manual_runs import ManualRuns
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.notifications import notifier
from beatd.beat.outcomes import OutcomeWatch
from beatd.beat.run_traces import RunTraces
from beatd.beat.term import Leadership
from beatd.beat.watchdog import Watchdog
from beatd.broker import Publisher
from beatd.broker.redis_keys import RedisKeys
from beatd.clock import Clock, SystemClock
from beatd.config import Config
from beatd.metrics.counters import DaemonCounters
from beatd.model import Settings
from beatd.sources import InForce, RuntimeSource, ScheduleChange
from beatd.sources.calendars import Calendars
from beatd.state_store import Store, result_urls, store_keys
from beatd.store.audit import Audit
from beatd.store.claims import Claims
from beatd.store.client import connect
from beatd.store.daemon_commands import CommandReply, DaemonCommands
from beatd.store.daemon_registry import Registry
from beatd.store.entry_state import DispatchLookup, EntryStates, Running
from beatd.store.held_back import HeldBack
from beatd.store.history_reader import Histories
from beatd.store.keys import Keys, shard_of
from beatd.store.lease import Leases
from beatd.store.outbox import Outbox
from beatd.store.outcomes import Outcomes
from beatd.store.run_requests import Requests
from beatd.store.script import Replicas
from beatd.store.server_check import NodeCheck
from beatd.store.undelivered import Undelivered

FAULTS_TOLD = 20
"""Number of errors of the files in the answer to a reload."""


def daemon_id() -> str:
    """Return an identity for this process: readable, and never used twice: a restarted daemon is another one."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class Daemon:
    """One beatd process: it campaigns for its share of the shards, and runs the loop of each shard that it leads.

    It receives the merged schedule from :class:`~beatd.sources.RuntimeSource`, as its ``ScheduleReceiver``. ``on_hang``
    is called, from another thread, when the loop has made no progress for a minute; ``on_reload``, from another thread,
    when an operator wants the files to be read again. A ``dry_run`` claims and logs runs, and sends none.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        *,
        on_hang: Callable[[], None],
        on_reload: Callable[[], None],
        dry_run: bool = False,
    ) -> None:
        settings, clock, wake = config.settings, SystemClock(), threading.Event()
        keys, identity = store_keys(settings), daemon_id()
        lapse_ms = Elector.lapse_ms(settings.leader.ttl_ms)
        self._on_hang = on_hang
        self._status = DaemonStatus(identity, clock, shards=settings.leader.shards, lapse_ms=lapse_ms)
        self._watchdog = Watchdog(self._give_up)
        self._publisher = broker.open(settings.broker.url or store.url)
        self._elector = _elector(settings, store, keys, status=self._status, clock=clock, on_change=wake.set)
        self._counters = DaemonCounters()
        self._traces = RunTraces.if_enabled(clock)
        builder = ShardBuilder(
            settings, store, keys, self._publisher, clock,
            counters=self._counters, traces=self._traces, dry_run=dry_run,
        )  # fmt: skip
        self._status.unreplicated = lambda: builder.replicas.unreplicated
        shards = [builder.build(leadership, self._turned) for leadership in self._elector.leaderships]
        self._status.shards = shards
        self._status.task_faults = tuple(map(str, config.task_faults))
        self._loop = DaemonLoop(shards, clock, wake)
        runtime = store.runtime_client
        step_down = self._elector.step_down_for
        self._commands = CommandHandler(DaemonCommands(runtime, keys), identity, reload=on_reload, step_down=step_down)
        self._source = RuntimeSource(runtime, keys, config, self, replica=store.runtime, changes=store.runtime_changes)
        self._calendars = Calendars.of(settings, writes=True)
        self._audit = ScheduleAudit(Audit(runtime, keys), identity, config, clock)
        self._outcomes = _outcome_watch(settings, store, keys, clock, shards, on_look=self._audit.look)
        self._notifier = notifier(
            settings, store.url, keys, shards, elector=self._elector, counters=self._counters, clock=clock
        )
        readable = keys.without({})
        self.parts = DaemonParts(
            self._status,
            self._elector.leaderships,
            self._counters,
            Registry(store.metrics_client, keys),
            Outcomes(store.metrics_client, readable),
            NodeCheck(store.metrics_client, readable),
            Undelivered(store.metrics_client, keys),
            lambda: self._elector.store_away_s,
            lambda: self._elector.store_error,
            lambda: self._elector.watch.problems,
            lambda: self._elector.clock_offset_ms,
        )
        """The parts from which its metrics and health are read."""

    def run(self) -> None:
        """Serve until told to stop; then release the leases."""
        self._source.start()
        self._watchdog.start()
        while not (self._source.read.wait(0.1) or self._loop.stopping):
            self._watchdog()  # without the pauses nothing may leave
        self._elector.start()
        self._outcomes.start()
        self._calendars.start(self._status.calendars_read)
        self._notifier.start()
        if self._traces is not None:
            self._traces.start()
        try:
            self._loop.run()
        finally:
            self._watchdog.stop()
            self._notifier.stop()
            self._elector.stop()
            self._source.stop()
            self._outcomes.stop()
            self._calendars.stop()
            self._publisher.close()
            if self._traces is not None:
                self._traces.stop()

    def stop(self) -> None:
        """End :meth:`run`. May be called from a signal handler."""
        self._loop.stop()

    # The files: called by the process that reads them.

    def reload_begins(self) -> None:
        """Note that the files are about to be read again."""
        self._commands.begin()

    def reload_ended(self, faults: Sequence[str]) -> None:
        """Answer who asked for a reload; ``faults`` are the errors of the files."""
        self._counters.reloads["broken" if faults else "ok"] += 1
        self._counters.faults = len(faults)
        schedule, shown = self._status.schedule, list(faults[:FAULTS_TOLD])
        more = len(faults) - len(shown)
        self._commands.end(
            CommandReply(
                ok=not faults, digest=schedule.digest, entries=schedule.entries, faults=shown, more_faults=more
            )
        )

    def files_read(self, faults: Sequence[str]) -> None:
        """Tell the other daemons the errors of the files; with errors the last good schedule stays in force."""
        self._status.file_faults = faults

    def set_base(self, config: Config) -> None:
        """Put what files and app say in force, with the store's entries and pauses over it. From any thread."""
        self._audit.set_base(config)
        self._status.task_faults = tuple(map(str, config.task_faults))
        self._source.set_base(config)

    # The merged schedule: called by the runtime source.

    def replace_schedule(self, schedule: InForce) -> None:
        """Put a whole schedule in force at the next turn."""
        config = schedule.config
        self._status.schedule = ScheduleStatus(len(config.entries), config.digest, schedule.runtime, schedule.paused)
        self._loop.replace(schedule.entries)
        self._notifier.set_targets(config.settings.notify)
        self._notifier.set_entries(schedule.entries)

    def change_schedule(self, change: ScheduleChange) -> None:
        """Put a change in force at the next turn."""
        self._status.schedule = self._status.schedule._replace(runtime=change.runtime, paused=change.paused)
        self._loop.amend(change.put, change.gone)
        self._notifier.change_entries(change.put, change.gone)

    def runtime_entries_read(self, revision: int) -> None:
        """Note that the store's entries and pauses are in force as of ``revision``."""
        self._status.read(revision)

    def runtime_faults(self, names: Sequence[str]) -> None:
        """Note the names of runtime entries that are wrong, and so not in force."""
        self._status.runtime_faults(names)

    def look_for_commands(self) -> None:
        """Carry out new commands to daemons."""
        self._commands.look()

    def look_for_run_requests(self) -> None:
        """Look for requests for runs at the next turn."""
        self._loop.look_for_run_requests()

    def _turned(self) -> None:
        self._watchdog()
        self._status.turned()

    def _give_up(self) -> None:
        self._elector.stop()
        self._on_hang()


def _elector(
    settings: Settings, store: Store, keys: Keys, *, status: DaemonStatus, clock: Clock, on_change: Callable[[], None]
) -> Elector:
    leader, client = settings.leader, store.elector_client
    return Elector(
        Leases(client, keys, daemon_id=status.daemon_id, ttl_ms=leader.ttl_ms),
        Registry(client, keys),
        clock,
        shards=leader.shards,
        ttl_ms=leader.ttl_ms,
        renew_ms=leader.renew_ms,
        status=status.status,
        on_change=on_change,
        fleet=store.fleet,
    )


def _outcome_watch(
    settings: Settings,
    store: Store,
    keys: Keys,
    clock: Clock,
    shards: Sequence[ShardLoop],
    *,
    on_look: Callable[[], None],
) -> OutcomeWatch:
    """Watch with connections of its own, one to each server that may have results."""
    timeout_ms = settings.redis.timeout_ms
    client = connect(store.url, timeout_ms=timeout_ms, name="beatd-outcomes")
    keys = keys.without({})  # its own: the parts of a cluster that it looks at change
    results = [
        connect(url, timeout_ms=timeout_ms, name="beatd-results", role="result backend")
        for url in result_urls(settings)
    ]
    return OutcomeWatch(
        lambda: [shard.led() for shard in shards],
        lambda: chain.from_iterable([shard.ran_since() for shard in shards]),
        Outcomes(client, keys),
        Histories(client, keys, results=results),
        EntryStates(client, keys),
        clock=clock,
        check_nodes=NodeCheck(client, keys),
        on_look=on_look,
    )


class ShardBuilder:
    """Builder of shard loops: each with its claims, delivery, dispatcher and manual runs, on shared connections."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        keys: Keys,
        publisher: Publisher,
        clock: Clock,
        *,
        counters: DaemonCounters,
        traces: RunTraces | None = None,
        dry_run: bool = False,
    ) -> None:
        self._dry_run = dry_run
        self._settings, self._store, self._keys, self._publisher, self._clock = settings, store, keys, publisher, clock
        self._counters, self._traces = counters, traces
        self.replicas = Replicas(settings.redis.wait_replicas, settings.redis.wait_timeout_ms)

    def build(self, leadership: Leadership, on_turn: Callable[[], None]) -> ShardLoop:
        """Return the loop of the shard of ``leadership``."""
        settings, client, keys, clock = self._settings, self._store.client, self._keys, self._clock
        shard, shards, keep = leadership.shard, settings.leader.shards, settings.history.keep
        claims = Claims(client, keys, shard=shard, shards=shards, replicas=self.replicas, keep=keep)
        delivery = self._delivery(shard)
        messages = MessageBuilder(
            settings.broker.default_queue,
            most_bytes=settings.broker.max_message_bytes,
            trace=self._traces.context if self._traces else None,
        )
        running = Running(client, keys, shard=shard)
        held = Held(HeldBack(client, keys, shards=shards), shard)
        counters, traces = self._counters, self._traces
        dispatcher = Dispatcher(claims, messages, delivery, running, clock, held=held, counters=counters, traces=traces)
        requests = Requests(client, keys, shard=shard, keep=keep)
        manual = ManualDispatcher(requests, messages, delivery, running, report=dispatcher.report, clock=clock)
        return ShardLoop(
            clock=clock,
            leadership=leadership,
            claims=claims,
            dispatcher=dispatcher,
            heap=DueHeap(),
            manual=ManualRuns(manual, DispatchLookup(client, keys), owns=lambda name: shard_of(name, shards) == shard),
            on_turn=on_turn,
        )

    def _delivery(self, shard: int) -> Delivery:
        """Direct where the store is the broker; an outbox of former times is emptied all the same."""
        if self._dry_run:
            return NoDelivery()
        outbox = Outbox(self._store.client, self._keys, shard=shard, shards=self._settings.leader.shards)
        by_outbox = OutboxDelivery(outbox, self._publisher, self._clock)
        if not self._store.is_broker:
            return by_outbox
        return DirectDelivery(self._publisher, by_outbox, RedisKeys.of(self._settings.broker.url or self._store.url))
