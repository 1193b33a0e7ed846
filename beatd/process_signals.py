"""Signals of the operating system: those without a meaning for beatd, and a thread that acts on the others."""

from __future__ import annotations

import logging
import queue
import signal
import threading
from collections.abc import Callable, Mapping

UNUSED = tuple(
    getattr(signal, name)
    for name in ("SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGPOLL", "SIGPWR")
    if hasattr(signal, name)
)
"""Signals that have no meaning for beatd, and would end a process that does not handle them, without a word."""


def ignore_unused(log: logging.Logger) -> None:
    """Log a warning for each signal that has no meaning, instead of ending. To be called in the main thread."""
    for number in UNUSED:
        signal.signal(number, lambda got, _: warn_unused(log, got))


def warn_unused(log: logging.Logger, number: int) -> None:
    """Log that a signal has no meaning."""
    name = signal.Signals(number).name
    log.warning("%s has no meaning here and is ignored", name, extra={"event": "signal_ignored", "signal": name})


class SignalThread:
    """Thread that acts on signals, one after the other, in the order in which they came.

    A handler interrupts the main thread anywhere, also while it holds the lock of an event or of the log that the
    handler itself would need. The thread exists before the first signal: a process without free memory can be stopped.
    """

    def __init__(self, actions: Mapping[int, Callable[[int], None]]) -> None:
        self._actions = dict(actions)
        self._got: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put may interrupt itself

    def start(self) -> None:
        """Handle the signals from now on. To be called in the main thread."""
        threading.Thread(target=self._run, name="signals", daemon=True).start()
        for number in self._actions:
            signal.signal(number, lambda got, _: self._got.put(got))

    def _run(self) -> None:
        while True:
            number = self._got.get()
            self._actions[number](number)
