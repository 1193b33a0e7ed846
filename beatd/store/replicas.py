"""Waiting until replicas have what was claimed, so that a failover cannot take back what was said to be done."""

from __future__ import annotations

import logging

log = logging.getLogger("beatd.store")


class Replicas:
    """How many replicas are to confirm each batch of claims, and for how long that is waited for.

    A claim that fewer confirm stays claimed: it is at the primary, and on its way. That is said when it begins and when
    it ends, not for each batch. One object serves all shards of a daemon.
    """

    def __init__(self, wanted: int, timeout_ms: int) -> None:
        self._wanted = wanted
        self._timeout_ms = timeout_ms
        self._unreplicated = 0
        """Batches since so many replicas last confirmed."""

    @property
    def command(self) -> tuple[str | int, ...]:
        """What is sent after each write, on its connection: the server counts the writes of a connection."""
        return ("WAIT", self._wanted, self._timeout_ms) if self._wanted else ()

    def confirmed(self, count: int) -> None:
        """Take note of how many replicas had confirmed a batch when the waiting ended."""
        if count < self._wanted:
            self._unreplicated += 1
            if self._unreplicated == 1:
                text = "Claims are at the primary only: %d of %d replicas confirmed within %d ms"
                extra = {"event": "store_unreplicated", "confirmed": count, "wanted": self._wanted}
                log.warning(text, count, self._wanted, self._timeout_ms, extra=extra)
        elif self._unreplicated:
            batches, self._unreplicated = self._unreplicated, 0
            extra = {"event": "store_unreplicated_over", "batches": batches}
            log.info("Replicas confirm claims again, after %d batches that they did not", batches, extra=extra)
