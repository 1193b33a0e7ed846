"""Prefork pool: processes forked from the worker, each with its socket pair and a few prefetched jobs.

Jobs go down in batches, and reports of their ends come up as they happen. The worker reads in shared memory which task
has begun. It never waits for a child.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence

from beatd import signals
from beatd.clock import Backoff, monotonic, sleep
from beatd.worker.execution.executor import Executor, begun
from beatd.worker.messages import KILLED, LOST, MALFORMED, SKIPPED, Job, JobReport
from beatd.worker.pools.base import PrefetchWindow
from beatd.worker.pools.prefork_child import ChildLimits, SharedStatus, child_main, die_with
from beatd.worker.pools.prefork_process import ChildProcess

log = logging.getLogger(__name__)

_BUFFER = 1 << 19
"""Bytes that a link holds, if the system allows it: the worker need not wake up so often for a large message."""
_BEGIN_LOOK_S = 0.005
"""Time after which the start of a task is looked for. Most tasks are over by then, and report both at once."""
_CHECK_S = 0.5
"""Period of the check for ended processes: a program that a task has left may hold the link open."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 10.0
"""Pauses after forks that the system refuses."""
_FAILED_START_S = 1.0
"""Pause of a process that fails at its start, so that it is not replaced all the time."""


class PreforkPool:
    """Pool of ``size`` child processes; an ended one is replaced at once."""

    def __init__(
        self,
        size: int,
        execute: Executor,
        *,
        in_child: Callable[[int], None] = lambda _number: None,
        limits: ChildLimits | None = None,
    ) -> None:
        self.size = size
        self._execute = execute
        self._in_child = in_child
        self._limits = limits or ChildLimits()
        self._children: list[ChildProcess] = []
        self._worker = os.getpid()
        self._waiting: list[Job] = []
        self._last: list[JobReport] = []
        """Reports that came while the pool stopped."""
        self._came_back = False
        """True if processes have given jobs back in this turn: they can be withdrawn before they are sent again."""
        self._window = PrefetchWindow()
        self._check_at = 0.0
        self._fork_at = 0.0
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)

    def start(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._fill(monotonic())

    def room(self) -> int:
        depth, ready = self._window.depth, self._ready()
        held = len(self._waiting) + sum(len(child.jobs) for child in ready)
        free = depth * len(ready) - held
        if depth > 2 and 2 * free < depth * len(ready) and all(child.jobs for child in ready):
            return 0  # enough to do: larger batches later cost less
        return max(0, free)

    def submit(self, jobs: Sequence[Job]) -> None:
        self._waiting.extend(jobs)
        depth, ready = self._window.depth, self._ready()
        while self._waiting and ready:
            child = min(ready, key=lambda one: len(one.jobs))
            free = depth - len(child.jobs)
            if free <= 0:
                break
            share = -(-len(self._waiting) // len(ready))
            count = max(1, min(free, share))
            child.send(self._waiting[:count])
            del self._waiting[:count]

    def files(self) -> list[int]:
        return [child.link.fileno() for child in self._children]

    def unsent(self) -> list[int]:
        return [child.link.fileno() for child in self._children if child.unsent]

    def collect(self) -> list[JobReport]:
        now = monotonic()
        check = now >= self._check_at
        if check:
            self._check_at = now + _CHECK_S
        reports, self._last = self._last, []
        waiting = len(self._waiting)
        for child in tuple(self._children):
            child.flush()
            linked = self._receive(child, reports)
            self._waiting[:0] = child.recall(now)
            if not linked or (check and child.has_ended()):
                self._receive(child, reports)  # its last reports may have arrived only now
                reports.extend(self._bury(child))
            elif child.retiring and not child.jobs:
                child.dismiss()
        if len(self._children) < self.size:
            self._fill(now)
        self._came_back = len(self._waiting) > waiting
        if self._waiting and not self._came_back:
            self.submit(())
        return reports

    def look_in(self) -> float:
        if self._came_back:
            return 0.0
        return _BEGIN_LOOK_S if any(child.may_begin() for child in self._children) else math.inf

    def kill(self, tag: int, number: int = signal.SIGKILL) -> bool:
        for child in self._children:
            if (now := child.board.read()) and now[0] == tag:
                child.kill(tag, number)
                return True
        return False

    def running_since(self) -> dict[int, float]:
        return dict(now for child in self._children if (now := child.board.read()))

    def pids(self) -> list[int]:
        return [child.pid for child in self._children]

    def pid_of(self, tag: int) -> int | None:
        for child in self._children:
            if (now := child.board.read()) and now[0] == tag:
                return child.pid
        return None

    def withdraw(self, tag: int) -> bool:
        before = len(self._waiting)
        self._waiting = [job for job in self._waiting if job.tag != tag]
        for child in self._children:
            if tag in child.jobs:
                child.begin_recall()
        return len(self._waiting) < before

    def grow(self, by: int = 1) -> None:
        self.size += by
        self._fill(monotonic())

    def shrink(self, by: int = 1) -> None:
        by = min(by, self.size - 1)
        self.size -= by
        staying = [child for child in self._children if not child.retiring]
        for child in sorted(staying, key=lambda one: len(one.jobs))[:by]:
            child.retiring = True

    def abandon(self) -> None:
        """Nothing runs in the worker's own thread."""

    def stop(self, grace: float) -> None:
        self.size = 0  # no more replacements
        for child in self._children:
            child.dismiss()
        deadline = monotonic() + grace
        for child in self._children:
            child.wait(deadline - monotonic())
            self._receive(child, self._last)  # what ended just before is neither lost nor run again
            child.close()
        self._children.clear()

    def _receive(self, child: ChildProcess, reports: list[JobReport]) -> bool:
        """Read a child's reports, and which task it has begun; false if it will not send more."""
        news, linked = child.receive()
        for report in news:
            job = child.settle(report)
            if report.state != SKIPPED:
                if job is not None and report.state != MALFORMED and child.note_start(job):
                    reports.append(begun(job.tag, child.pid))
                self._window.observe(report.runtime)
                reports.append(report)
            elif job is not None:
                self._waiting.append(job)
        if (job := child.running()) is not None and child.note_start(job):
            reports.append(begun(job.tag, child.pid))
        return linked

    def _ready(self) -> list[ChildProcess]:
        """Return the processes that can take jobs: not those with a long one."""
        now = monotonic()
        return [
            child for child in self._children if not child.retiring and not (child.jobs and child.is_long_at_it(now))
        ]

    def _bury(self, child: ChildProcess) -> list[JobReport]:
        """Clean up after an ended child: its running job is lost, its other jobs go to other processes."""
        self._children.remove(child)
        now = child.board.read()
        code = child.end()
        lost = child.jobs.pop(now[0], None) if now else None
        self._waiting[:0] = child.jobs.values()
        if lost is None or now is None:
            return []
        how = f"signal {-code} ({_signal_name(-code)})" if code < 0 else f"exitcode {code}"
        if child.killed != lost.tag:
            log.error(
                "Process %s ended while it ran a task: %s",
                f"ForkPoolWorker-{child.number}",
                how,
                extra={"event": "pool_process_lost", "pid": child.pid, "exitcode": code},
            )
        state = KILLED if child.killed == lost.tag else LOST
        return [JobReport(lost.tag, state, monotonic() - now[1], text=f"Worker exited prematurely: {how}.")]

    def _fill(self, now: float) -> None:
        """Fork the missing processes; back off when the system refuses."""
        staying = sum(not child.retiring for child in self._children)
        try:
            while staying < self.size and now >= self._fork_at:
                taken = {child.number for child in self._children}
                number = next(one for one in range(1, len(taken) + 2) if one not in taken)
                self._children.append(self._fork(number))
                self._backoff.succeeded()
                staying += 1
        except OSError as error:
            self._fork_at = now + self._backoff.failed()
            log.log(
                self._backoff.level,
                "Cannot start a process, %d of %d are there: %s",
                staying,
                self.size,
                error,
                extra={"event": "pool_fork_failed", "processes": staying},
            )

    def _fork(self, number: int) -> ChildProcess:
        signals.worker_before_create_process.send(sender=self)
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        try:
            board = SharedStatus()
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            self._be_child(number, ours, theirs, board)
        theirs.close()
        ours.setblocking(False)
        return ChildProcess(number, pid, ours, board)

    def _be_child(self, number: int, ours: socket.socket, theirs: socket.socket, board: SharedStatus) -> None:
        """Run as the child; never returns. ``os._exit`` skips the parent's clean-up handlers."""
        code = 1
        try:
            die_with(self._worker)
            ours.close()
            for sibling in self._children:
                sibling.link.close()
            self._in_child(number)
            die_with(self._worker)  # again: a change of the user takes it away
            child_main(theirs, board, self._execute, self._limits)
            code = 0
        except BaseException:
            log.exception("Process of the pool failed", extra={"event": "pool_process_failed"})
            if board.read() is None:
                sleep(_FAILED_START_S)
        finally:
            with contextlib.suppress(Exception):
                signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=code)
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
