"""What a program says: its end for the result, its lines for the log, both bounded."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from typing import IO

log = logging.getLogger(__name__)

OUTPUT_MAX = 64 * 1024
"""Bytes of output that are kept: the last ones."""
LINES_MAX = 1_000
"""Lines of one program in the log: the first ones."""
_LINE_MAX = 2_000
_CHUNK = 8192
_LAST_WORDS_S = 2.0
"""How long output may still come after the program has ended: a grandchild may hold the pipe."""


class Output:
    """The output of ``program``, read in a thread so that a talkative one never blocks on a full pipe."""

    def __init__(self, stream: IO[bytes] | None, program: str, *, log: bool) -> None:
        self._stream = stream
        self._program = program
        self._kept = bytearray()
        self._truncated = False
        self._logs = log
        self._lines = 0
        self._rest = b""
        self._wake_read, self._wake_write = os.pipe()
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="command-output", daemon=True)
        self._thread.start()

    def end(self) -> tuple[str, bool]:
        """Its last :data:`OUTPUT_MAX` bytes as text, and whether its beginning is missing.

        A child that the program left behind may hold the pipe: it is not waited for longer than two seconds, and what
        it writes later finds no reader.
        """
        if not self._ended:
            self._ended = True
            self._thread.join(_LAST_WORDS_S)
            os.write(self._wake_write, b"!")
            self._thread.join()
            os.close(self._wake_read)
            os.close(self._wake_write)
        return bytes(self._kept).decode("utf-8", "replace"), self._truncated

    def _read(self) -> None:
        if self._stream is None:
            return
        with contextlib.suppress(OSError, ValueError):
            while self._readable() and (data := os.read(self._stream.fileno(), _CHUNK)):
                self._keep(data)
                self._log(data)
        if self._rest:
            self._log(b"\n")
        if self._lines > LINES_MAX:
            self._say(f"… {self._lines - LINES_MAX:,} lines more")
        self._stream.close()

    def _readable(self) -> bool:
        """Wait for output; false when nobody wants it any more."""
        assert self._stream is not None  # noqa: S101 - the caller reads it
        poller = select.poll()
        poller.register(self._stream.fileno(), select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        return all(descriptor != self._wake_read for descriptor, _ in poller.poll())

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _keep(self, data: bytes) -> None:
        self._kept += data
        if (excess := len(self._kept) - OUTPUT_MAX) > 0:
            self._truncated = True
            del self._kept[:excess]

    def _log(self, data: bytes) -> None:
        if not self._logs:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_LINE_MAX:]
        for line in lines:
            self._lines += 1
            if self._lines <= LINES_MAX:
                self._say(line[:_LINE_MAX].decode("utf-8", "replace").rstrip())

    def _say(self, line: str) -> None:
        log.info("%s: %s", self._program, line, extra={"event": "command_output", "program": self._program})
