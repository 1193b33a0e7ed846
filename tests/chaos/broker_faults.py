"""What may go wrong with brokers, and with the worker that takes from them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from tests.chaos.faults import Repairs, break_way
from tests.chaos.proxy import Proxy
from tests.chaos.work import Work
from tests.conftest import Server
from tests.rabbitmq import RabbitMQ

WORKER_FAULTS = ("kill_worker", "kill_worker", "stop_worker")
REDIS_FAULTS = ("kill_broker", "restart_broker", "broker_network")
RABBIT_FAULTS = (
    "kill_broker", "restart_broker", "freeze_broker", "close_connections", "close_connections", "block_broker",
    "block_broker", "broker_network", "broker_network",
)  # fmt: skip


class WorkerFaults:
    """What may happen to the worker."""

    def __init__(self, work: Callable[[], Work], repairs: Repairs) -> None:
        self._work = work
        self._repairs = repairs

    def kill_worker(self) -> str:
        work = self._work()
        if work.place.pid is None:
            return "is down already"
        group = self._repairs.random.random() < 0.5
        work.kill(group=group)
        alone = "" if group else "without its processes, "
        return f"{alone}for {self._repairs.after(0, 3, work.place.start)}"

    def stop_worker(self) -> str:
        work = self._work()
        if work.place.pid is None:
            return "is down already"
        took = work.place.stop()
        return f"which took {took:.2f} s, for {self._repairs.after(0, 3, work.place.start)}"


class BrokerFaults:
    """What may happen to any broker. ``proxy``: between it and one daemon."""

    def __init__(self, node: RabbitMQ | Server, proxy: Proxy, repairs: Repairs, *, longest: float) -> None:
        self._broker = node
        self._proxy = proxy
        self._repairs = repairs
        self._longest = longest
        self._frozen = False

    def kill_broker(self) -> str:
        return self._end_broker(in_order=False)

    def restart_broker(self) -> str:
        return self._end_broker(in_order=True)

    def _end_broker(self, *, in_order: bool) -> str:
        if not self._broker.running or self._frozen:
            return "is down already"
        self._broker.stop() if in_order else self._broker.kill()
        return f"down for {self._repairs.after(0, 5, self._start_broker)}"

    def _start_broker(self) -> None:
        self._broker.start()

    def broker_network(self) -> str:
        """Break the way between one daemon and the broker."""
        return break_way(self._proxy, self._repairs, self._longest)


class RabbitFaults(BrokerFaults):
    """What may happen to RabbitMQ."""

    def __init__(self, node: RabbitMQ, proxy: Proxy, repairs: Repairs, *, longest: float) -> None:
        super().__init__(node, proxy, repairs, longest=longest)
        self._node = node

    def freeze_broker(self) -> str:
        if not self._node.running or self._frozen:
            return "is down already"
        self._node.pause()
        self._frozen = True

        def thaw() -> None:
            self._node.resume()
            self._frozen = False

        return f"for {self._repairs.after(0.5, 8, thaw)}"

    def close_connections(self) -> str:
        return self._control("close_all_connections", "chaos")

    def block_broker(self) -> str:
        """It is short of memory: it takes no more, and says so to those who publish."""
        said = self._control("set_vm_memory_high_watermark", "0")
        return f"{said} for {self._repairs.after(1, 10, self._unblock)}"

    def _unblock(self) -> None:
        if self._frozen:
            self._repairs.after(1, 1, self._unblock)
        else:
            self._control("set_vm_memory_high_watermark", "0.6")

    def _control(self, *command: str) -> str:
        if not self._node.running or self._frozen:
            return "not told: it is down"
        try:
            self._node.ctl(*command)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            return f"not told: {error}"
        return "done"
