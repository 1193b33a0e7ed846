"""Poller: waits for file descriptors, a signal or a timeout."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterable


def readable(files: Iterable[int]) -> list[int]:
    """Return those of some file descriptors that can be read now."""
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return [file for file, _ in poll.poll(0)]


class Poller:
    """A ``poll`` with a pipe in it that :meth:`wake` writes to, so that no signal is missed between check and wait."""

    def __init__(self) -> None:
        self._awake, self._wake = os.pipe()
        os.set_blocking(self._awake, False)
        os.set_blocking(self._wake, False)

    def wake(self) -> None:
        """End the current or the next wait. May be called from signal handlers and other threads."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"!")

    def until(self, seconds: float, files: Iterable[int], unsent: Iterable[int] = ()) -> None:
        """Wait until one of ``files`` is readable, one of ``unsent`` writable, :meth:`wake` is called, or for
        ``seconds``. Every one of ``unsent`` is in ``files``, too."""
        poll = select.poll()
        for file in files:
            poll.register(file, select.POLLIN)
        for file in unsent:
            poll.register(file, select.POLLIN | select.POLLOUT)
        poll.register(self._awake, select.POLLIN)
        poll.poll(seconds * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._awake, 4096)

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` or :meth:`wake`."""
        self.until(seconds, ())
