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

from beatd.store.keys import Keys
from tests.chaos.broker_faults import BROKER_FAULTS, BrokerFaults
from tests.chaos.faults import FAULTS, Faults
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Account, Books, balance, first_seen, last_due
from tests.chaos.proxy import Proxy
from tests.chaos.sides import PROXIED, RabbitSide, Side, StoreSide
from tests.chaos.store import ChaosStore
from tests.chaos.work import Executions

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
    """``store``, or ``rabbitmq`` with the bundled worker behind it."""
    shards: int = 1
    size: int = 100
    """Seven runs a second for each."""
    power_loss: bool = False
    """The store keeps its file as ``everysec`` says, and loses what was not in it."""
    kinds: tuple[str, ...] = ()
    """Only these faults; all of them, if empty."""
    store: str = "redis"

    @property
    def faults(self) -> tuple[str, ...]:
        return self.kinds or (FAULTS if self.broker == "store" else BROKER_FAULTS)


class Result(NamedTuple):
    """The books, and what happened on the way."""

    seed: int
    account: Account
    repeats: int
    """Messages that came again, under the same id, as they may."""
    executions: Executions | None
    terms: int
    went_back: int
    faults: list[str]
    folder: Path

    @property
    def good(self) -> bool:
        wrong = self.account.lost or self.account.doubled or self.account.strange
        return not (wrong or (self.executions and (self.executions.missing or self.executions.twice)))

    def __str__(self) -> str:
        repeats = f", {self.repeats} came again with the same id" * bool(self.repeats)
        executed = f"; {self.executions}" * (self.executions is not None)
        noticed = f"; lost writes noticed {self.went_back} times" * bool(self.went_back)
        happened = f"{len(self.faults)} faults, {self.terms} terms{noticed}"
        return f"seed {self.seed}: {self.account}{repeats}{executed}; {happened}"


def run(trial: Trial) -> Result:
    """Three daemons, some time of faults, and the account. Logs are kept where they are if it is not good."""
    folder = Path(tempfile.mkdtemp(prefix="beatd-chaos-"))
    chance = random.Random(trial.seed)
    with ExitStack() as stack:
        store = ChaosStore(trial.store, "everysec" if trial.power_loss else "always")
        stack.callback(store.close)
        store.start()
        proxy = stack.enter_context(Proxy(store.port))
        rabbit = RabbitSide(trial.size, trial.store) if trial.broker == "rabbitmq" else None
        side: Side = rabbit or StoreSide(store, trial.size)
        stack.callback(side.close)
        fleet = Fleet(folder, [_config(number, trial, side, store, proxy) for number in (1, 2, PROXIED)])
        stack.callback(fleet.close)
        client = stack.enter_context(store.client())
        side.began(folder)
        for daemon in fleet.daemons:
            daemon.start()
        _until(lambda: len(last_due(client)) == len(side.plan.intervals), 30, "all entries to be known")
        began = first_seen(client)
        given = {"kinds": trial.faults, "longest": trial.longest, "shards": trial.shards}
        faults = Faults(fleet, store, proxy, chance, power_loss=trial.power_loss, **given)
        if rabbit is not None:
            faults = BrokerFaults(fleet, store, proxy, chance, side=rabbit, **given)
        _break(faults, fleet, side, store, chance, trial.seconds)
        faults.repair(all_of_it=True)
        _settle(lambda: last_due(client), fleet, side)
        outboxes = [Keys().shard(number).outbox for number in range(trial.shards)]
        _until(lambda: not client.exists(*outboxes), STANDSTILL, "the outboxes to be empty")
        for daemon in fleet.daemons:
            daemon.stop()
        books, executions = side.finish()
        account = balance(client, books, began, side.plan.intervals)
        account, repeats = _excuse(account, books, faults.rolled_back, repeats=side.repeats)
        terms, went_back = fleet.events("term_began"), fleet.events("store_went_back")
        result = Result(trial.seed, account, repeats, executions, terms, went_back, faults.log, folder)
    if result.good:
        shutil.rmtree(folder)
    return result


def _config(number: int, trial: Trial, side: Side, store: ChaosStore, proxy: Proxy) -> str:
    url = f"redis://127.0.0.1:{proxy.port}/0" if number == PROXIED else store.url
    leader = f'[leader]\nttl = "{trial.ttl_ms}ms"\nshards = {trial.shards}\n'
    return f'[redis]\nurl = "{url}"\n{side.toml(number)}{leader}{side.plan.schedule}'


def _break(faults: Faults, fleet: Fleet, side: Side, store: ChaosStore, chance: random.Random, seconds: float) -> None:
    now = time.monotonic()
    end, next_fault = now + seconds, now + 2
    while (now := time.monotonic()) < end:
        if now >= next_fault:
            faults.next()
            next_fault = time.monotonic() + chance.uniform(0.5, 4)
        faults.repair()
        _check(fleet, side)
        if store.running:
            store.watch()
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
