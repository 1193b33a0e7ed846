"""The one place where beatd looks at a clock.

Everything else is handed instants, or a :class:`Clock`; so tests need no sleeps and a whole year runs in seconds.
"""

from __future__ import annotations

import functools
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


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


def to_ms(moment: datetime) -> int:
    """An aware datetime as whole milliseconds since the epoch (rounded down)."""
    return (moment - EPOCH) // _MILLISECOND


def from_ms(ms: int) -> datetime:
    """Milliseconds since the epoch as an aware UTC datetime, exactly."""
    return EPOCH + timedelta(milliseconds=ms)


@functools.lru_cache(maxsize=1024)
def iso_ms(ms: int) -> str:
    """ISO 8601 in UTC with milliseconds, ``2026-01-01T00:00:00.000+00:00``: how instants travel in messages.

    The runs of a herd share their instants, hence the cache.
    """
    return from_ms(ms).isoformat(timespec="milliseconds")
