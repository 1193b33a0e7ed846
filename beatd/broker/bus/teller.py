"""Events in Celery's form, whoever tells them."""

from __future__ import annotations

import os
import time
from typing import Any

from beatd.broker.bus.lamport import LamportClock
from beatd.broker.bus.port import Letter
from beatd.clock import Clock

Event = dict[str, Any]


class Teller:
    """Makes the events of one process, under the name by which monitors know it."""

    def __init__(self, name: str, clock: Clock, lamport: LamportClock) -> None:
        self._name = name
        self._clock = clock
        self._lamport = lamport
        self._pid = os.getpid()
        self._zone = _hours_west()

    def event(self, kind: str, **fields: Any) -> Event:
        """An event that happens now; ``kind`` is ``task-received`` or the like."""
        return {
            "hostname": self._name,
            "utcoffset": self._zone,
            "pid": self._pid,
            "clock": self._lamport.forward(),
            **fields,
            "timestamp": self._clock.now_ms() / 1000,
            "type": kind,
        }

    def letter(self, body: Event | list[Event]) -> Letter:
        """One event, or a batch, ready to be sent."""
        return Letter(body, {"hostname": self._name})


def _hours_west() -> float:
    """The host's distance from UTC as Celery's events carry it; monitors correct time stamps by it."""
    seconds = time.altzone if time.localtime().tm_isdst > 0 else time.timezone
    return seconds / 3600
