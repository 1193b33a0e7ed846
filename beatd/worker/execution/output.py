"""Capture of a task's output: what it prints, and the log records that it makes, bounded to the last 16 KB.

The buffer belongs to the context of the attempt (``contextvars``): tasks that run beside each other in threads or in
one event loop do not mix. Output of threads and processes that a task starts itself is not captured.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from beatd.store.run_record import OUTPUT_MAX, tail


class Output:
    """The last lines of an attempt."""

    def __init__(self) -> None:
        self._parts: deque[str] = deque()
        self._size = 0

    def write(self, text: str) -> None:
        """Add text; the oldest goes when there is more than is kept."""
        text = text[-2 * OUTPUT_MAX :]
        self._parts.append(text)
        self._size += len(text)
        while self._size - len(self._parts[0]) > OUTPUT_MAX:
            self._size -= len(self._parts.popleft())

    @property
    def text(self) -> str:
        """The tail, with secrets hidden."""
        return tail("".join(self._parts)) if self._parts else ""


_current: ContextVar[Output | None] = ContextVar("beatd_output", default=None)


class OutputHandler(logging.Handler):
    """Log handler that writes records to the attempt in whose context they are made."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        output = _current.get()
        if output is None or getattr(record, "event", None) == "printed":
            return
        try:
            output.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - formatting calls methods of the arguments
            self.handleError(record)


class CapturedStream:
    """Text stream that passes on what is written, and copies it to the attempt that writes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        output = _current.get()
        if output is not None and isinstance(text, str):
            output.write(text)
        return int(self._stream.write(text) or 0)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def captured() -> Iterator[Output]:
    """Capture the output of the block."""
    output = Output()
    token = _current.set(output)
    try:
        yield output
    finally:
        _current.reset(token)


UNCAPTURED: AbstractContextManager[Output] = nullcontext(Output())
"""For an attempt of which no record is kept: nothing is captured."""


def enable() -> None:
    """Have the output of attempts captured from now on in this process and those that it forks."""
    root = logging.getLogger()
    if not any(isinstance(handler, OutputHandler) for handler in root.handlers):
        root.addHandler(OutputHandler())
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, CapturedStream):
            setattr(sys, name, CapturedStream(stream))
