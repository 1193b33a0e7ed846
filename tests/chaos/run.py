"""Let everything break for a while, then put the books in order."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.chaos.faults import FAULTS, Faults
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Account, Consumer, balance, first_seen, last_due
from tests.chaos.plan import INTERVALS, SCHEDULE
from tests.chaos.proxy import Proxy
from tests.chaos.store import ChaosStore

SETTLE = 60.0
"""Seconds within which every daemon leads or stands by again and every entry is up to date, once all is put right."""


class Result(NamedTuple):
    """The books, and what happened on the way."""

    seed: int
    account: Account
    repeated_after_power_loss: int
    terms: int
    went_back: int
    faults: list[str]
    folder: Path

    @property
    def good(self) -> bool:
        return not (self.account.lost or self.account.doubled or self.account.strange)

    def __str__(self) -> str:
        repeats = f", {self.repeated_after_power_loss} repeated after a loss of power" * bool(
            self.repeated_after_power_loss
        )
        noticed = f"; lost writes noticed {self.went_back} times" * bool(self.went_back)
        return f"seed {self.seed}: {self.account}{repeats}; {len(self.faults)} faults, {self.terms} terms{noticed}"


def run(
    seconds: float,
    seed: int,
    *,
    ttl_ms: int,
    longest: float,
    power_loss: bool = False,
    kinds: Sequence[str] = FAULTS,
    store_kind: str = "redis",
) -> Result:
    """Three daemons, ``seconds`` of faults, and the account. ``longest``: seconds for which a daemon may be frozen.

    Logs are kept where they are if the account is not good.
    """
    folder = Path(tempfile.mkdtemp(prefix="beatd-chaos-"))
    chance = random.Random(seed)
    with ExitStack() as stack:
        store = ChaosStore(store_kind, "everysec" if power_loss else "always")
        stack.callback(store.close)
        store.start()
        proxy = stack.enter_context(Proxy(store.port))
        urls = [store.url, store.url, f"redis://127.0.0.1:{proxy.port}/0"]
        fleet = Fleet(folder, SCHEDULE, urls, ttl_ms)
        stack.callback(fleet.close)
        client = stack.enter_context(store.client())
        consumer = stack.enter_context(Consumer(stack.enter_context(store.client())))
        for daemon in fleet.daemons:
            daemon.start()
        _until(lambda: len(last_due(client)) == len(INTERVALS), 30, "all entries to be known")
        began = first_seen(client)
        faults = Faults(fleet, store, proxy, chance, kinds=kinds, longest=longest, power_loss=power_loss)
        _break(faults, fleet, store, chance, seconds)
        faults.repair(all_of_it=True)
        _settle(client, fleet)
        for daemon in fleet.daemons:
            daemon.stop()
        consumer.__exit__()
        assert consumer.error is None, f"the consumer failed: {consumer.error!r}"
        consumer.drain()
        account, excused = _excuse(balance(client, consumer, began), consumer, faults.rolled_back)
        result = Result(
            seed, account, excused, fleet.events("term_began"), fleet.events("store_went_back"), faults.log, folder
        )
    if result.good:
        shutil.rmtree(folder)
    return result


def _break(faults: Faults, fleet: Fleet, store: ChaosStore, chance: random.Random, seconds: float) -> None:
    now = time.monotonic()
    end, next_fault = now + seconds, now + 2
    while (now := time.monotonic()) < end:
        if now >= next_fault:
            faults.next()
            next_fault = time.monotonic() + chance.uniform(0.5, 4)
        faults.repair()
        for daemon in fleet.daemons:
            daemon.check()
        if store.running:
            store.watch()
        time.sleep(0.05)


def _settle(client: object, fleet: Fleet) -> None:
    """Until what was due when the last fault was put right has been claimed."""
    target = time.time_ns() // 1_000_000

    def settled() -> bool:
        for daemon in fleet.daemons:
            daemon.check()
        due = last_due(client)
        return all(due[name] + interval > target for name, interval in INTERVALS.items())

    _until(settled, SETTLE, f"every entry to be up to date (see {fleet.folder})")


def _excuse(account: Account, consumer: Consumer, rolled_back: list[tuple[float, float]]) -> tuple[Account, int]:
    """A run whose claim was lost with the power is claimed again: its message may have been taken before that."""
    excused = [
        run for run in account.doubled if any(begin - 1 <= consumer.first_at[run] <= end for begin, end in rolled_back)
    ]
    return account._replace(doubled=[run for run in account.doubled if run not in set(excused)]), len(excused)


def _until(predicate: object, timeout: float, what: str) -> None:
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
