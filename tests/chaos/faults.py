"""What may go wrong. Each fault takes effect at once, and puts itself right in time."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count

import redis

from beatd.store.keys import Keys
from tests.chaos.fleet import Fleet, Place
from tests.chaos.proxy import Proxy
from tests.chaos.store import ChaosStore

FAULTS = (
    "kill_leader", "kill_leader", "kill_standby", "freeze_leader", "freeze_leader", "freeze_standby", "stop_leader",
    "stop_standby", "restart_store", "kill_clients", "pause_clients", "forget_scripts", "reload", "network", "network",
)  # fmt: skip


class Faults:
    """Breaks things at random; ``random`` decides what, when, and for how long."""

    def __init__(
        self,
        fleet: Fleet,
        store: ChaosStore,
        proxy: Proxy,
        chance: random.Random,
        *,
        kinds: Sequence[str] = FAULTS,
        longest: float,
        power_loss: bool = False,
        shards: int = 1,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._proxy = proxy
        self._random = chance
        self._kinds = kinds
        self._longest = longest
        self._power_loss = power_loss
        self._leases = [Keys().shard(number).lease for number in range(shards)]
        self._repairs: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self.log: list[str] = []
        self.rolled_back: list[tuple[float, float]] = []
        """From when to when (monotonic) writes were lost with the store's power."""

    def next(self) -> None:
        """Let one thing go wrong."""
        name = self._random.choice(self._kinds)
        said = getattr(self, f"_{name}")()
        self.log.append(f"{name}: {said}" if said else name)

    def repair(self, *, all_of_it: bool = False) -> None:
        """Put right what has been broken for long enough."""
        while self._repairs and (all_of_it or self._repairs[0][0] <= time.monotonic()):
            heappop(self._repairs)[2]()

    def _later(self, seconds: float, repair: Callable[[], None]) -> str:
        heappush(self._repairs, (time.monotonic() + seconds, next(self._numbers), repair))
        return f"{seconds:.1f} s"

    def _leader(self) -> Place | None:
        """Who leads; with several shards: one of them."""
        lease = self._random.choice(self._leases)
        with contextlib.suppress(redis.RedisError), self._store.client() as client:
            return self._fleet.holder(client.get(lease))
        return None

    def _one(self, *, leading: bool) -> Place | None:
        """A daemon that runs, the leader or another one."""
        leader = self._leader()
        able = [one for one in self._fleet.daemons if one.pid and not one.frozen and (one is leader) == leading]
        return self._random.choice(able) if able else None

    def _kill(self, *, leading: bool) -> str:
        if (daemon := self._one(leading=leading)) is None:
            return "nobody"
        daemon.kill()
        return f"{daemon.name} for {self._later(self._random.uniform(0.1, 8), daemon.start)}"

    def _freeze(self, *, leading: bool) -> str:
        if (daemon := self._one(leading=leading)) is None:
            return "nobody"
        daemon.send(signal.SIGSTOP)
        pid = daemon.pid

        def thaw() -> None:
            if daemon.pid == pid and daemon.frozen:
                daemon.send(signal.SIGCONT)

        return f"{daemon.name} for {self._later(self._random.uniform(0.5, self._longest), thaw)}"

    def _stop(self, *, leading: bool) -> str:
        if (daemon := self._one(leading=leading)) is None:
            return "nobody"
        took = daemon.stop()
        return f"{daemon.name}, which took {took:.2f} s, for {self._later(self._random.uniform(0, 3), daemon.start)}"

    def _kill_leader(self) -> str:
        return self._kill(leading=True)

    def _kill_standby(self) -> str:
        return self._kill(leading=False)

    def _freeze_leader(self) -> str:
        return self._freeze(leading=True)

    def _freeze_standby(self) -> str:
        return self._freeze(leading=False)

    def _stop_leader(self) -> str:
        return self._stop(leading=True)

    def _stop_standby(self) -> str:
        return self._stop(leading=False)

    def _reload(self) -> str:
        if (daemon := self._one(leading=True)) is None:
            return "nobody"
        daemon.send(signal.SIGHUP)
        return daemon.name

    def _restart_store(self) -> str:
        if not self._store.running:
            return "is down already"
        if self._power_loss:
            lost = self._store.lose_power(self._random.uniform(0.1, 1.0))
            self.rolled_back.append((time.monotonic() - lost, time.monotonic()))
            return f"lost {lost:.2f} s of writes; down for {self._later(self._random.uniform(0, 4), self._bring_up)}"
        self._random.choice((self._store.kill, self._store.stop))()
        return f"down for {self._later(self._random.uniform(0, 4), self._bring_up)}"

    def _bring_up(self) -> None:
        self._store.start()

    def _kill_clients(self) -> str:
        killed = [self._tell("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes") for kind in ("normal", "pubsub")]
        return " and ".join(killed)

    def _pause_clients(self) -> str:
        kind = self._random.choice(("ALL", "WRITE"))
        return f"{kind} " + self._tell("CLIENT", "PAUSE", str(self._random.randint(200, 8000)), kind)

    def _forget_scripts(self) -> str:
        return self._tell("SCRIPT", "FLUSH")

    def _tell(self, *command: str) -> str:
        try:
            with self._store.client() as client:
                return str(client.execute_command(*command))
        except redis.RedisError as error:
            return f"not told: {error}"

    def _network(self) -> str:
        """Break the way between one daemon and the store."""
        return self._break(self._proxy)

    def _break(self, proxy: Proxy) -> str:
        mode = self._random.choice(("stall", "refuse", "deaf", "slow"))
        proxy.mode = mode
        until = self._random.uniform(0.5, self._longest / 2)

        def pass_again() -> None:
            proxy.mode = "pass"

        return f"{mode} for {self._later(until, pass_again)}"
