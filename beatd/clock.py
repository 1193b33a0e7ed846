"""Clock: the only module that reads the host's clocks, and the back-off between attempts.

Pure code is handed instants, services a :class:`Clock`; so tests need no sleeps and a whole year runs in seconds. Code
that only bounds its own waiting (sockets, locks, child processes) imports ``monotonic`` and ``sleep`` from here.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from time import monotonic, perf_counter, sleep
from typing import Protocol

from beatd.timestamps import span_text

__all__ = [
    "Backoff",
    "Clock",
    "SystemClock",
    "hours_west_of_utc",
    "monotonic",
    "perf_counter",
    "sleep",
]


def hours_west_of_utc() -> float:
    """Return the host's distance from UTC in hours, as Celery's events carry it; monitors correct time stamps by it."""
    seconds = time.altzone if time.localtime().tm_isdst > 0 else time.timezone
    return seconds / 3600


class Clock(Protocol):
    """Wall time for what users see, monotonic time for how long something took, and a sleep that can be cut short."""

    def now_ms(self) -> int:
        """Wall-clock time, UTC, in milliseconds since the epoch."""

    def seconds_until(self, instant_ms: int) -> float:
        """Seconds until the wall clock shows an instant, to the microsecond; negative when that is over."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Sleep for at most ``seconds`` or until ``event`` is set; tells whether it was set."""


class SystemClock:
    """The clock of the host."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def seconds_until(self, instant_ms: int) -> float:
        return (instant_ms * 1_000_000 - time.time_ns()) / 1e9

    def monotonic(self) -> float:
        return monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


LOGGED_AGAIN_S, LOGGED_EVERY_S = 10.0, 60.0
"""The seconds, of pauses or of attempts that take long, after which a failure that lasts is logged a second time, and
after which each further time."""


class Backoff:
    """Exponential back-off: the pauses between attempts at something that fails, in seconds.

    The first pause is ``first``, each further one ``factor`` times as long, none longer than ``longest``. ``attempts``
    is the number of failures in a row, for log records. ``level`` is the level at which the last one is logged:
    ``WARNING`` for the first, for one after ten seconds, and then for one a minute, ``DEBUG`` for the others, so that
    what is away for a night does not fill the log.
    """

    def __init__(self, first: float, longest: float, *, factor: float = 2.0) -> None:
        self._first = first
        self._longest = longest
        self._factor = factor
        self._next = first
        self._unlogged_s, self._logged_at = 0.0, monotonic()
        self._log_after_s = LOGGED_AGAIN_S
        self._began: tuple[int, float] | None = None
        self.attempts = 0
        self.level = logging.WARNING

    def failed(self) -> float:
        """Count a failure; returns the seconds to wait before the next attempt."""
        self.attempts += 1
        pause, self._next = self._next, min(self._next * self._factor, self._longest)
        now = monotonic()
        if self._began is None:
            self._began, self._log_after_s, is_logged = (time.time_ns(), now), LOGGED_AGAIN_S, True
        elif is_logged := max(self._unlogged_s, now - self._logged_at) >= self._log_after_s:
            self._log_after_s = LOGGED_EVERY_S
        self.level = logging.WARNING if is_logged else logging.DEBUG
        self._unlogged_s = pause if is_logged else self._unlogged_s + pause
        self._logged_at = now if is_logged else self._logged_at
        return pause

    @property
    def since(self) -> str:
        """Moment of the first failure in a row, for log records; empty at the first, whose record has it anyway."""
        if self._began is None or self.attempts < 2:
            return ""
        return datetime.fromtimestamp(self._began[0] // 1_000_000_000, UTC).isoformat()

    @property
    def since_text(self) -> str:
        """The same as a part of a sentence: `` since 2026-11-27T03:12:05+00:00``, or nothing."""
        return f" since {self.since}" if self.since else ""

    @property
    def away_s(self) -> float:
        """Seconds since the first failure in a row; 0 after a success."""
        return 0.0 if self._began is None else monotonic() - self._began[1]

    @property
    def away_text(self) -> str:
        """The same for people, as ``1 min 17 s``."""
        return span_text(int(self.away_s * 1000))

    def succeeded(self) -> None:
        """Begin again with the first pause."""
        self._next, self._began = self._first, None
        self.attempts = 0
