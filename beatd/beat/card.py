"""What a daemon says of itself in the roll, kept up to date by those who know."""

from __future__ import annotations

import os
import socket
from typing import Literal, NamedTuple

from msgspec import structs

import beatd
from beatd.clock import Clock
from beatd.store.registry import Status


class Schedule(NamedTuple):
    """What is in force: how many entries of files and app and what they mean, and what the store adds."""

    entries: int = 0
    digest: str = ""
    runtime: int = 0
    paused: int = 0


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
        self._turned_at: float | None = None
        self._read_at: float | None = None
        self._revision = 0
        self.schedule = Schedule()
        """What is in force."""
        self.config: Literal["ok", "broken"] = "ok"
        """Whether the files could be read when they were last looked at."""

    def turned(self) -> None:
        """The loop has got on."""
        self._turned_at = self._clock.monotonic()

    def read(self, revision: int) -> None:
        """The runtime entries were read, and are in force as of that revision."""
        self._revision = revision
        self._read_at = self._clock.monotonic()

    def status(self) -> Status:
        """All of it."""
        return structs.replace(
            self._first,
            **self.schedule._asdict(),
            config=self.config,
            revision=self._revision,
            turned_ms_ago=self._ago_ms(self._turned_at),
            read_ms_ago=self._ago_ms(self._read_at),
        )

    def _ago_ms(self, at: float | None) -> int | None:
        return None if at is None else int((self._clock.monotonic() - at) * 1000)
