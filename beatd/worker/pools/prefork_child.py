"""The child of the prefork pool: reads jobs, runs them one after the other, reports.

It lasts for so many tasks, until it is too large, or until it cannot open files. What a task has changed in its process
is put right, so that the next one finds it as the first one did.
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
        """True if a process that has run ``tasks``, the last of them with ``report``, should be replaced.

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
    """stdout and stderr as they are now. A log that cannot be written would fail tasks that did nothing wrong."""

    def __init__(self) -> None:
        self._streams: dict[str, Any] = {"stdout": sys.stdout, "stderr": sys.stderr}

    def mend(self) -> None:
        """Replace those that were closed or exchanged."""
        for name, stream in self._streams.items():
            if getattr(sys, name) is not stream:
                setattr(sys, name, stream)
            if getattr(stream, "closed", False):
                self._streams[name] = _reopened(name)


class ProcessStateGuard:
    """The state of this process now, to be restored after each task: what matters to the next one at once, the rest
    (:meth:`thoroughly`) before the process waits for more. A call to the system costs as much as a short task.

    At once: signal handlers, blocked signals, the working directory, umask, ``sys.stdout`` and ``sys.stderr``. An alarm
    that is left needs nothing: what it would call is gone, and a time limit sets its own. To be used in the main thread
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
        with contextlib.suppress(OSError):  # a task may have closed everything: the link's end will show it
            os.fchdir(self._directory)
        self._streams.mend()

    def thoroughly(self) -> None:
        """Call off alarms, and open again what is behind stdout and stderr."""
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
    """The stream of that name, made anew; the log's handlers get it in place of closed ones."""
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


encode_batch = msgspec.msgpack.Encoder().encode
_decode_batch = msgspec.msgpack.Decoder(Batch).decode
_encode_reports = msgspec.msgpack.Encoder().encode
decode_reports = msgspec.msgpack.Decoder(list[JobReport]).decode


def frame(payload: bytes) -> bytes:
    """A payload with its length in front."""
    return _LENGTH.pack(len(payload)) + payload


class Frames:
    """Cuts a stream of bytes into the payloads that :func:`frame` made."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads that are complete with ``data``."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            yield bytes(buffer[start + _LENGTH.size : end])
            start = end
        del buffer[:start]


class SharedStatus:
    """Memory that a child shares with its parent: what it runs, and since when. No call, no message, no lock.

    The parent reads it to enforce time limits, and after a child's death to know what died with it.
    """

    _LAYOUT = struct.Struct("<qd")
    _RECALLED = struct.Struct("<q")
    _CONDEMNED = struct.Struct("<q")
    _CONDEMNED_AT = _LAYOUT.size + _RECALLED.size

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._CONDEMNED_AT + self._CONDEMNED.size)

    def begin(self, tag: int) -> None:
        self._LAYOUT.pack_into(self._memory, 0, tag, monotonic())

    def end(self) -> None:
        self._LAYOUT.pack_into(self._memory, 0, 0, 0.0)

    def read(self) -> tuple[int, float] | None:
        """The tag of what runs and when it began (monotonic seconds), None between jobs."""
        tag, since = self._LAYOUT.unpack_from(self._memory, 0)
        return (tag, since) if tag else None

    def recall(self, number: int) -> None:
        """Parent: no job of a batch up to ``number`` may begin any more."""
        self._RECALLED.pack_into(self._memory, self._LAYOUT.size, number)

    def recalled(self) -> int:
        """Child: the last batch that was recalled; to be asked after :meth:`begin`."""
        return int(self._RECALLED.unpack_from(self._memory, self._LAYOUT.size)[0])

    def condemn(self, tag: int) -> None:
        """Parent: the next signal is meant for that job."""
        self._CONDEMNED.pack_into(self._memory, self._CONDEMNED_AT, tag)

    def is_condemned(self) -> bool:
        """Child: whether a signal is meant for what runs now."""
        tag = self._LAYOUT.unpack_from(self._memory, 0)[0]
        return bool(tag) and tag == self._CONDEMNED.unpack_from(self._memory, self._CONDEMNED_AT)[0]

    def close(self) -> None:
        self._memory.close()


def child_main(link: socket.socket, board: SharedStatus, execute: Executor, lifetime: ChildLimits) -> None:
    """Serve until the parent closes the link, is gone, or this process has had its time."""

    def on_signal(number: int, _frame: Any) -> None:
        # Ctrl-C and a service manager signal the whole group: it is the parent who decides when a child ends.
        if board.is_condemned():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    # Handlers, not SIG_IGN: programs that a task starts would inherit that.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM):
        signal.signal(number, on_signal)
    _die_with(os.getppid())
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
                        return
            tidy.thoroughly()


def _die_with(parent: int) -> None:
    """Have the kernel (Linux) end this process with its parent: its task will be run again, and must not run twice."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _run(link: socket.socket, board: SharedStatus, execute: Executor, job: Job, batch: int) -> JobReport | None:
    """Run a job and report; None if it was recalled. Shown on the board first: the parent looks there last."""
    board.begin(job.tag)
    if batch <= board.recalled():
        board.end()
        _send(link, JobReport(job.tag, SKIPPED))
        return None
    report = execute(job, lambda begun: _send(link, begun))
    _send(link, report)
    # Only after the report is out: a death in between must not look like a job that never began.
    board.end()
    return report


def _send(link: socket.socket, report: JobReport) -> None:
    link.sendall(frame(_encode_reports([report])))
