"""The pool of threads, for tasks that wait for others. Limits reach a thread when it runs Python code, not before."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from beatd.store.outcomes import STARTED
from beatd.worker.execution import Executor
from beatd.worker.messages import KILLED, Job, Report
from beatd.worker.pools.crew import Crew
from beatd.worker.pools.reports import Reports
from beatd.worker.pools.tidying import Streams
from beatd.worker.pools.window import Window

_DEEPEST = 8


class ThreadPool:
    """``size`` threads that take jobs from one queue."""

    def __init__(self, size: int, execute: Executor) -> None:
        self.size = size
        self._execute = execute
        self._reports = Reports()
        self._crew = Crew(size, execute, self._reports.say)
        self._held: set[int] = set()
        self._window = Window()

    def start(self) -> None:
        self._execute.tidy = Streams().mend

    def room(self) -> int:
        return max(0, self.size * min(self._window.depth, _DEEPEST) - len(self._held))

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._held.add(job.tag)
            self._crew.submit(job)

    def files(self) -> list[int]:
        return self._reports.files()

    def collect(self) -> list[Report]:
        reports = self._reports.take()
        for report in reports:
            if report.state != STARTED:
                self._held.discard(report.tag)
                self._window.observe(report.runtime)
        return reports

    def kill(self, tag: int, number: int = signal.SIGKILL) -> bool:  # noqa: ARG002 - no signal reaches a thread
        since = self._crew.running_since().get(tag)
        if since is None or not self._crew.give_up(tag):
            return False
        self._reports.say(Report(tag, KILLED, time.monotonic() - since))
        return True

    def running_since(self) -> dict[int, float]:
        return self._crew.running_since()

    def pids(self) -> list[int]:
        return [os.getpid()]

    def pid_of(self, tag: int) -> int | None:
        return os.getpid() if tag in self._crew.running_since() else None

    def withdraw(self, tag: int) -> bool:
        found = self._crew.withdraw(tag)
        if found:
            self._held.discard(tag)
        return found

    def grow(self, by: int = 1) -> None:
        self.size += by
        self._crew.resize(self.size)

    def shrink(self, by: int = 1) -> None:
        self.size = max(1, self.size - by)
        self._crew.resize(self.size)

    def abandon(self) -> None:
        """Nothing runs in the worker's own thread."""

    def stop(self, grace: float) -> None:
        self._crew.stop(time.monotonic() + grace)
