"""What may go wrong with RabbitMQ, and with the worker that takes from it."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.chaos.faults import FAULTS, Faults
from tests.chaos.sides import RabbitSide

BROKER_FAULTS = (
    *(fault for fault in FAULTS if fault != "network"), "network", "kill_broker", "restart_broker", "freeze_broker",
    "close_connections", "close_connections", "block_broker", "block_broker", "broker_network", "broker_network",
    "kill_worker", "kill_worker", "stop_worker",
)  # fmt: skip


class BrokerFaults(Faults):
    """All that may go wrong with daemons and store, and more."""

    def __init__(self, *args: Any, side: RabbitSide, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._side = side
        self._node = side.node
        self._frozen = False

    def _kill_broker(self) -> str:
        return self._end_broker(in_order=False)

    def _restart_broker(self) -> str:
        return self._end_broker(in_order=True)

    def _end_broker(self, *, in_order: bool) -> str:
        if not self._node.running or self._frozen:
            return "is down already"
        self._node.stop() if in_order else self._node.kill()
        return f"down for {self._later(self._random.uniform(0, 5), self._start_broker)}"

    def _start_broker(self) -> None:
        self._node.start()

    def _freeze_broker(self) -> str:
        if not self._node.running or self._frozen:
            return "is down already"
        self._node.pause()
        self._frozen = True

        def thaw() -> None:
            self._node.resume()
            self._frozen = False

        return f"for {self._later(self._random.uniform(0.5, 8), thaw)}"

    def _close_connections(self) -> str:
        return self._control("close_all_connections", "chaos")

    def _block_broker(self) -> str:
        """It is short of memory: it takes no more, and says so to those who publish."""
        said = self._control("set_vm_memory_high_watermark", "0")
        return f"{said} for {self._later(self._random.uniform(1, 10), self._unblock)}"

    def _unblock(self) -> None:
        if self._frozen:
            self._later(1, self._unblock)
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

    def _broker_network(self) -> str:
        """Break the way between one daemon and the broker."""
        return self._break(self._side.proxy)

    def _kill_worker(self) -> str:
        work = self._side.work
        if work is None or work.place.pid is None:
            return "is down already"
        group = self._random.random() < 0.5
        work.kill(group=group)
        alone = "" if group else "without its processes, "
        return f"{alone}for {self._later(self._random.uniform(0, 3), work.place.start)}"

    def _stop_worker(self) -> str:
        work = self._side.work
        if work is None or work.place.pid is None:
            return "is down already"
        took = work.place.stop()
        return f"which took {took:.2f} s, for {self._later(self._random.uniform(0, 3), work.place.start)}"
