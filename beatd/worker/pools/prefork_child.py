"""Child of the prefork pool: reads jobs, runs them one after the other, reports.

It ends after a number of tasks, above a memory limit, or when it cannot open files. The state of the process is
restored after each task.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal wraps: its enums cost more than all of this
import contextlib
import ctypes
import gc
import logging
import mmap
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from beatd.clock import monotonic
from beatd.process_signals import UNUSED
from beatd.states import FAILURE
from beatd.worker.execution.executor import Executor
from beatd.worker.messages import SKIPPED, Job, JobReport

log = logging.getLogger("celery.pool")

_PER_KIB = 1 if sys.platform == "linux" else 1024
"""``ru_maxrss`` is in KiB on Linux and in bytes on macOS, see getrusage(2)."""


class ChildLimits(msgspec.Struct, frozen=True):
    """Limits for one process; None for no limit."""

    max_tasks: int | None = None
    max_memory: int | None = None
    """Resident memory in KiB, at its highest."""

    def is_over(self, tasks: int, report: JobReport, link: int) -> bool:
        """True if a process should be replaced after ``tasks`` tasks, the last one with ``report``.

        ``link`` is any open file descriptor.
        """
        if self.max_tasks is not None and tasks >= self.max_tasks:
            return True
        if self.max_memory is not None and (used := _memory()) > self.max_memory:
            log.warning(
                "child process exiting after exceeding memory limit (%sKiB / %sKiB)",
                used,
                self.max_memory,
                extra={"event": "pool_process_too_large", "used": used, "limit": self.max_memory},
            )
            return True
        if report.state == FAILURE and not _can_open_more(link):
            log.warning(
                "child process exiting: its tasks left no file descriptors",
                extra={"event": "pool_process_out_of_files"},
            )
            return True
        return False


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _PER_KIB


def _can_open_more(link: int) -> bool:
    try:
        os.close(os.dup(link))
    except OSError:
        return False
    return True


_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM)


class Streams:
    """Guard of stdout and stderr: a closed stream would fail the log lines of later tasks."""

    def __init__(self) -> None:
        self._streams: dict[str, Any] = {"stdout": sys.stdout, "stderr": sys.stderr}

    def mend(self) -> None:
        """Restore streams that were closed or replaced."""
        for name, stream in self._streams.items():
            if getattr(sys, name) is not stream:
                setattr(sys, name, stream)
            if getattr(stream, "closed", False):
                self._streams[name] = _reopened(name)


class ProcessStateGuard:
    """Restores the state of this process after each task: at once where the next task depends on it, the rest
    (:meth:`thoroughly`) before the process waits. A system call costs as much as a short task.

    At once: signal handlers, blocked signals, the working directory, umask, ``sys.stdout`` and ``sys.stderr``. A
    pending alarm is harmless: its handler is gone, and a time limit sets its own. To be used in the main thread
    of a process that runs one task at a time.
    """

    def __init__(self) -> None:
        self._streams = Streams()
        self._directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        self._copies = [(os.dup(number), number) for number in (1, 2) if _is_open(number)]
        self._umask = os.umask(0)
        os.umask(self._umask)
        self._handlers = [(int(number), _signal.getsignal(number)) for number in _HANDLED]

    def __call__(self) -> None:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        for handled, handler in self._handlers:
            if _signal.getsignal(handled) is not handler:
                _signal.signal(handled, handler)
        os.umask(self._umask)
        try:  # noqa: SIM105 - suppress() costs more than the rest
            os.fchdir(self._directory)
        except OSError:  # a task may have closed everything: the link's end will show it
            pass
        self._streams.mend()

    def thoroughly(self) -> None:
        """Cancel alarms, and reopen the files behind stdout and stderr."""
        _signal.setitimer(_signal.ITIMER_REAL, 0)
        with contextlib.suppress(OSError):
            for copy, number in self._copies:
                os.dup2(copy, number)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _reopened(name: str) -> Any:
    """Reopen a stream and give it to log handlers with a closed one."""
    number = 1 if name == "stdout" else 2
    stream = os.fdopen(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    setattr(sys, name, stream)
    for handler in _handlers():
        if isinstance(handler, logging.StreamHandler) and getattr(handler.stream, "closed", False):
            handler.stream = stream  # not setStream(): it would flush the closed one
    return stream


def _handlers() -> Iterator[logging.Handler]:
    yield from logging.root.handlers
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield from logger.handlers


_LENGTH = struct.Struct("<I")
_CHUNK = 1 << 18


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Jobs for one process. ``number`` grows with each recall, see :meth:`SharedStatus.recall`."""

    number: int
    jobs: list[Job]


_encoder = msgspec.msgpack.Encoder()
_decode_batch = msgspec.msgpack.Decoder(Batch).decode
decode_reports = msgspec.msgpack.Decoder(list[JobReport]).decode


def add_frame(stream: bytearray, content: Batch | list[JobReport]) -> None:
    """Add a frame to the end of a stream: the length of the encoded content, and the content."""
    start = len(stream)
    stream += bytes(_LENGTH.size)
    _encoder.encode_into(content, stream, -1)
    _LENGTH.pack_into(stream, start, len(stream) - start - _LENGTH.size)


class Frames:
    """Splits a byte stream into the payloads of :func:`add_frame`. None is copied: they may be large."""

    def __init__(self) -> None:
        self._begun = bytearray()
        """The beginning of a frame."""

    def feed(self, data: bytes) -> Iterator[memoryview]:
        """Yield the payloads that ``data`` completes."""
        begun: bytes | bytearray = data
        if self._begun:
            self._begun += data
            begun = self._begun
        if _end_of_first(begun) > len(begun):
            self._begun = begun if isinstance(begun, bytearray) else bytearray(begun)
            return
        self._begun, left = bytearray(), memoryview(begun)
        while (end := _end_of_first(left)) <= len(left):
            yield left[_LENGTH.size : end]
            left = left[end:]
        self._begun += left


def _end_of_first(stream: bytes | bytearray | memoryview) -> int:
    """Return where the first frame of a stream ends; behind the end of one that has not even its length."""
    return _LENGTH.size + (_LENGTH.unpack_from(stream)[0] if len(stream) >= _LENGTH.size else 1)


class SharedStatus:
    """Memory shared by child and parent: the running job and its start. No call, no message, no lock.

    The parent reads it to enforce time limits, to learn which tasks have begun, and to find the job of a child that
    died. It may read at any moment: so each number is written in one piece, and the start of a job before its tag. No
    job seems older than it is.
    """

    _TAG, _SINCE, _RECALLED, _CONDEMNED, _BEGUN = range(5)

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 5 * 8)
        self._numbers = memoryview(self._memory).cast("q")
        self._times = memoryview(self._memory).cast("d")

    def begin(self, tag: int) -> None:
        self._times[self._SINCE] = monotonic()
        self._numbers[self._TAG] = tag

    def end(self) -> None:
        self._numbers[self._TAG] = 0

    def read(self) -> tuple[int, float] | None:
        """Return the running job's tag and start (monotonic seconds), None between jobs."""
        tag = self._numbers[self._TAG]
        return (tag, self._times[self._SINCE]) if tag else None

    def begin_task(self, tag: int) -> None:
        """Child: say that the message is opened and its task begins."""
        self._numbers[self._BEGUN] = tag

    def begun_task(self) -> int:
        """Parent: return the tag of the job whose task began last; it may have ended. 0: none yet."""
        return self._numbers[self._BEGUN]

    def recall(self, number: int) -> None:
        """Parent: forbid the start of jobs in batches up to ``number``."""
        self._numbers[self._RECALLED] = number

    def recalled(self) -> int:
        """Child: return the last recalled batch; call it after :meth:`begin`."""
        return self._numbers[self._RECALLED]

    def condemn(self, tag: int) -> None:
        """Parent: mark the job for which the next signal is sent."""
        self._numbers[self._CONDEMNED] = tag

    def is_condemned(self) -> bool:
        """Child: true if a signal is meant for the running job."""
        tag = self._numbers[self._TAG]
        return bool(tag) and tag == self._numbers[self._CONDEMNED]

    def close(self) -> None:
        self._numbers.release()
        self._times.release()
        self._memory.close()


def child_main(link: socket.socket, board: SharedStatus, execute: Executor, lifetime: ChildLimits) -> None:
    """Serve until the parent closes the link or ends, or this process is due for replacement."""

    def on_signal(number: int, _frame: Any) -> None:
        # Ctrl-C and a service manager signal the whole group: only the parent ends a child.
        if board.is_condemned():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    # Handlers, not SIG_IGN: programs that a task starts would inherit that.
    for number in (*_HANDLED, *UNUSED):
        signal.signal(number, on_signal)
    gc.freeze()  # what the parent had made stays in pages shared with it
    tidy = execute.tidy = ProcessStateGuard()
    tasks = 0
    frames = Frames()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while data := link.recv(_CHUNK):
            for payload in frames.feed(data):
                batch = _decode_batch(payload)
                for job in batch.jobs:
                    report = _run(link, board, execute, job, batch.number)
                    if report is None:
                        continue
                    tasks += 1
                    if lifetime.is_over(tasks, report, link.fileno()):
                        execute.traces.stop()
                        return
            tidy.thoroughly()
    execute.traces.stop()


def die_with(parent: int) -> None:
    """Let the kernel (Linux) kill this process with its parent: its task is redelivered, and must not run twice."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _run(link: socket.socket, board: SharedStatus, execute: Executor, job: Job, batch: int) -> JobReport | None:
    """Run a job and report; None if it was recalled. The shared status comes first: the parent reads it last."""
    board.begin(job.tag)
    if batch <= board.recalled():
        board.end()
        _send(link, JobReport(job.tag, SKIPPED))
        return None
    report = execute(job, board.begin_task)
    _send(link, report)
    # Only after the report is out: a death in between must not look like a job that never began.
    board.end()
    return report


def _send(link: socket.socket, report: JobReport) -> None:
    stream = bytearray()
    add_frame(stream, [report])
    link.sendall(stream)
