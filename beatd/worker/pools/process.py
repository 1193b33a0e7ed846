"""A process of the prefork pool as its parent knows it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Sequence

from beatd.worker.messages import Job, Report
from beatd.worker.pools.child import Batch, Board, Frames, decode_reports, encode_batch, frame

_CHUNK = 1 << 18
_LONG_S = 0.1
"""A job that runs for so long must not keep others waiting behind it."""
_PARTING_S = 0.1
"""How long a process may take to end after it has closed its link."""


class Child:
    """What was sent to it, what it has said, and how it ended."""

    def __init__(self, number: int, pid: int, link: socket.socket, board: Board) -> None:
        self.number = number
        self.pid = pid
        self.link = link
        self.board = board
        self.jobs: dict[int, Job] = {}
        """Sent and not reported as ended, in the order in which they run."""
        self.killed: int | None = None
        """The job that it was killed for."""
        self.retiring = False
        """Whether it ends with the jobs that it has, and is not replaced."""
        self._status: int | None = None
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
        """The reports that have come, and whether its end of the link is open."""
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

    def dismiss(self) -> None:
        """Let it end when it has done what it was sent."""
        with contextlib.suppress(OSError):  # it is gone already
            self.link.shutdown(socket.SHUT_WR)

    def kill(self, tag: int, number: int) -> None:
        """Send it a signal on account of that job."""
        self.killed = tag
        self.board.condemn(tag)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is not None

    def end(self, grace: float = _PARTING_S) -> int:
        """Wait for its end, which comes by force after ``grace`` seconds; returns the exit code, -n for signal n."""
        deadline = time.monotonic() + grace
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(0.005)
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            _, self._status = os.waitpid(self.pid, 0)
        self.link.close()
        self.board.close()
        return os.waitstatus_to_exitcode(self._status)
