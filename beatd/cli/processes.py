"""Supervised child processes: restarted when they die, their output prefixed with their names."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, TextIO

import click

from beatd.clock import Backoff, Clock

log = logging.getLogger("beatd.dev")

_COLOURS = ("cyan", "green", "magenta", "blue")
_PAUSE_MIN, _PAUSE_MAX = 1.0, 30.0
"""Seconds before a child that died is started again."""
_STEADY_S = 30.0
"""A child that lived so long was no failed start."""


class Screen:
    """One stream for the lines of several processes, each line whole and with its writer's name."""

    def __init__(self, stream: TextIO, names: Sequence[str], *, color: bool) -> None:
        self._stream = stream
        self._color = color
        self._names = list(names)
        self._width = max(map(len, names))
        self._lock = threading.Lock()

    def show(self, name: str, text: str) -> None:
        """Write ``text``, a line or several. A reader who is gone is no error."""
        prefix = f"{name:<{self._width}} | "
        if self._color:
            prefix = click.style(prefix, fg=_COLOURS[self._names.index(name) % len(_COLOURS)])
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._stream.write("".join(f"{prefix}{line}\n" for line in text.splitlines()))
            self._stream.flush()

    def stream(self, name: str) -> TextIO:
        """A stream for what this process itself logs."""
        return _Lines(self, name)  # type: ignore[return-value]  # as much of a stream as logging wants


class _Lines:
    def __init__(self, screen: Screen, name: str) -> None:
        self._screen = screen
        self._name = name

    def write(self, text: str) -> None:
        if text.strip():
            self._screen.show(self._name, text.rstrip("\n"))

    def flush(self) -> None:
        """Lines are never held back."""


class SupervisedProcess:
    """One command that is to run until it is told to stop.

    Its processes are a group of their own, so that Ctrl-C reaches this process alone, which then stops them in order.
    """

    def __init__(self, name: str, command: Sequence[str], screen: Screen, clock: Clock, wake: threading.Event) -> None:
        self.name = name
        self._command = list(command)
        self._screen = screen
        self._clock = clock
        self._wake = wake
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._started = 0.0
        self._backoff = Backoff(_PAUSE_MIN, _PAUSE_MAX)
        self._start_at = 0.0

    def tend(self) -> None:
        """Start it, at first and whenever it has died, after a pause that grows from 1 s to 30 s."""
        now = self._clock.monotonic()
        if self._process is not None and self._process.poll() is not None:
            if now - self._started > _STEADY_S:
                self._backoff.succeeded()
            pause = self._backoff.failed()
            self._start_at = now + pause
            log.error(
                "The %s %s; restarting it in %g s",
                self.name,
                _ended(self._process.returncode),
                pause,
                extra={"event": "child_died", "child": self.name},
            )
            self._clear()
        if self._process is None and now >= self._start_at:
            self._start(now)

    def stop(self, graces: Sequence[float], hurry: Callable[[], bool]) -> None:
        """SIGTERM once per grace period (seconds), then SIGKILL to the whole group; at once when ``hurry`` says so."""
        process = self._process
        if process is None:
            return
        for grace in graces:
            if process.poll() is None and not hurry():
                process.terminate()
                self._await_end(process, grace, hurry)
        if process.poll() is None:
            log.warning("The %s does not stop; killing it", self.name, extra={"event": "child_killed"})
        self._clear()

    def _await_end(self, process: subprocess.Popen[bytes], seconds: float, hurry: Callable[[], bool]) -> None:
        deadline = self._clock.monotonic() + seconds
        while process.poll() is None and self._clock.monotonic() < deadline and not hurry():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)

    def _start(self, now: float) -> None:
        self._started = now
        self._process = subprocess.Popen(  # noqa: S603 - our own words, no shell
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, looked up beforehand
        )
        self._reader = threading.Thread(target=self._show, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _show(self, output: IO[bytes]) -> None:
        with output:
            for line in output:
                self._screen.show(self.name, line.decode("utf-8", "replace"))
        self._wake.set()

    def _clear(self) -> None:
        """Kill what is left of the group, and wait for its last lines."""
        assert self._process is not None  # noqa: S101 - callers have one
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(5)
        if self._reader is not None:
            self._reader.join(1)
        self._process = None


def _ended(status: int) -> str:
    return f"was killed ({signal.Signals(-status).name})" if status < 0 else f"ended with exit code {status}"


_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def die_with_parent() -> None:
    """In the child: ask the kernel (Linux) for SIGTERM when the parent ends, however it ends; see prctl(2)."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
