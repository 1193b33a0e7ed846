"""Asyncio pool: ``async def`` tasks in one event loop, hundreds at a time; other tasks in threads beside it.

The loop has a thread of its own, the worker's loop keeps its own: neither waits for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from beatd.app.task import Task
from beatd.clock import monotonic, sleep
from beatd.worker.execution.executor import Attempt, Executor, begun
from beatd.worker.messages import KILLED, Job, JobReport, is_end
from beatd.worker.pools.threads import InProcessPool, ThreadGroup

log = logging.getLogger("celery.pool")

_LAST_S = 0.5
"""Time for cancelled tasks to clean up when the pool stops."""


Run = Callable[[], Coroutine[Any, Any, JobReport]]


class AsyncioPool(InProcessPool):
    """At most ``size`` tasks at a time, coroutines and threads together."""

    def __init__(self, size: int, execute: Executor) -> None:
        super().__init__(size, execute)
        self._loop = asyncio.new_event_loop()
        self._is_stopped = False
        self._is_leaving = False
        """True once what still runs is cancelled, to be given back."""
        self._thread = threading.Thread(target=self._live, name="AsyncioPoolWorker", daemon=True)
        # From here on: changed by the loop's thread only.
        self._threads = ThreadGroup(size, execute, self._report_from_thread)
        self._waiting: deque[int] = deque()
        self._queued: dict[int, Job] = {}
        """By tag: jobs to run; the worker's thread adds, either thread removes."""
        self._running: dict[int, float] = {}
        self._tasks: dict[int, asyncio.Task[None] | None] = {}
        """By tag; None for what runs in a thread."""

    def start(self) -> None:
        super().start()
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        tags = [job.tag for job in jobs]
        self._held.update(tags)
        self._queued.update(zip(tags, jobs, strict=True))
        self._loop.call_soon_threadsafe(self._accept, tags)

    def collect(self) -> list[JobReport]:
        if self._threads.is_short:
            self._loop.call_soon_threadsafe(self._threads.begin_missing)
        return super().collect()

    def kill(self, tag: int, number: int = signal.SIGKILL) -> bool:  # noqa: ARG002 - no signal reaches a coroutine
        since = self.running_since().get(tag)
        if since is None:
            return False
        if self._running.pop(tag, None) is None and not self._threads.give_up(tag):
            return False  # it has just ended
        self._reports.say(JobReport(tag, KILLED, monotonic() - since))
        self._loop.call_soon_threadsafe(self._abandon, tag)
        return True

    def running_since(self) -> dict[int, float]:
        return {**self._running.copy(), **self._threads.running_since()}

    def pid_of(self, tag: int) -> int | None:
        return os.getpid() if tag in self.running_since() else None

    def withdraw(self, tag: int) -> bool:
        if self._queued.pop(tag, None) is None:
            return False
        self._held.discard(tag)
        self._window.close()
        return True

    def grow(self, by: int = 1) -> None:
        self._resize(self.size + by)

    def shrink(self, by: int = 1) -> None:
        self._resize(max(1, self.size - by))

    def stop(self, grace: float) -> None:
        deadline = monotonic() + grace
        while self._tasks and monotonic() < deadline:
            sleep(0.005)
        with contextlib.suppress(Exception):  # a task may block the loop: the process ends anyway
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(2 * _LAST_S)
        self._threads.stop(monotonic() + _LAST_S)
        self._is_stopped = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LAST_S)

    # -- the loop's thread --------------------------------------------------------------------------------------------

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._is_stopped:
            try:
                self._loop.run_forever()
            except BaseException as error:  # what sys.exit() in a task's own task or callback raises
                log.exception(
                    "The event loop was interrupted by a task's own code, and goes on",
                    extra={"event": "event_loop_interrupted", "error": repr(error)},
                )

    def _accept(self, tags: list[int]) -> None:
        self._waiting.extend(tags)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._tasks) < self.size:
            if (job := self._queued.pop(self._waiting.popleft(), None)) is not None:
                self._begin(job)

    def _begin(self, job: Job) -> None:
        prepared = self._execute.prepare(job)
        if isinstance(prepared, JobReport):
            self._reports.say(prepared)
        elif is_async(prepared.task):
            self._running[job.tag] = monotonic()
            if job.announce:
                self._reports.say(begun(job.tag))
            self._create_task(prepared, functools.partial(self._execute.run_async, prepared))
        else:
            self._tasks[job.tag] = None
            self._threads.submit(job)

    def _create_task(self, attempt: Attempt, run: Run) -> None:
        task = self._loop.create_task(self._serve(attempt.job.tag, run))
        self._tasks[attempt.job.tag] = task
        task.add_done_callback(functools.partial(self._after, attempt))

    async def _serve(self, tag: int, run: Run) -> None:
        report = await run()
        if self._running.pop(tag, None) is not None:  # else it was killed and reported meanwhile
            self._reports.say(report)
            self._leave(tag)

    def _after(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        """Let a run fail that code of another task has cancelled, perhaps before it began."""
        since = self._running.get(attempt.job.tag)
        if task.cancelled() and since is not None and not self._is_leaving:
            fail = functools.partial(self._execute.cancelled, attempt, monotonic() - since)
            self._create_task(attempt, fail)

    def _report_from_thread(self, report: JobReport) -> None:
        """Report from a thread of the group."""
        self._reports.say(report)
        if is_end(report):
            self._loop.call_soon_threadsafe(self._leave, report.tag)

    def _leave(self, tag: int) -> None:
        self._tasks.pop(tag, None)
        if self._waiting:
            self._fill()

    def _abandon(self, tag: int) -> None:
        """Cancel a killed task; its place is free, even if it goes on."""
        if (task := self._tasks.get(tag)) is not None:
            task.cancel()
        self._leave(tag)

    def _resize(self, size: int) -> None:
        self.size = size
        self._loop.call_soon_threadsafe(self._threads.resize, size)
        self._loop.call_soon_threadsafe(self._fill)

    async def _cancel_all(self) -> None:
        self._is_leaving = True
        tasks = [task for task in self._tasks.values() if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_S)


@functools.cache
def is_async(task: Task[Any, Any]) -> bool:
    """True for an ``async def`` task. One behind a synchronous decorator runs in a thread."""
    return inspect.iscoroutinefunction(task.run)
