"""The thread pools: ``threads`` for tasks that wait, ``solo`` for one task at a time in the worker's own thread."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence

from beatd.worker.execution import Attempt, Executor, begun
from beatd.worker.messages import Job, Report
from beatd.worker.pools.window import Window


class ThreadPool:
    """``size`` threads that take jobs from one queue. Time limits cannot interrupt a thread: they are not enforced."""

    def __init__(self, size: int, execute: Executor) -> None:
        self.size = size
        self._execute = execute
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._reports: deque[Report] = deque()
        self._running: dict[int, float] = {}
        self._held = 0
        self._window = Window()
        self._awake, self._wake = os.pipe()
        os.set_blocking(self._awake, False)
        os.set_blocking(self._wake, False)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for number in range(1, self.size + 1):
            thread = threading.Thread(target=self._serve, name=f"ThreadPoolWorker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def room(self) -> int:
        return max(0, self.size * min(self._window.depth, 8) - self._held)

    def submit(self, jobs: Sequence[Job]) -> None:
        self._held += len(jobs)
        for job in jobs:
            self._jobs.put(job)

    def files(self) -> list[int]:
        return [self._awake]

    def collect(self) -> list[Report]:
        try:
            os.read(self._awake, 4096)
        except BlockingIOError:
            return []
        reports = []
        while self._reports:
            report = self._reports.popleft()
            if report.state != "STARTED":
                self._held -= 1
                self._window.observe(report.runtime)
            reports.append(report)
        return reports

    def kill(self, tag: int) -> bool:  # noqa: ARG002 - a thread cannot be killed
        return False

    def running_since(self) -> dict[int, float]:
        return dict(self._running)

    def pids(self) -> list[int]:
        return [os.getpid()]

    def pid_of(self, tag: int) -> int | None:
        return os.getpid() if tag in self._running else None

    def withdraw(self, tag: int) -> bool:  # noqa: ARG002 - threads take from the queue by themselves
        return False

    def stop(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._running[job.tag] = time.monotonic()
            report = self._execute(job, self._say)
            del self._running[job.tag]
            self._say(report)

    def _say(self, report: Report) -> None:
        self._reports.append(report)
        try:
            os.write(self._wake, b"!")
        except BlockingIOError:  # full of calls to wake up already
            return


class SoloPool:
    """Runs each job in the worker's thread, at once. Nothing else happens meanwhile, but the heartbeat."""

    size = 1

    def __init__(self, execute: Executor) -> None:
        self._execute = execute
        self._job: Job | None = None
        self._attempt: Attempt | None = None

    def start(self) -> None:
        """There is nothing to start."""

    def room(self) -> int:
        return 0 if self._job or self._attempt else 1

    def submit(self, jobs: Sequence[Job]) -> None:
        (self._job,) = jobs

    def files(self) -> list[int]:
        return []

    def collect(self) -> list[Report]:
        if (attempt := self._attempt) is not None:
            self._attempt = None
            return [self._execute.run(attempt)]
        if (job := self._job) is None:
            return []
        self._job = None
        prepared = self._execute.prepare(job)
        if isinstance(prepared, Report):
            return [prepared]
        if not job.announce:
            return [self._execute.run(prepared)]
        self._attempt = prepared  # runs with the next call, when its beginning has been settled
        return [begun(job)]

    def kill(self, tag: int) -> bool:  # noqa: ARG002 - it would be the worker
        return False

    def running_since(self) -> dict[int, float]:
        return {}

    def pids(self) -> list[int]:
        return [os.getpid()]

    def pid_of(self, tag: int) -> int | None:  # noqa: ARG002 - while one runs, nobody asks
        return None

    def withdraw(self, tag: int) -> bool:  # noqa: ARG002 - it is run as soon as this call is over
        return False

    def stop(self, grace: float) -> None:
        """There is nothing to stop."""
