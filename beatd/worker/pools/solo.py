"""Solo pool: one task at a time in the worker's thread; only the heartbeat goes on meanwhile."""

from __future__ import annotations

import math
import os
import signal
from collections import deque
from collections.abc import Sequence

from beatd.app.trace import Abandoned
from beatd.worker.execution.executor import Attempt, Executor, begun
from beatd.worker.messages import Job, JobReport
from beatd.worker.pools.prefork_child import ProcessStateGuard


class SoloPool:
    """Runs each job in :meth:`collect`.

    It cannot be killed for a hard limit: then, and every second after it, an exception is raised in the task.
    """

    size = 1

    def __init__(self, execute: Executor) -> None:
        self._execute = execute
        self._jobs: deque[Job] = deque()
        """Jobs that have not begun: one, and those that a rate limit has held back meanwhile."""
        self._attempt: Attempt | None = None
        self._running = False

    def start(self) -> None:
        tidy = ProcessStateGuard()

        def wholly() -> None:
            tidy()
            tidy.thoroughly()

        self._execute.tidy = wholly

    def room(self) -> int:
        return 0 if self._jobs or self._attempt else 1

    def submit(self, jobs: Sequence[Job]) -> None:
        self._jobs.extend(jobs)

    def files(self) -> list[int]:
        return []

    def unsent(self) -> list[int]:
        return []

    def collect(self) -> list[JobReport]:
        if (attempt := self._attempt) is not None:
            self._attempt = None
            return self._run(attempt)
        if not self._jobs:
            return []
        job = self._jobs.popleft()
        prepared = self._execute.prepare(job)
        if isinstance(prepared, JobReport):
            return [prepared]
        if not job.announce:
            return self._run(prepared)
        self._attempt = prepared  # runs with the next call, after its start was settled
        return [begun(job.tag)]

    def _run(self, attempt: Attempt) -> list[JobReport]:
        try:
            self._running = True
            return [self._execute.run(attempt, attempt.job.hard_limit)]
        except Abandoned:
            return []
        finally:
            self._running = False

    def look_in(self) -> float:
        return math.inf

    def kill(self, tag: int, number: int = signal.SIGKILL) -> bool:  # noqa: ARG002 - it would be the worker
        return False

    def running_since(self) -> dict[int, float]:
        return {}

    def pids(self) -> list[int]:
        return [os.getpid()]

    def pid_of(self, tag: int) -> int | None:
        return os.getpid() if self._attempt is not None and self._attempt.job.tag == tag else None

    def withdraw(self, tag: int) -> bool:
        waiting = len(self._jobs)
        self._jobs = deque(job for job in self._jobs if job.tag != tag)
        return len(self._jobs) < waiting

    def grow(self, by: int = 1) -> None:
        raise ValueError(f"the solo pool runs one task at a time, it cannot grow by {by}")

    def shrink(self, by: int = 1) -> None:
        raise ValueError(f"the solo pool runs one task at a time, it cannot shrink by {by}")

    def abandon(self) -> None:
        if self._running:
            raise Abandoned

    def stop(self, grace: float) -> None:  # noqa: ARG002 - nothing runs in another thread
        """Forget what has not begun: it does not begin any more."""
        self._jobs.clear()
        self._attempt = None
