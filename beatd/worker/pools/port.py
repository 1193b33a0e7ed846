"""The port of a pool."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Protocol

from beatd.worker.messages import Job, Report


class Pool(Protocol):
    """Runs jobs. All methods are called from the worker's one thread, and none of them waits, but ``stop``."""

    @property
    def size(self) -> int:
        """How many jobs run at the same time."""

    def start(self) -> None:
        """Make the processes or threads."""

    def room(self) -> int:
        """How many further jobs the pool wants now, so that it never runs dry; 0 while it has enough."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Run these, in this order as far as there is one."""

    def files(self) -> list[int]:
        """File descriptors that become readable when :meth:`collect` has something to say."""

    def collect(self) -> list[Report]:
        """What has happened since the last call: starts that were to be announced, and ends."""

    def kill(self, tag: int, number: int = signal.SIGKILL) -> bool:
        """End the run of that job by force, where that can be done; it is reported as ``KILLED``.

        ``number`` is the signal for its process. Threads and coroutines have none: they are given up, an exception is
        raised in them, and whatever they still do is of no account.
        """

    def running_since(self) -> dict[int, float]:
        """The jobs that run now, by tag, and when each began (monotonic seconds)."""

    def pids(self) -> list[int]:
        """The processes in which jobs run; the worker's own where they run in threads."""

    def pid_of(self, tag: int) -> int | None:
        """The process in which that job runs now; None if it does not."""

    def withdraw(self, tag: int) -> bool:
        """Take back a job that was handed to nobody yet: it is not run and not reported. False: too late."""

    def grow(self, by: int = 1) -> None:
        """Run so many more at the same time. Raises ValueError where there can be no more than one."""

    def shrink(self, by: int = 1) -> None:
        """Run so many less at the same time, but one; what runs is not disturbed. Raises ValueError as ``grow``."""

    def abandon(self) -> None:
        """Called by a signal handler: leave the task that it has interrupted, if this is one, by an exception."""

    def stop(self, grace: float) -> None:
        """End the pool; what still runs after ``grace`` seconds is killed where that can be done."""
