"""What a daemon says of itself in the roll, kept up to date by those who know."""

from __future__ import annotations

import os
import socket
from typing import Literal

from msgspec import structs

import beatd
from beatd.clock import Clock
from beatd.store.registry import Status


class Card:
    """Written by several threads, each its own fields; read by the elector's."""

    def __init__(self, daemon_id: str, clock: Clock, *, shards: int, lapse_ms: int) -> None:
        self._clock = clock
        self._first = Status(
            id=daemon_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=beatd.__version__,
            started_ms=clock.now_ms(),
            shards=shards,
            lapse_ms=lapse_ms,
        )
        self._schedule = (0, "")
        self._turned_at: float | None = None
        self.config: Literal["ok", "broken"] = "ok"
        """Whether the files could be read when they were last looked at."""

    def schedule(self, entries: int, digest: str) -> None:
        """Another schedule is in force."""
        self._schedule = entries, digest

    def turned(self) -> None:
        """The loop has got on."""
        self._turned_at = self._clock.monotonic()

    def status(self) -> Status:
        """All of it."""
        entries, digest = self._schedule
        turned = self._turned_at
        ago = None if turned is None else int((self._clock.monotonic() - turned) * 1000)
        return structs.replace(self._first, entries=entries, digest=digest, config=self.config, turned_ms_ago=ago)
