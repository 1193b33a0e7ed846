"""Let everything break for a while, then put the books in order."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.chaos.broker_faults import (
    RABBIT_FAULTS,
    REDIS_FAULTS,
    WORKER_FAULTS,
    BrokerFaults,
    RabbitFaults,
    WorkerFaults,
)
from tests.chaos.cluster import MASTERS, ChaosCluster
from tests.chaos.cluster_faults import CLUSTER_FAULTS, REPLICA_FAULTS, ClusterFaults
from tests.chaos.faults import DAEMON_FAULTS, STORE_FAULTS, DaemonFaults, Faults, Repairs, StoreFaults
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Account, Books, Records, balance
from tests.chaos.proxy import Proxy
from tests.chaos.sides import PROXIED, RabbitSide, RedisSide, Side, StoreSide
from tests.chaos.store import ChaosStore, StateStore
from tests.chaos.work import Executions, Window, Work

STANDSTILL = 60.0
"""Seconds without a claim after which nobody is said to lead, once all is put right."""


class Trial(NamedTuple):
    """What is tried."""

    seconds: float
    seed: int
    ttl_ms: int = 5_000
    longest: float = 40.0
    """Seconds for which a daemon may be frozen."""
    broker: str = "store"
    """``store``, or ``redis`` (another one) or ``rabbitmq`` with the bundled worker behind it."""
    cluster: int = 0
    """Nodes of the cluster that is the store; 0: the store is one server."""
    wait_replicas: int = 0
    shards: int = 1
    size: int = 100
    """Seven runs a second for each."""
    power_loss: bool = False
    """The store keeps its file as ``everysec`` says, and loses what was not in it."""
    kinds: tuple[str, ...] = ()
    """Only these faults; all of them, if empty."""
    store: str = "redis"
    keep: bool = False
    """Keep the logs, although all is well."""
    older: str = ""
    """A folder with another version of beatd: two of the daemons are of that."""

    @property
    def faults(self) -> tuple[str, ...]:
        return self.kinds or self.all_faults

    @property
    def is_confirmed(self) -> bool:
        """Whether each failover must keep what was confirmed: all replicas have it, or there are none."""
        return self.cluster > 0 and self.wait_replicas >= self.cluster // MASTERS - 1

    @property
    def all_faults(self) -> tuple[str, ...]:
        """All that can go wrong with what is tried."""
        broker = {"store": (), "redis": REDIS_FAULTS, "rabbitmq": RABBIT_FAULTS}[self.broker]
        of_replicas = REPLICA_FAULTS if self.cluster > MASTERS else ()
        store = (*CLUSTER_FAULTS, *of_replicas) if self.cluster else STORE_FAULTS
        return (*DAEMON_FAULTS, *store, *broker, *(WORKER_FAULTS if broker else ()))


class Result(NamedTuple):
    """The books, and what happened on the way."""

    seed: int
    account: Account
    repeats: int
    """Messages that came again, under the same id, as they may."""
    executions: Executions | None
    terms: int
    went_back: int
    unexpected: int
    """How often writes were lost that replicas had confirmed, or that no fault may lose."""
    faults: list[str]
    versions: set[str]
    """The versions of beatd that were there."""
    folder: Path

    @property
    def good(self) -> bool:
        wrong = self.account.lost or self.account.doubled or self.account.strange or self.unexpected
        return not (wrong or (self.executions and (self.executions.missing or self.executions.twice)))

    def __str__(self) -> str:
        repeats = f", {self.repeats} came again with the same id" * bool(self.repeats)
        executed = f"; {self.executions}" * (self.executions is not None)
        noticed = f"; lost writes noticed {self.went_back} times" * bool(self.went_back)
        noticed += f", {self.unexpected} times unexpectedly" * bool(self.unexpected)
        happened = f"{len(self.faults)} faults, {self.terms} terms{noticed}"
        return f"seed {self.seed}: {self.account}{repeats}{executed}; {happened}"


def run(trial: Trial) -> Result:
    """Three daemons, some time of faults, and the account. Logs are kept where they are if it is not good."""
    folder = Path(tempfile.mkdtemp(prefix="beatd-chaos-"))
    repairs = Repairs(random.Random(trial.seed))
    with ExitStack() as stack:
        place = _place(trial, repairs, stack)
        side = _side(trial, place.store)
        stack.callback(side.close)
        fleet = Fleet(folder, [_config(number, trial, side, place) for number in (1, 2, PROXIED)], trial.older)
        stack.callback(fleet.close)
        records = Records(place.store)
        side.began(folder)
        for daemon in fleet.daemons:
            daemon.start()
        _until(lambda: len(records.last_due()) == len(side.plan.intervals), 30, "all entries to be known")
        began = records.first_seen()
        daemons = DaemonFaults(
            fleet, lambda: _lease(place.store, trial, repairs.random), repairs, longest=trial.longest
        )
        parts = (daemons, place.faults, *_broker_faults(side, repairs, trial.longest))
        faults = Faults(trial.faults, repairs.random, parts)
        _break(faults, fleet, side, place, repairs, trial.seconds)
        repairs.make(all_of_them=True)
        _settle(records.last_due, fleet, side)
        _until(lambda: not _outboxes(place.store, trial), STANDSTILL, "the outboxes to be empty")
        place.watch()
        for daemon in fleet.daemons:
            daemon.stop()
        due = records.due(began, side.plan.intervals)
        books, executions = side.finish(due, place.unsettled())
        account, repeats = _excuse(
            balance(records, books, began, due), books, place.rolled_back(), repeats=side.repeats
        )
        terms, went_back = fleet.events("term_began"), fleet.events("store_went_back")
        unexpected = fleet.lost_though_confirmed() if trial.is_confirmed else 0
        counts = terms, went_back, unexpected
        result = Result(trial.seed, account, repeats, executions, *counts, faults.log, fleet.versions(), folder)
    if result.good and not trial.keep:
        shutil.rmtree(folder)
    return result


class Place(NamedTuple):
    """The state store, what may happen to it, and how one daemon reaches it."""

    store: StateStore
    proxied_url: str
    faults: StoreFaults | ClusterFaults
    watch: Callable[[], None]

    def rolled_back(self) -> list[Window]:
        return self.faults.rolled_back if isinstance(self.faults, StoreFaults) else []

    def unsettled(self) -> list[Window]:
        return self.faults.all_unsettled() if isinstance(self.faults, ClusterFaults) else []


def _place(trial: Trial, repairs: Repairs, stack: ExitStack) -> Place:
    if trial.cluster:
        cluster = ChaosCluster(trial.store, trial.cluster, trial.shards)
        stack.callback(cluster.close)
        of_nodes = ClusterFaults(cluster, repairs, longest=trial.longest)
        return Place(cluster, cluster.url, of_nodes, of_nodes.watch)
    store = ChaosStore(trial.store, "everysec" if trial.power_loss else "always")
    stack.callback(store.close)
    store.start()
    proxy = stack.enter_context(Proxy(store.port))
    of_store = StoreFaults(store, proxy, repairs, longest=trial.longest, power_loss=trial.power_loss)
    return Place(store, f"redis://127.0.0.1:{proxy.port}/0", of_store, store.watch)


def _side(trial: Trial, store: StateStore) -> Side:
    if trial.broker == "rabbitmq":
        return RabbitSide(trial.size, trial.store)
    if trial.broker == "redis":
        return RedisSide(trial.size, trial.store)
    assert isinstance(store, ChaosStore), "a cluster is no broker"
    return StoreSide(store, trial.size)


def _broker_faults(side: Side, repairs: Repairs, longest: float) -> list[object]:
    if isinstance(side, StoreSide):
        return []
    assert isinstance(side, RedisSide | RabbitSide)

    def work() -> Work:
        assert side.work is not None
        return side.work

    kind = RabbitFaults if isinstance(side, RabbitSide) else BrokerFaults
    return [kind(side.node, side.proxy, repairs, longest=longest), WorkerFaults(work, repairs)]


def _config(number: int, trial: Trial, side: Side, place: Place) -> str:
    url = place.proxied_url if number == PROXIED else place.store.url
    wait = f'timeout = "2s"\nwait_replicas = {trial.wait_replicas}\n' if trial.cluster else ""
    leader = f'[leader]\nttl = "{trial.ttl_ms}ms"\nshards = {trial.shards}\n'
    return f'[redis]\nurl = "{url}"\n{wait}{side.toml(number)}{leader}{side.plan.schedule}'


def _lease(store: StateStore, trial: Trial, chance: random.Random) -> bytes | None:
    """The lease of any shard."""
    key = store.keys.shard(chance.randrange(trial.shards)).lease
    with store.client_of(key) as client:
        lease: bytes | None = client.get(key)
        return lease


def _outboxes(store: StateStore, trial: Trial) -> int:
    """How many are not empty."""
    count = 0
    for number in range(trial.shards):
        key = store.keys.shard(number).outbox
        with store.client_of(key) as client:
            count += client.exists(key)
    return count


def _break(faults: Faults, fleet: Fleet, side: Side, place: Place, repairs: Repairs, seconds: float) -> None:
    now = time.monotonic()
    end, next_fault = now + seconds, now + 2
    while (now := time.monotonic()) < end:
        if now >= next_fault:
            faults.next()
            next_fault = time.monotonic() + repairs.random.uniform(0.5, 4)
        repairs.make()
        _check(fleet, side)
        place.watch()
        time.sleep(0.05)


def _check(fleet: Fleet, side: Side) -> None:
    for daemon in fleet.daemons:
        daemon.check()
    side.check()


def _settle(last_dues: Callable[[], Mapping[str, int]], fleet: Fleet, side: Side) -> None:
    """Until what was due when the last fault was put right has been claimed."""
    target, intervals = time.time_ns() // 1_000_000, side.plan.intervals
    known: Mapping[str, int] = {}

    def moved() -> bool:
        nonlocal known
        _check(fleet, side)
        before, known = known, last_dues()
        return known != before

    while not known or any(known[name] + interval <= target for name, interval in intervals.items()):
        _until(moved, STANDSTILL, f"another claim (see {fleet.folder})")


POSTPONED_S = 3.0
"""For up to two seconds the server postpones writing while the disk is busy with what was written before. One more is
for the ledger, which looks now and then."""


def _excuse(
    account: Account, books: Books, rolled_back: list[tuple[float, float]], *, repeats: bool
) -> tuple[Account, int]:
    """What may come again, and how often it did.

    A run whose claim was lost with the store's power is claimed again: its message may have been taken before that. And
    behind an outbox a message may be published again by who does not know that it was, under the same id.
    """
    excused = {
        run
        for run in account.doubled
        if repeats or any(begin - POSTPONED_S <= books.first_at[run] <= end for begin, end in rolled_back)
    }
    count = sum(seen - 1 for (name, due_ms, _), seen in books.seen.items() if (name, due_ms) in excused)
    return account._replace(doubled=[run for run in account.doubled if run not in excused]), count


def _until(predicate: Callable[[], bool], timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            if predicate():
                return
        except Exception as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout} s in vain for {what}") from error
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain for {what}")
        time.sleep(0.1)
