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
        self._clock = clock
        self._lamport = lamport
        self._headers = {"hostname": name}
        self._teller = {"hostname": name, "utcoffset": _hours_west(), "pid": os.getpid()}

    def event(self, kind: str, fields: Event) -> Event:
        """``fields`` as an event that happens now; ``kind`` is ``task-received`` or the like."""
        fields.update(self._teller)
        fields["clock"] = self._lamport.forward()
        fields["timestamp"] = self._clock.now_ms() / 1000
        fields["type"] = kind
        return fields

    def letter(self, body: Event | list[Event]) -> Letter:
        """One event, or a batch, ready to be sent."""
        return Letter(body, self._headers)


def _hours_west() -> float:
    """The host's distance from UTC as Celery's events carry it; monitors correct time stamps by it."""
    seconds = time.altzone if time.localtime().tm_isdst > 0 else time.timezone
    return seconds / 3600
