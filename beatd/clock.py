"""The one place where beatd looks at a clock.

Everything else is handed instants, or a :class:`Clock`; so tests need no sleeps and a whole year runs in seconds.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for what users see, monotonic time for how long something took, and a sleep that can be cut short."""

    def now_ms(self) -> int:
        """Wall-clock time, UTC, in milliseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Sleep for at most ``seconds`` or until ``event`` is set; tells whether it was set."""


class SystemClock:
    """The clock of the host."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)
