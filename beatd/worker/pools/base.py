"""The port of a pool, with its parts: hard time limits, the queue of reports, the prefetch window.

Hard limits are enforced from outside: a process or thread that has used up the time is ended. The window says how far
ahead of the work each process or thread is supplied: some milliseconds' worth, whatever the tasks take.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from beatd.worker.messages import Job, JobReport
from beatd.worker.request import Request


class Pool(Protocol):
    """Runs jobs. All methods are called from the worker's one thread, and none of them waits, but ``stop``."""

    @property
    def size(self) -> int:
        """Number of jobs that run at the same time."""

    def start(self) -> None:
        """Make the processes or threads."""

    def room(self) -> int:
        """Return how many further jobs the pool wants now, so that it never runs dry; 0 while it has enough."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Run these, in this order as far as there is one."""

    def files(self) -> list[int]:
        """File descriptors that become readable when :meth:`collect` has something to say."""

    def collect(self) -> list[JobReport]:
        """Return the reports since the last call: starts that were to be announced, and ends."""

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


log = logging.getLogger("celery.worker")


class HardTimeLimits:
    """Watches those of a worker's ``requests`` that have a limit; when none has, this costs nothing."""

    def __init__(self, pool: Pool, requests: Mapping[int, Request]) -> None:
        self._pool = pool
        self._requests = requests
        self._limited: set[int] = set()

    def begun(self, request: Request) -> None:
        """That one is with the pool now."""
        if request.hard_limit:
            self._limited.add(request.delivery.tag)

    def ended(self, tag: int) -> None:
        """That one has ended."""
        if self._limited:
            self._limited.discard(tag)

    def enforce(self, now: float) -> float:
        """End whose time is over (monotonic seconds); returns the seconds until it is over for the next one."""
        if not self._limited:
            return math.inf
        next_in = math.inf
        for tag, since in self._pool.running_since().items():
            request = self._requests.get(tag) if tag in self._limited else None
            if request is None:
                continue
            limit = request.hard_limit or math.inf
            if (left := since + limit - now) > 0:
                next_in = min(next_in, left)
            elif self._pool.kill(tag):
                log.error(
                    "Hard time limit (%ss) exceeded for %s[%s]",
                    limit,
                    request.name,
                    request.id,
                    extra={"event": "task_time_limit", "task": request.name, "task_id": request.id},
                )
        return next_in


class ReportQueue:
    """A queue that a loop can wait for. Any thread may :meth:`say`, one may :meth:`take`."""

    def __init__(self) -> None:
        self._reports: deque[JobReport] = deque()
        self._rung = False
        """Whether there is a byte in the pipe already: one is enough."""
        self._awake, self._wake = os.pipe()
        os.set_blocking(self._awake, False)
        os.set_blocking(self._wake, False)

    def say(self, report: JobReport) -> None:
        self._reports.append(report)
        if not self._rung:
            self._rung = True
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake, b"!")

    def files(self) -> list[int]:
        return [self._awake]

    def take(self) -> list[JobReport]:
        """All that have come."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._awake, 4096)
        self._rung = False  # before they are taken: one that comes now rings again
        taken = []
        while self._reports:
            taken.append(self._reports.popleft())
        return taken


_AHEAD_S = 0.02
_DEEPEST = 64
_WEIGHT = 0.05


class PrefetchWindow:
    """Learns from the run times. Long tasks are handed out one by one: none waits behind another for nothing."""

    def __init__(self) -> None:
        self._mean: float | None = None

    def observe(self, runtime: float) -> None:
        """Take note of a run time (seconds). A long one counts at once, short ones have to become the rule."""
        if self._mean is None or runtime > self._mean * 8:
            self._mean = max(runtime, 1e-6)
        else:
            self._mean += _WEIGHT * (runtime - self._mean)

    @property
    def depth(self) -> int:
        """Return how many jobs one process should hold, the running one included."""
        if self._mean is None:
            return 1
        return max(1, min(_DEEPEST, int(_AHEAD_S / max(self._mean, 1e-6))))
