"""The prefork pool: processes that were forked from the worker, each with a link of its own and a few jobs ahead.

A link is a socket pair: jobs go down in batches, reports come up as they happen. The worker never waits for a child.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence

from beatd.store.outcomes import STARTED
from beatd.worker.execution import Executor
from beatd.worker.messages import KILLED, LOST, SKIPPED, Job, Report
from beatd.worker.pools.child import Batch, Board, Frames, decode_reports, encode_batch, frame, live
from beatd.worker.pools.window import Window

log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_LONG_S = 0.1
"""A job that runs for so long must not keep others waiting behind it."""


class Child:
    """A process of the pool as its parent knows it."""

    def __init__(self, number: int, pid: int, link: socket.socket, board: Board) -> None:
        self.number = number
        self.pid = pid
        self.link = link
        self.board = board
        self.jobs: dict[int, Job] = {}
        """Sent and not reported as ended, in the order in which they run."""
        self.killed: int | None = None
        """The job that it was killed for."""
        self._batch = 1
        self._recalling: int | None = None
        """The job that was running when the others were recalled."""
        self._frames = Frames()
        self._unsent = bytearray()

    def send(self, jobs: Sequence[Job]) -> None:
        """Hand over jobs; what does not fit into the socket now follows with the next :meth:`flush`."""
        self.jobs.update((job.tag, job) for job in jobs)
        self._unsent += frame(encode_batch(Batch(self._batch, list(jobs))))
        self.flush()

    def is_long_at_it(self, now: float) -> bool:
        """Whether its present job has been running for :data:`_LONG_S`."""
        running = self.board.read()
        return running is not None and now - running[1] > _LONG_S

    def recall(self, now: float) -> list[Job]:
        """The jobs that wait behind a long one, taken back for others to run.

        In two turns of the loop. First the board says that none of them may begin. When the same job is still running
        a turn later, none has begun, and none will. Otherwise the process reports, one by one, those it has skipped.
        """
        running = self.board.read()
        if self._recalling is not None:
            stuck, self._recalling = self._recalling, None
            if running is not None and running[0] == stuck:
                waiting = [job for tag, job in self.jobs.items() if tag != stuck]
                self.jobs = {tag: job for tag, job in self.jobs.items() if tag == stuck}
                return waiting
        elif running is not None and len(self.jobs) > 1 and now - running[1] > _LONG_S:
            self._recalling = running[0]
            self.board.recall(self._batch)
            self._batch += 1
        return []

    def flush(self) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._unsent:
                del self._unsent[: self.link.send(self._unsent)]

    def receive(self) -> tuple[list[Report], bool]:
        """The reports that have come, and whether the process is still there."""
        reports: list[Report] = []
        while True:
            try:
                data = self.link.recv(_CHUNK)
            except BlockingIOError:
                return reports, True
            except ConnectionResetError:
                data = b""
            if not data:
                return reports, False
            for payload in self._frames.feed(data):
                reports.extend(decode_reports(payload))
            if len(data) < _CHUNK:
                return reports, True


class PreforkPool:
    """``size`` child processes; one that ends is replaced at once."""

    def __init__(
        self,
        size: int,
        execute: Executor,
        *,
        in_child: Callable[[int], None] = lambda _number: None,
        max_tasks_per_child: int | None = None,
    ) -> None:
        self.size = size
        self._execute = execute
        self._in_child = in_child
        self._max_tasks = max_tasks_per_child
        self._children: list[Child] = []
        self._waiting: list[Job] = []
        self._window = Window()

    def start(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        for number in range(1, self.size + 1):
            self._children.append(self._fork(number))

    def room(self) -> int:
        depth, ready = self._window.depth, self._ready()
        held = len(self._waiting) + sum(len(child.jobs) for child in ready)
        free = depth * len(ready) - held
        if depth > 2 and 2 * free < depth * len(ready) and all(child.jobs for child in ready):
            return 0  # enough to do: rather take more at once a little later
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

    def collect(self) -> list[Report]:
        reports: list[Report] = []
        for index, child in enumerate(self._children):
            child.flush()
            news, alive = child.receive()
            for report in news:
                self._take_note(child, report)
            reports.extend(report for report in news if report.state != SKIPPED)
            self._waiting[:0] = child.recall(time.monotonic())
            if not alive:
                reports.extend(self._bury(child))
                self._children[index] = self._fork(child.number)
        if self._waiting:
            self.submit(())
        return reports

    def _take_note(self, child: Child, report: Report) -> None:
        if report.state == STARTED:
            return
        job = child.jobs.pop(report.tag, None)
        if report.state != SKIPPED:
            self._window.observe(report.runtime)
        elif job is not None:
            self._waiting.append(job)

    def _ready(self) -> list[Child]:
        """The processes that may be given jobs: not those who are at a long one."""
        now = time.monotonic()
        return [child for child in self._children if not (child.jobs and child.is_long_at_it(now))]

    def kill(self, tag: int) -> bool:
        for child in self._children:
            if (now := child.board.read()) and now[0] == tag:
                child.killed = tag
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
                return True
        return False

    def running_since(self) -> dict[int, float]:
        return dict(now for child in self._children if (now := child.board.read()))

    def pids(self) -> list[int]:
        return [child.pid for child in self._children]

    def pid_of(self, tag: int) -> int | None:
        return next((child.pid for child in self._children if (now := child.board.read()) and now[0] == tag), None)

    def withdraw(self, tag: int) -> bool:
        before = len(self._waiting)
        self._waiting = [job for job in self._waiting if job.tag != tag]
        return len(self._waiting) < before

    def stop(self, grace: float) -> None:
        for child in self._children:
            child.link.close()
        deadline = time.monotonic() + grace
        for child in self._children:
            while not _ended(child.pid):
                if time.monotonic() >= deadline:
                    os.kill(child.pid, signal.SIGKILL)
                    os.waitpid(child.pid, 0)
                    break
                time.sleep(0.005)
            child.board.close()
        self._children.clear()

    def _bury(self, child: Child) -> list[Report]:
        """Clean up after a child that is gone: what it was running is lost, what it had not begun goes to others."""
        child.link.close()
        _, status = os.waitpid(child.pid, 0)
        now = child.board.read()
        child.board.close()
        lost = child.jobs.pop(now[0], None) if now else None
        self._waiting[:0] = child.jobs.values()
        if lost is None:
            return []
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code} ({_signal_name(-code)})" if code < 0 else f"exitcode {code}"
        if child.killed != lost.tag:
            log.error(
                "Process %s ended while it ran a task: %s",
                f"ForkPoolWorker-{child.number}",
                how,
                extra={"event": "pool_process_lost", "pid": child.pid, "exitcode": code},
            )
        state = KILLED if child.killed == lost.tag else LOST
        since = now[1] if now else 0.0
        return [Report(lost.tag, state, time.monotonic() - since, text=f"Worker exited prematurely: {how}.")]

    def _fork(self, number: int) -> Child:
        ours, theirs = socket.socketpair()
        board = Board()
        pid = os.fork()
        if pid == 0:
            self._be_child(number, ours, theirs, board)
        theirs.close()
        ours.setblocking(False)
        return Child(number, pid, ours, board)

    def _be_child(self, number: int, ours: socket.socket, theirs: socket.socket, board: Board) -> None:
        """Never returns. ``os._exit``: the parent's clean-up is not the child's to do."""
        code = 1
        try:
            ours.close()
            for sibling in self._children:
                sibling.link.close()
            self._in_child(number)
            live(theirs, board, self._execute, self._max_tasks)
            code = 0
        except BaseException:
            log.exception("Process of the pool failed", extra={"event": "pool_process_failed"})
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def _ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] != 0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
