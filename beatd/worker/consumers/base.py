"""The port of a consumer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from beatd.worker.messages import Delivery


class Consumer(Protocol):
    """Takes messages and settles them. Called from the worker's one thread; errors are beatd's.

    Every message that was taken is settled by exactly one of ``ack``, ``give_back``, ``park`` and ``bury``.
    """

    place: str
    """Where the messages come from, for people; without passwords."""

    def queues(self) -> list[str]:
        """The names of the queues that it takes from."""

    def add_queue(self, name: str) -> None:
        """Take from this queue, too."""

    def cancel_queue(self, name: str) -> None:
        """Take no more from this queue; what was taken from it is still run."""

    def start(self) -> None:
        """Connect; raises :class:`~beatd.exceptions.StoreError` or :class:`~beatd.exceptions.BrokerError`."""

    def take(self, at_most: int) -> list[Delivery]:
        """The next messages, none if there are none now. Does not wait for any."""

    def files(self) -> list[int]:
        """File descriptors that become readable when :meth:`take` may have something."""

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are done with."""

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Return these to the head of their queues, marked as redelivered."""

    def park(self, deliveries: Sequence[tuple[Delivery, int]]) -> None:
        """Put these aside; each comes back at its time (ms since the epoch)."""

    def bury(self, deliveries: Sequence[tuple[Delivery, str]]) -> None:
        """Put these among the dead letters, each with its reason."""

    def tend(self) -> None:
        """Do what is due now and then: heartbeat, parked messages whose time has come, messages of dead workers."""

    def waiting(self, at_most: int) -> list[tuple[Delivery, int]]:
        """Messages that wait for their time (ms), the soonest first, as far as this worker can see them."""

    def lost(self) -> list[int]:
        """Tags of messages that turned out to be this worker's no more, each told once: others may run them."""

    def idle_for(self) -> float:
        """Seconds until :meth:`tend` has something to do again."""

    def beat(self) -> None:
        """Only the heartbeat; the one method that another thread may call."""

    def stop(self) -> None:
        """Give everything back that is still held, and disconnect."""
