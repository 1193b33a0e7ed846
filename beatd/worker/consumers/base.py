"""Interface of a consumer, and what consumers share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from beatd.clock import Backoff
from beatd.worker.messages import Delivery

UNWANTED_S = 2.0
"""Messages that have waited in a busy worker for this time (s) go back to their queue: other workers may be idle."""


def never() -> bool:
    """Return False: nobody stops."""
    return False


def is_due(now_ms: int, due_ms: int, period_ms: int) -> bool:
    """Tell if periodic work is to be done, which was planned for ``due_ms``: also after the clock was set back."""
    return not 0 < due_ms - now_ms <= period_ms


def log_away(log: logging.Logger, backoff: Backoff, server: str, pause: float, error: Exception) -> None:
    """Log that a server cannot be reached, since when, and that it is tried again after ``pause`` seconds."""
    extra = {"event": "worker_reconnecting", "attempt": backoff.attempts, "since": backoff.since}
    text = "%s away%s, trying again in %ss: %s"
    log.log(backoff.level, text, server, backoff.since_text, pause, error, extra=extra)


class Consumer(Protocol):
    """Takes messages and settles them. Called from the worker's one thread; errors are beatd's.

    Every message that was taken is settled by exactly one of ``ack``, ``reject``, ``give_back``,
    ``park`` and ``bury``.
    """

    place: str
    """The broker's address for logs, without passwords."""

    def queues(self) -> list[str]:
        """Return the names of the consumed queues."""

    def add_queue(self, name: str) -> None:
        """Consume from this queue, too."""

    def cancel_queue(self, name: str) -> None:
        """Stop consuming from this queue; messages that were taken are still run."""

    def start(self, stopping: Callable[[], bool] = never) -> None:
        """Connect, or give up when ``stopping()``.

        Raises :class:`~beatd.exceptions.StoreError` or :class:`~beatd.exceptions.BrokerError`.
        """

    def take(self, at_most: int) -> list[Delivery]:
        """Return the next messages, if there are any; never waits."""

    def files(self) -> list[int]:
        """Return file descriptors that become readable when :meth:`take` may have messages."""

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries."""

    def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Reject deliveries: they go to the dead-letter exchange of their queue, or are gone if it has none."""

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Requeue deliveries at the head of their queues, marked as redelivered."""

    def park(self, deliveries: Sequence[tuple[Delivery, int]]) -> None:
        """Park deliveries; each comes back at its time (ms since the epoch)."""

    def bury(self, deliveries: Sequence[tuple[Delivery, str]]) -> None:
        """Move deliveries to the dead letters, each with its reason."""

    def tend(self) -> None:
        """Do the periodic work: heartbeat, parked messages that are due, messages of dead workers."""

    def waiting(self, at_most: int) -> list[tuple[Delivery, int]]:
        """Return parked messages with their times (ms), the soonest first, as far as this worker knows them."""

    def lost(self) -> list[int]:
        """Return the tags of messages that other workers have now, each one once."""

    def idle_for(self) -> float:
        """Return the seconds until :meth:`tend` is due."""

    def beat(self) -> None:
        """Send the heartbeat only; may be called from another thread."""

    def stop(self) -> None:
        """Requeue unsettled messages and disconnect."""
