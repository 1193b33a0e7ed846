"""Thread pool, for tasks that wait for I/O. A limit reaches a thread when it runs Python code.

A thread that is stuck in a job is abandoned and replaced.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence

from beatd.clock import Backoff, monotonic
from beatd.worker.execution.call import HardTimeLimit, raise_in, stop_alarms
from beatd.worker.execution.executor import Executor, begun
from beatd.worker.messages import KILLED, Job, JobReport, is_end
from beatd.worker.pools.base import PrefetchWindow, ReportQueue
from beatd.worker.pools.prefork_child import Streams

log = logging.getLogger("celery.pool")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 10.0
"""Pauses after threads that the system refuses."""


class ThreadGroup:
    """Group of up to ``size`` threads, started on demand; each thread passes its reports to ``say``.

    Used by one thread at a time; only ``say`` is called by many.
    """

    def __init__(self, size: int, execute: Executor, say: Callable[[JobReport], None]) -> None:
        self.size = size
        self._execute = execute
        self._say = say
        self._jobs: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._queued: dict[int, Job] = {}
        """By tag: queued jobs that were not withdrawn."""
        self._running: dict[int, tuple[float, threading.Thread]] = {}
        """By tag: start and thread. The thread that removes an item reports the job."""
        self._idle = 0
        """Idle threads without an assigned job."""
        self._members = 0
        """Threads that take jobs: started, and neither abandoned nor told to end."""
        self._assigning = threading.Lock()
        """Held while a job is put into the queue or a thread finds none there, so that the counts are exact."""
        self._threads: set[threading.Thread] = set()
        self._numbers = 0
        self.is_short = False
        """True if a thread could not be started."""
        self._begin_at = 0.0
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)

    def submit(self, job: Job) -> None:
        """Run a job as soon as there is a thread for it."""
        self._queued[job.tag] = job
        with self._assigning:
            self._jobs.put(job.tag)
            has_thread = self._idle > 0
            self._idle -= has_thread
        if not has_thread:
            self._begin()

    def withdraw(self, tag: int) -> bool:
        """Take back a job that no thread has begun; false if there is none."""
        return self._queued.pop(tag, None) is not None

    def running_since(self) -> dict[int, float]:
        return {tag: since for tag, (since, _) in tuple(self._running.items())}

    def give_up(self, tag: int) -> bool:
        """Abandon a job: it is not reported any more. Its thread gets an exception and ends."""
        found = self._running.pop(tag, None)
        if found is None:
            return False
        _, thread = found
        self._threads.discard(thread)
        if thread.ident is not None:  # before another thread begins, which may get the same one
            raise_in(thread.ident, HardTimeLimit)
        with self._assigning:
            self._members -= 1
        self._fill()  # there may be jobs for this thread
        return True

    def resize(self, size: int) -> None:
        """Change the maximal number of threads. Of surplus ones those that are busy end after their jobs."""
        with self._assigning:
            self.size = size
            for _ in range(min(self._idle, self._members - size)):
                self._idle -= 1
                self._members -= 1
                self._jobs.put(None)
        self._fill()

    def stop(self, deadline: float) -> None:
        """End the threads; those that still run at ``deadline`` (monotonic) are left running."""
        threads = tuple(self._threads)
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
        stop_alarms()

    def begin_missing(self) -> None:
        """Try again to start a thread that the system has refused, if jobs wait for one."""
        if monotonic() >= self._begin_at:
            self._fill()

    def _fill(self) -> None:
        """Start threads for the jobs that wait."""
        for _ in range(self._jobs.qsize()):
            if not self._begin():
                return

    def _begin(self) -> bool:
        """Start a thread; false if there are enough, or the system refuses."""
        with self._assigning:
            if self._members >= self.size:
                return False
            self._members += 1
            self._numbers += 1
        thread = threading.Thread(target=self._serve, name=f"ThreadPoolWorker-{self._numbers}", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads for this process
            self._threads.discard(thread)
            with self._assigning:
                self._members -= 1
            self.is_short, self._begin_at = True, monotonic() + self._backoff.failed()
            extra = {"event": "pool_thread_failed", "threads": len(self._threads)}
            text = "Cannot start a thread, %d are there: %s"
            log.log(self._backoff.level, text, len(self._threads), error, extra=extra)
            return False
        self.is_short = False
        self._backoff.succeeded()
        return True

    def _serve(self) -> None:
        this = threading.current_thread()
        with contextlib.suppress(HardTimeLimit):  # for a job that was abandoned a moment ago
            while (tag := self._next()) is not None:
                if (job := self._queued.pop(tag, None)) is None:
                    continue
                self._running[job.tag] = (monotonic(), this)
                report = self._execute(job, self._say_begun)
                if self._running.pop(job.tag, None) is None:
                    return  # the job was abandoned, and this thread with it
                self._say(report)
        self._threads.discard(this)

    def _say_begun(self, tag: int) -> None:
        self._say(begun(tag))

    def _next(self) -> int | None:
        """Return the tag of the next job; None if the thread is to end."""
        with self._assigning:
            if self._members > self.size:
                self._members -= 1
                return None
            try:
                return self._jobs.get_nowait()
            except queue.Empty:
                self._idle += 1
        return self._jobs.get()


_DEEPEST = 8


class InProcessPool:
    """Parts of the pools in the worker's own process: their jobs, and the reports that come from other threads."""

    def __init__(self, size: int, execute: Executor) -> None:
        self.size = size
        self._execute = execute
        self._reports = ReportQueue()
        self._held: set[int] = set()
        """Tags of the jobs that have not ended."""
        self._window = PrefetchWindow()

    def start(self) -> None:
        self._execute.tidy = Streams().mend
        self._execute.say = self._reports.say

    def room(self) -> int:
        return max(0, self.size * min(self._window.depth, _DEEPEST) - len(self._held))

    def files(self) -> list[int]:
        return self._reports.files()

    def unsent(self) -> list[int]:
        return []

    def collect(self) -> list[JobReport]:
        reports = self._reports.take()
        for report in reports:
            if is_end(report):
                self._held.discard(report.tag)
                self._window.observe(report.runtime)
        return reports

    def look_in(self) -> float:
        return math.inf

    def pids(self) -> list[int]:
        return [os.getpid()]

    def abandon(self) -> None:
        """Nothing runs in the worker's own thread."""


class ThreadPool(InProcessPool):
    """Pool of ``size`` threads that take jobs from one queue."""

    def __init__(self, size: int, execute: Executor) -> None:
        super().__init__(size, execute)
        self._threads = ThreadGroup(size, execute, self._reports.say)

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._held.add(job.tag)
            self._threads.submit(job)

    def kill(self, tag: int, number: int = signal.SIGKILL) -> bool:  # noqa: ARG002 - no signal reaches a thread
        since = self._threads.running_since().get(tag)
        if since is None or not self._threads.give_up(tag):
            return False
        self._reports.say(JobReport(tag, KILLED, monotonic() - since))
        return True

    def collect(self) -> list[JobReport]:
        if self._threads.is_short:
            self._threads.begin_missing()
        return super().collect()

    def running_since(self) -> dict[int, float]:
        return self._threads.running_since()

    def pid_of(self, tag: int) -> int | None:
        return os.getpid() if tag in self._threads.running_since() else None

    def withdraw(self, tag: int) -> bool:
        found = self._threads.withdraw(tag)
        if found:
            self._held.discard(tag)
            self._window.close()
        return found

    def grow(self, by: int = 1) -> None:
        self.size += by
        self._threads.resize(self.size)

    def shrink(self, by: int = 1) -> None:
        self.size = max(1, self.size - by)
        self._threads.resize(self.size)

    def stop(self, grace: float) -> None:
        self._threads.stop(monotonic() + grace)
