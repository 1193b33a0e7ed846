"""Reports on their way from the pool's threads to the worker's loop."""

from __future__ import annotations

import contextlib
import os
from collections import deque

from beatd.worker.messages import Report


class Reports:
    """A queue that a loop can wait for. Any thread may :meth:`say`, one may :meth:`take`."""

    def __init__(self) -> None:
        self._reports: deque[Report] = deque()
        self._rung = False
        """Whether there is a byte in the pipe already: one is enough."""
        self._awake, self._wake = os.pipe()
        os.set_blocking(self._awake, False)
        os.set_blocking(self._wake, False)

    def say(self, report: Report) -> None:
        self._reports.append(report)
        if not self._rung:
            self._rung = True
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake, b"!")

    def files(self) -> list[int]:
        return [self._awake]

    def take(self) -> list[Report]:
        """All that have come."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._awake, 4096)
        self._rung = False  # before they are taken: one that comes now rings again
        taken = []
        while self._reports:
            taken.append(self._reports.popleft())
        return taken
