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

from tests.chaos.fleet import Fleet, Place
from tests.chaos.proxy import Proxy
from tests.chaos.store import ChaosStore

DAEMON_FAULTS = (
    "kill_leader", "kill_leader", "kill_standby", "freeze_leader", "freeze_leader", "freeze_standby", "stop_leader",
    "stop_standby", "reload",
)  # fmt: skip
STORE_FAULTS = ("restart_store", "kill_clients", "pause_clients", "forget_scripts", "network", "network")

Leader = Callable[[], bytes | None]
"""Returns the lease of a shard that was chosen at random, as the store has it."""


class Repairs:
    """What has been broken, and until when."""

    def __init__(self, chance: random.Random) -> None:
        self.random = chance
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def after(self, least: float, most: float, repair: Callable[[], None]) -> str:
        """Repair between ``least`` and ``most`` seconds from now; returns the time in words."""
        seconds = self.random.uniform(least, most)
        heappush(self._due, (time.monotonic() + seconds, next(self._numbers), repair))
        return f"{seconds:.1f} s"

    def make(self, *, all_of_them: bool = False) -> None:
        """Put right what has been broken for long enough."""
        while self._due and (all_of_them or self._due[0][0] <= time.monotonic()):
            heappop(self._due)[2]()


class Faults:
    """Breaks one thing after the other, in an order that ``chance`` makes: each of ``kinds`` before any comes again.

    ``parts`` are the objects that can break things: each kind is the name of a method of one of them, which returns
    what it did.
    """

    def __init__(self, kinds: Sequence[str], chance: random.Random, parts: Sequence[object]) -> None:
        self._random = chance
        self._kinds = kinds
        self._left: list[str] = []
        self._parts = parts
        self.log: list[str] = []

    def next(self) -> None:
        """Let one thing go wrong."""
        if not self._left:
            self._left = self._random.sample(self._kinds, len(self._kinds))
        name = self._left.pop()
        part = next(part for part in self._parts if hasattr(part, name))
        self.log.append(f"{name}: {getattr(part, name)()}")


class DaemonFaults:
    """What may happen to daemons. ``longest``: seconds for which one may be frozen."""

    def __init__(self, fleet: Fleet, lease: Leader, repairs: Repairs, *, longest: float) -> None:
        self._fleet = fleet
        self._lease = lease
        self._repairs = repairs
        self._random = repairs.random
        self._longest = longest

    def _one(self, *, leading: bool) -> Place | None:
        """A daemon that runs: one that leads, with several shards one of them, or another one."""
        with contextlib.suppress(redis.RedisError):
            leader = self._fleet.holder(self._lease())
            able = [one for one in self._fleet.daemons if one.pid and not one.frozen and (one is leader) == leading]
            return self._random.choice(able) if able else None
        return None

    def _kill(self, *, leading: bool) -> str:
        if (daemon := self._one(leading=leading)) is None:
            return "nobody"
        daemon.kill()
        return f"{daemon.name} for {self._repairs.after(0.1, 8, daemon.start)}"

    def _freeze(self, *, leading: bool) -> str:
        if (daemon := self._one(leading=leading)) is None:
            return "nobody"
        daemon.send(signal.SIGSTOP)
        pid = daemon.pid

        def thaw() -> None:
            if daemon.pid == pid and daemon.frozen:
                daemon.send(signal.SIGCONT)

        return f"{daemon.name} for {self._repairs.after(0.5, self._longest, thaw)}"

    def _stop(self, *, leading: bool) -> str:
        if (daemon := self._one(leading=leading)) is None:
            return "nobody"
        took = daemon.stop()
        return f"{daemon.name}, which took {took:.2f} s, for {self._repairs.after(0, 3, daemon.start)}"

    def kill_leader(self) -> str:
        return self._kill(leading=True)

    def kill_standby(self) -> str:
        return self._kill(leading=False)

    def freeze_leader(self) -> str:
        return self._freeze(leading=True)

    def freeze_standby(self) -> str:
        return self._freeze(leading=False)

    def stop_leader(self) -> str:
        return self._stop(leading=True)

    def stop_standby(self) -> str:
        return self._stop(leading=False)

    def reload(self) -> str:
        if (daemon := self._one(leading=True)) is None:
            return "nobody"
        daemon.send(signal.SIGHUP)
        return daemon.name


class ServerFaults:
    """What may happen to connections, and to what a server remembers of its clients. ``client``: of the server."""

    def __init__(self, client: Callable[[], redis.Redis], chance: random.Random) -> None:
        self._client = client
        self._random = chance

    def kill_clients(self) -> str:
        killed = [self._tell("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes") for kind in ("normal", "pubsub")]
        return " and ".join(killed)

    def pause_clients(self) -> str:
        kind = self._random.choice(("ALL", "WRITE"))
        return f"{kind} " + self._tell("CLIENT", "PAUSE", str(self._random.randint(200, 8000)), kind)

    def forget_scripts(self) -> str:
        return self._tell("SCRIPT", "FLUSH")

    def _tell(self, *command: str) -> str:
        try:
            with self._client() as client:
                return str(client.execute_command(*command))
        except redis.RedisError as error:
            return f"not told: {error}"


def break_way(proxy: Proxy, repairs: Repairs, longest: float) -> str:
    """Break the way through a proxy, for half of ``longest`` at most."""
    proxy.mode = repairs.random.choice(("stall", "refuse", "deaf", "slow"))

    def pass_again() -> None:
        proxy.mode = "pass"

    return f"{proxy.mode} for {repairs.after(0.5, longest / 2, pass_again)}"


class StoreFaults(ServerFaults):
    """What may happen to a store that is one server. ``proxy``: between it and one daemon."""

    def __init__(
        self, store: ChaosStore, proxy: Proxy, repairs: Repairs, *, longest: float, power_loss: bool = False
    ) -> None:
        super().__init__(store.client, repairs.random)
        self._store = store
        self._proxy = proxy
        self._repairs = repairs
        self._longest = longest
        self._power_loss = power_loss
        self.rolled_back: list[tuple[float, float]] = []
        """From when to when (monotonic) writes were lost with the store's power."""

    def restart_store(self) -> str:
        if not self._store.running:
            return "is down already"
        if self._power_loss:
            lost = self._store.lose_power(self._random.uniform(0.1, 1.0))
            self.rolled_back.append((time.monotonic() - lost, time.monotonic()))
            return f"lost {lost:.2f} s of writes; down for {self._repairs.after(0, 4, self._bring_up)}"
        self._random.choice((self._store.kill, self._store.stop))()
        return f"down for {self._repairs.after(0, 4, self._bring_up)}"

    def _bring_up(self) -> None:
        self._store.start()

    def network(self) -> str:
        """Break the way between one daemon and the store."""
        return break_way(self._proxy, self._repairs, self._longest)
