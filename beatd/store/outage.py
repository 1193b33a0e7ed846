"""Outages of the state store as one process sees them: since when, logged at bounded intervals."""

from __future__ import annotations

import logging
import threading

from beatd.clock import LOGGED_EVERY_S, Clock
from beatd.exceptions import StoreError, StoreUnavailable
from beatd.timestamps import span_text, utc_text

log = logging.getLogger("beatd.store")

_NOTICED_WITHIN_MS = 60_000
"""A store that answered so shortly before its first failure has been away since then; else nobody knows."""


class OutageWatch:
    """Watch of one store. Its methods may be called from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since_ms: int | None = None
        self._answered_ms: int | None = None
        self._logged_at = 0.0

    @property
    def away_s(self) -> float:
        """Seconds for which it has not answered, as far as this process knows; 0 while it answers."""
        since_ms = self._since_ms
        return 0.0 if since_ms is None else max(self._clock.now_ms() - since_ms, 0) / 1000

    def answered(self) -> None:
        """Note that the store has answered."""
        with self._lock:
            self._answered_ms, since_ms, self._since_ms = self._clock.now_ms(), self._since_ms, None
        if since_ms is not None:
            away_ms = self._answered_ms - since_ms
            extra = {"event": "store_recovered", "seconds": away_ms // 1_000}
            log.info("The state store answers again, after %s", span_text(away_ms), extra=extra)

    def failed(self, error: StoreUnavailable) -> StoreUnavailable:
        """Note that it has not answered; returns the error with the moment since when."""
        if error.since_ms is not None:
            return error
        now_ms, now = self._clock.now_ms(), self._clock.monotonic()
        with self._lock:
            is_new = self._since_ms is None
            self._since_ms = now_ms if self._since_ms is None else self._since_ms
            is_logged = is_new or now - self._logged_at >= LOGGED_EVERY_S
            self._logged_at = now if is_logged else self._logged_at
        told = type(error)(f"{error}{self._since_text(self._since_ms)}")
        told.since_ms = self._since_ms
        if is_logged:
            log.warning("%s", error if is_new else told, extra={"event": error.word})
        return told

    def _since_text(self, since_ms: int) -> str:
        since = f", since {utc_text(since_ms)}"
        if self._answered_ms is None or since_ms - self._answered_ms > _NOTICED_WITHIN_MS:
            return f"{since} or longer"
        return since


def unreachable_text(error: StoreError) -> str:
    """A sentence about a store that is away; most errors begin with the store and its place."""
    reason = str(error)
    known = reason.startswith("state store ")
    return f"Cannot reach the {reason}" if known else f"Cannot reach the state store: {reason}"
