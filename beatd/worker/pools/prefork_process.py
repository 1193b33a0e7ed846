"""Process of the prefork pool, as the worker sees it: its jobs, its reports, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Sequence

from beatd.clock import monotonic, sleep
from beatd.worker.messages import SKIPPED, Job, JobReport
from beatd.worker.pools.prefork_child import Batch, Frames, SharedStatus, add_frame, decode_reports

_CHUNK = 1 << 18
_LONG_S = 0.1
"""Jobs behind one that runs for this time are recalled."""
_END_S = 0.1
"""Time for a process to end after it has closed its link."""


class ChildProcess:
    """Parent's handle of a child: its jobs, its reports, its end."""

    def __init__(self, number: int, pid: int, link: socket.socket, board: SharedStatus) -> None:
        self.number = number
        self.pid = pid
        self.link = link
        self.board = board
        self.jobs: dict[int, Job] = {}
        """Sent and not reported as ended, in the order in which they run."""
        self.killed: int | None = None
        """The job for which it was killed."""
        self.retiring = False
        """True for a process that ends after its jobs and is not replaced."""
        self._status: int | None = None
        self._batch = 1
        self._recalling: int | None = None
        """The job that was running when the others were recalled."""
        self._reported = 0
        """The job whose start was reported last."""
        self._taken_back: set[int] = set()
        """Recalled jobs that other processes may have, and that this one has not reported as skipped yet."""
        self._frames = Frames()
        self.unsent = bytearray()
        """The part of the jobs that its socket has not taken."""

    def send(self, jobs: Sequence[Job]) -> None:
        """Send jobs; the part that does not fit into the socket follows with :meth:`flush`."""
        self.jobs.update((job.tag, job) for job in jobs)
        add_frame(self.unsent, Batch(self._batch, list(jobs)))
        self.flush()

    def is_long_at_it(self, now: float) -> bool:
        """True if its job has been running for :data:`_LONG_S`."""
        running = self.board.read()
        return running is not None and now - running[1] > _LONG_S

    def recall(self, now: float) -> list[Job]:
        """Take back the jobs that wait behind a long one.

        In two turns of the loop. First the board says that none of them may begin. When the same job is still running
        a turn later, none has begun, and none will. Otherwise the process reports, one by one, those it has skipped.
        """
        running = self.board.read()
        if self._recalling is not None:
            stuck, self._recalling = self._recalling, None
            if running is not None and running[0] == stuck:
                waiting = [job for tag, job in self.jobs.items() if tag != stuck]
                self._taken_back.update(job.tag for job in waiting)
                self.jobs = {tag: job for tag, job in self.jobs.items() if tag == stuck}
                return waiting
        elif running is not None and now - running[1] > _LONG_S:
            self.begin_recall()
        return []

    def begin_recall(self) -> None:
        """Say that none of the jobs that wait may begin; see :meth:`recall`."""
        running = self.board.read()
        if running is not None and len(self.jobs) > 1 and self._recalling is None:
            self._recalling = running[0]
            self.board.recall(self._batch)
            self._batch += 1

    def flush(self) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self.unsent:
                del self.unsent[: self.link.send(self.unsent)]

    def receive(self) -> tuple[list[JobReport], bool]:
        """Return the reports, and false if the child has closed the link."""
        reports: list[JobReport] = []
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

    def settle(self, report: JobReport) -> Job | None:
        """Return the job that a report ends; None if this process has none by this report.

        A job that was taken back may have come to this process again before it reports that it has skipped it.
        """
        if report.state == SKIPPED and report.tag in self._taken_back:
            self._taken_back.remove(report.tag)
            return None
        return self.jobs.pop(report.tag, None)

    def note_start(self, job: Job) -> bool:
        """Note that the task of a job has begun; true if that is to be reported, once for each job."""
        if not job.announce or job.tag == self._reported:
            return False
        self._reported = job.tag
        return True

    def running(self) -> Job | None:
        """Return the job whose task is running."""
        return self.jobs.get(self.board.begun_task())

    def may_begin(self) -> bool:
        """True if the start of its next job will have to be reported."""
        job = next(iter(self.jobs.values()), None)
        return job is not None and job.announce and job.tag != self._reported

    def dismiss(self) -> None:
        """Let the process end after its jobs."""
        with contextlib.suppress(OSError):  # the process has ended
            self.link.shutdown(socket.SHUT_WR)

    def kill(self, tag: int, number: int) -> None:
        """Send the process a signal because of a job."""
        self.killed = tag
        self.board.condemn(tag)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def has_ended(self) -> bool:
        """True if the process has ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is not None

    def end(self, grace: float = _END_S) -> int:
        """Wait for its end, kill it after ``grace`` seconds; returns the exit code, -n for signal n."""
        code = self.wait(grace)
        self.close()
        return code

    def wait(self, grace: float) -> int:
        """As :meth:`end`, but what it has reported can still be read."""
        deadline = monotonic() + grace
        while not self.has_ended() and monotonic() < deadline:
            sleep(0.005)
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            _, self._status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(self._status)

    def close(self) -> None:
        self.link.close()
        self.board.close()
