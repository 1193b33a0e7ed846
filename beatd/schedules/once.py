"""One run at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from beatd.schedules.instants import instant_ms, instant_text
from beatd.schedules.schedule import Moments
from beatd.schedules.zone import zone


@dataclass(frozen=True, slots=True, repr=False, weakref_slot=True)
class Once(Moments):
    """A single run, ``at_ms`` milliseconds since the epoch. Build it with ``once`` or ``parse``."""

    at_ms: int

    def next_after_ms(self, t_ms: int, /) -> int | None:
        return self.at_ms if self.at_ms > t_ms else None

    @property
    def notation(self) -> object:
        return {"at": instant_text(self.at_ms)}

    @property
    def meaning(self) -> str:
        return f"once {instant_text(self.at_ms)}"


def once(at: object, *, timezone: str = "UTC") -> Once:
    """One run at that moment; a naive one is the wall time of ``timezone``. Raises ScheduleError."""
    return Once(instant_ms(at, zone(timezone), "at"))
