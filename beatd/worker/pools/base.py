"""Interface of a pool, with its parts: hard time limits, report queue, prefetch window.

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
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from beatd.worker.messages import Job, JobReport
from beatd.worker.request import Request


class Pool(Protocol):
    """Runs jobs. All methods are called from the worker's thread; only ``stop`` waits."""

    @property
    def size(self) -> int:
        """Return the number of jobs that run at the same time."""

    def start(self) -> None:
        """Start the processes or threads."""

    def room(self) -> int:
        """Return the number of jobs that the pool can take now; 0 while it has enough."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Run jobs, in this order as far as possible."""

    def files(self) -> list[int]:
        """Return file descriptors that become readable when :meth:`collect` has reports."""

    def unsent(self) -> list[int]:
        """Return file descriptors to which :meth:`collect` writes the rest of a job as soon as they take more."""

    def collect(self) -> list[JobReport]:
        """Return the reports since the last call: announced starts, and ends."""

    def look_in(self) -> float:
        """Return the seconds until :meth:`collect` is to be called although no file descriptor is readable."""

    def kill(self, tag: int, number: int = signal.SIGKILL) -> bool:
        """End a job by force, where possible; it is reported as ``KILLED``.

        ``number`` is the signal for its process. Threads and coroutines get an exception instead: it is
        raised in them, and their further reports are ignored.
        """

    def running_since(self) -> dict[int, float]:
        """Return the running jobs by tag, with their start (monotonic seconds)."""

    def pids(self) -> list[int]:
        """Return the ids of the processes that run jobs; the worker's own for threads."""

    def pid_of(self, tag: int) -> int | None:
        """Return the id of the process that runs a job; None if it does not run."""

    def withdraw(self, tag: int) -> bool:
        """Take back a job that has not begun: it is not run and not reported. False: too late, or not yet."""

    def grow(self, by: int = 1) -> None:
        """Run ``by`` more jobs at the same time. Raises ValueError for a pool of one."""

    def shrink(self, by: int = 1) -> None:
        """Run ``by`` fewer jobs at the same time, at least one; running ones go on. Raises ValueError as ``grow``."""

    def abandon(self) -> None:
        """Raise an exception in the interrupted task, if any; called by a signal handler."""

    def stop(self, grace: float) -> None:
        """Stop the pool; jobs that run after ``grace`` seconds are killed where possible."""


log = logging.getLogger("celery.worker")

_CONDEMNED_S = 0.1
"""Period of the check if what is to be ended has begun: not every start is reported."""


class HardTimeLimits:
    """Enforces the hard time limits of a worker's ``requests``.

    The rule: a task that has run for longer than its ``time_limit`` is killed from outside, by the loop, which ends its
    process or gives up its thread; it counts as failed with ``TimeLimitExceeded`` and is not run again. The soft limit,
    which raises ``SoftTimeLimitExceeded`` inside the task before that, is enforced where the task runs.

    Requests that remote control has revoked after the pool got them end here, too: ``drop`` settles one that the pool
    gives back.
    """

    def __init__(self, pool: Pool, requests: Mapping[int, Request], drop: Callable[[Request], None]) -> None:
        self._pool = pool
        self._requests = requests
        self._drop = drop
        self._limited: set[int] = set()
        self._condemned: dict[int, float | None] = {}
        """Revoked requests, and the start of the run that got a signal. A process may give its job back after all."""

    def begun(self, request: Request) -> None:
        """Watch a request that the pool has got."""
        if request.hard_limit:
            self._limited.add(request.delivery.tag)

    def ended(self, tag: int) -> None:
        """Stop watching a request."""
        if self._limited:
            self._limited.discard(tag)
        if self._condemned:
            self._condemned.pop(tag, None)

    def condemn(self, tag: int, signalled: float | None = None) -> None:
        """Take a revoked request back as soon as the pool can; if it runs, end it with the signal in ``terminated``.

        ``signalled``: the start of a run that has got the signal already.
        """
        self._condemned[tag] = signalled

    def enforce(self, now: float) -> float:
        """Kill the runs over their limit; returns the seconds until the next limit."""
        if not self._limited and not self._condemned:
            return math.inf
        running = self._pool.running_since()
        for tag in tuple(self._condemned):
            self._end(tag, running.get(tag))
        next_in = _CONDEMNED_S if self._condemned else math.inf
        for tag, since in running.items():
            request = self._requests.get(tag) if tag in self._limited else None
            if request is None:
                continue
            limit = request.hard_limit or math.inf
            if (left := since + limit - now) > 0:
                next_in = min(next_in, left)
            elif self._pool.kill(tag):
                self._limited.discard(tag)  # its end may take some turns
                log.error(
                    "Hard time limit (%ss) exceeded for %s[%s]",
                    limit,
                    request.name,
                    request.id,
                    extra={"event": "task_time_limit", "task": request.name, "task_id": request.id},
                )
        return next_in

    def _end(self, tag: int, since: float | None) -> None:
        """End a revoked request, which runs since then, or does not run."""
        request = self._requests.get(tag)
        if request is None or (since is not None and request.terminated is None):
            del self._condemned[tag]
        elif since is None:
            if self._pool.withdraw(tag):
                self._drop(request)
                self._condemned.pop(tag, None)
        elif since != self._condemned[tag] and self._pool.kill(tag, request.terminated or signal.SIGTERM):
            self._condemned[tag] = since


class ReportQueue:
    """Queue of reports with a pipe for a poller. Any thread may :meth:`say`, one may :meth:`take`."""

    def __init__(self) -> None:
        self._reports: deque[JobReport] = deque()
        self._rung = False
        """True if there is a byte in the pipe: one is enough."""
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
        """Return all reports."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._awake, 4096)
        self._rung = False  # before they are taken: a new report writes to the pipe again
        taken = []
        while self._reports:
            taken.append(self._reports.popleft())
        return taken


_AHEAD_S = 0.02
_DEEPEST = 64
_WEIGHT = 0.05


class PrefetchWindow:
    """Prefetch window from the run times. Long tasks are handed out one by one: none waits behind another."""

    def __init__(self) -> None:
        self._mean: float | None = None

    def observe(self, runtime: float) -> None:
        """Add a run time (seconds). A long one counts at once, short ones gradually."""
        if self._mean is None or runtime > self._mean * 8:
            self._mean = max(runtime, 1e-6)
        else:
            self._mean += _WEIGHT * (runtime - self._mean)

    def close(self) -> None:
        """Hand out jobs one by one from now on: one has waited in vain."""
        self._mean = max(self._mean or 0.0, _AHEAD_S)

    @property
    def depth(self) -> int:
        """Return the number of jobs for one process, the running one included."""
        if self._mean is None:
            return 1
        return max(1, min(_DEEPEST, int(_AHEAD_S / max(self._mean, 1e-6))))
