"""The heartbeat that monitors know a worker by: online, every two seconds, offline."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any

import beatd
from beatd.broker.bus import Bus
from beatd.clock import Clock
from beatd.worker.events.stream import Stream

EVERY_S = 2.0
"""Monitors take a worker for dead after twice this time."""
_REQUESTED_S = 5
"""What a heartbeat that was asked for says of the next one."""

_SOFTWARE = {"sw_ident": "beatd", "sw_ver": beatd.__version__, "sw_sys": platform.system()}


class Heart:
    """Beats through ``stream``. ``counts`` tells how many tasks run, and how many have run."""

    def __init__(self, stream: Stream, clock: Clock, counts: Callable[[], tuple[int, int]]) -> None:
        self._stream = stream
        self._clock = clock
        self._counts = counts
        self._due = 0.0

    def start(self, bus: Bus) -> None:
        """Say that the worker is there; also after the broker was away."""
        self._send(bus, "worker-online")
        self._due = self._clock.monotonic() + EVERY_S

    def beat(self, bus: Bus) -> float:
        """Beat if it is time; returns the seconds until the next one."""
        now = self._clock.monotonic()
        if now >= self._due:
            self._due = now + EVERY_S
            self._send(bus, "worker-heartbeat")
        return self._due - now

    def beat_now(self, bus: Bus) -> None:
        """A heartbeat for a monitor that has just come."""
        event = self._stream.event("worker-heartbeat", {"freq": _REQUESTED_S, **_SOFTWARE})
        bus.emit("worker.heartbeat", self._stream.letter(event))

    def stop(self, bus: Bus) -> None:
        """Say that the worker is leaving."""
        self._send(bus, "worker-offline")

    def _send(self, bus: Bus, kind: str) -> None:
        if not bus.listening:
            return
        active, processed = self._counts()
        facts: dict[str, Any] = {"active": active, "processed": processed, "loadavg": _load(), **_SOFTWARE}
        event = self._stream.event(kind, {"freq": EVERY_S, **facts})
        bus.emit(kind.replace("-", "."), self._stream.letter(event))


def _load() -> list[float]:
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return [0.0, 0.0, 0.0]
