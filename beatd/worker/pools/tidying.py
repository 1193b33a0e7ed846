"""Putting right what a task has changed in its process, so that the next one finds it as the first one did."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal wraps: its enums cost more than all of this
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

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


class Tidy:
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
