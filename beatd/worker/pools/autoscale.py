"""Autoscaling: a pool that grows under load and shrinks when a part of it is idle."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable, Sequence

from beatd.worker.messages import Job, JobReport
from beatd.worker.pools.base import Pool

log = logging.getLogger("celery.worker.autoscale")

_FULL_S = 0.5
"""Time for which the queue must fill every request for short tasks before the pool grows."""


class Autoscaled:
    """Changes the size of ``pool`` between ``least`` and ``most``; it is a pool itself.

    Up at once when all of it is at long tasks and a message waits; down after ``idle_s`` in which it was not needed.
    """

    def __init__(self, pool: Pool, most: int, least: int, *, idle_s: float, monotonic: Callable[[], float]) -> None:
        self._pool = pool
        self._most, self._least = most, least
        self._idle_s = idle_s
        self._monotonic = monotonic
        self._asked = 0
        self._full_since = math.inf
        self._peak = 0
        self._peak_since = monotonic()

    @property
    def size(self) -> int:
        return self._pool.size

    def update(self, most: int | None = None, least: int | None = None) -> tuple[int, int]:
        """Change the bounds; returns what they are now. Raises ValueError."""
        most, least = self._most if most is None else most, self._least if least is None else least
        if not 1 <= least <= most:
            raise ValueError(f"cannot scale between {least} and {most}")
        self._most, self._least = most, least
        if self.size > most:
            self._pool.shrink(self.size - most)
        elif self.size < least:
            self._pool.grow(least - self.size)
        return most, least

    def start(self) -> None:
        self._pool.start()

    def room(self) -> int:
        """Return the processes that a fully busy pool could grow by; taking messages shows if any wait."""
        room = self._pool.room()
        self._asked = room
        return room or (self._most - self.size if self._busy() >= self.size else 0)

    def submit(self, jobs: Sequence[Job]) -> None:
        now = self._monotonic()
        if not self._asked:
            self._grow(len(jobs), now)
        elif len(jobs) < self._asked:
            self._full_since = math.inf
        else:
            self._full_since = min(self._full_since, now)
            if now - self._full_since >= _FULL_S:
                self._full_since = now
                self._grow(1, now)
        self._pool.submit(jobs)

    def files(self) -> list[int]:
        return self._pool.files()

    def unsent(self) -> list[int]:
        return self._pool.unsent()

    def collect(self) -> list[JobReport]:
        now = self._monotonic()
        self._peak = max(self._peak, self._busy())
        if now - self._peak_since >= self._idle_s:
            surplus = self.size - max(self._peak, self._least)
            if surplus > 0:
                self._pool.shrink(surplus)
                log.info("Scaling down %d processes.", surplus, extra={"event": "pool_shrunk", "size": self.size})
            self._peak, self._peak_since = 0, now
        return self._pool.collect()

    def look_in(self) -> float:
        return self._pool.look_in()

    def kill(self, tag: int, number: int = signal.SIGKILL) -> bool:
        return self._pool.kill(tag, number)

    def running_since(self) -> dict[int, float]:
        return self._pool.running_since()

    def pids(self) -> list[int]:
        return self._pool.pids()

    def pid_of(self, tag: int) -> int | None:
        return self._pool.pid_of(tag)

    def withdraw(self, tag: int) -> bool:
        return self._pool.withdraw(tag)

    def grow(self, by: int = 1) -> None:
        raise ValueError(f"the pool scales by itself: change its bounds instead of growing it by {by}")

    def shrink(self, by: int = 1) -> None:
        raise ValueError(f"the pool scales by itself: change its bounds instead of shrinking it by {by}")

    def abandon(self) -> None:
        self._pool.abandon()

    def stop(self, grace: float) -> None:
        self._pool.stop(grace)

    def _busy(self) -> int:
        return len(self._pool.running_since())

    def _grow(self, wanted: int, now: float) -> None:
        by = min(wanted, self._most - self.size)
        if by > 0:
            self._pool.grow(by)
            self._peak, self._peak_since = self.size, now
            log.info("Scaling up %d processes.", by, extra={"event": "pool_grown", "size": self.size})
