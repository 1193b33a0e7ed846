"""The life of one process of the prefork pool: read jobs, run them one after the other, report."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from beatd.worker.execution import Executor
from beatd.worker.messages import SKIPPED, Job, Report
from beatd.worker.pools.lifetime import Lifetime
from beatd.worker.pools.tidying import Tidy

_LENGTH = struct.Struct("<I")
_CHUNK = 1 << 18


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Jobs for one process. ``number`` grows with each recall, see :meth:`Board.recall`."""

    number: int
    jobs: list[Job]


encode_batch = msgspec.msgpack.Encoder().encode
_decode_batch = msgspec.msgpack.Decoder(Batch).decode
_encode_reports = msgspec.msgpack.Encoder().encode
decode_reports = msgspec.msgpack.Decoder(list[Report]).decode


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


class Board:
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
        self._LAYOUT.pack_into(self._memory, 0, tag, time.monotonic())

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


def live(link: socket.socket, board: Board, execute: Executor, lifetime: Lifetime) -> None:
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
    tidy = execute.tidy = Tidy()
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


def _run(link: socket.socket, board: Board, execute: Executor, job: Job, batch: int) -> Report | None:
    """Run a job and report; None if it was recalled. Shown on the board first: the parent looks there last."""
    board.begin(job.tag)
    if batch <= board.recalled():
        board.end()
        _send(link, Report(job.tag, SKIPPED))
        return None
    report = execute(job, lambda begun: _send(link, begun))
    _send(link, report)
    # Only after the report is out: a death in between must not look like a job that never began.
    board.end()
    return report


def _send(link: socket.socket, report: Report) -> None:
    link.sendall(frame(_encode_reports([report])))
