"""Reloader of a worker in development: a child process, which is started again when code changes."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from watchfiles import PythonFilter, watch

from beatd.redaction import printable

SETTLE_MS = 300
"""A change is taken when the files have kept still for so long."""
WARM_S, COLD_S = 20.0, 5.0
"""Seconds for a worker to end its tasks, and then to end at all."""


class Reloader:
    """Runs a command, and again after each change of a Python file below the folders; default: the working directory.

    SIGTERM and SIGINT end it with its child.
    """

    def __init__(self, command: Sequence[str], say: Callable[[str], object], folders: Sequence[Path] = ()) -> None:
        self._command, self._say = command, say
        self._folders = folders or (Path.cwd(),)
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Run until a signal comes; returns 0, the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._start()
        changes = watch(
            *self._folders, watch_filter=PythonFilter(), step=SETTLE_MS, stop_event=self._stopping,
            raise_interrupt=False, rust_timeout=1_000,
        )  # fmt: skip
        for change in changes:
            paths = sorted(Path(path).name for _, path in change)
            more = f" and {len(paths) - 1} more" if paths[1:] else ""
            self._say(f"{printable(paths[0])}{more} changed: the worker starts again\n")
            self._end()
            if self._stopping.is_set():
                break
            self._start()
        self._end()
        return 0

    def _start(self) -> None:
        self._child = subprocess.Popen(self._command)  # noqa: S603 - the user's own arguments

    def _end(self) -> None:
        """Let the worker finish its tasks, for a bounded time."""
        child = self._child
        if child is None:
            return
        for number, seconds in ((signal.SIGTERM, WARM_S), (signal.SIGQUIT, COLD_S), (signal.SIGKILL, COLD_S)):
            if child.poll() is not None:
                return
            child.send_signal(number)
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                self._say(f"the worker did not end within {seconds:g} s of {signal.Signals(number).name}\n")

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping.set()
