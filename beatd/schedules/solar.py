"""Solar events: when the sun passes an altitude at a place. Needs astral (``beatd[solar]``), imported on first use."""

from __future__ import annotations

import difflib
from dataclasses import astuple, dataclass
from datetime import date
from functools import lru_cache
from math import degrees, floor
from typing import Any, Literal

from beatd.exceptions import ScheduleError
from beatd.schedules.cron import EPOCH_DAY, LAST_DAY
from beatd.schedules.due import NowFunction
from beatd.schedules.literals import or_list, shown
from beatd.schedules.schedule import BaseSchedule, StandIn
from beatd.schedules.timezone import DAY
from beatd.timestamps import EARLIEST_MS, LAST_MS

#: The zenith angle in degrees of the sun's centre, and whether it comes up or goes down there; defined as in almanacs
#: and in Celery: for sunrise and sunset the upper limb (16') is on the horizon, lifted by refraction (34').
EVENTS: dict[str, tuple[float, Literal["rising", "setting", "noon", "midnight"]]] = {
    "dawn_astronomical": (108.0, "rising"),
    "dawn_nautical": (102.0, "rising"),
    "dawn_civil": (96.0, "rising"),
    "sunrise": (90 + 50 / 60, "rising"),
    "solar_noon": (0.0, "noon"),
    "sunset": (90 + 50 / 60, "setting"),
    "dusk_civil": (96.0, "setting"),
    "dusk_nautical": (102.0, "setting"),
    "dusk_astronomical": (108.0, "setting"),
    "solar_midnight": (180.0, "midnight"),
}
#: How far ahead an event is searched: two years.
SEARCH_DAYS = 733
#: The sun moves on while one computes when it is where; after three rounds the error is below a second.
ROUNDS = 3


@dataclass(frozen=True, slots=True, repr=False, weakref_slot=True)
class Solar(BaseSchedule):
    """Each time that the sun does ``event`` at a place. Build it with ``solar`` or ``parse``."""

    event: str
    lat: float
    lon: float

    def next_after_ms(self, t_ms: int, /) -> int | None:
        """None where it does not happen within two years: at the poles, and in the far north and south."""
        t = max(t_ms, EARLIEST_MS) // 1000
        today = t // DAY
        for day in range(today - 2, min(today + SEARCH_DAYS, LAST_DAY)):
            at = moment(self.event, self.lat, self.lon, day)
            if at is not None and at > t:
                return at * 1000 if at * 1000 <= LAST_MS else None
        return None

    @property
    def notation(self) -> object:
        return {"solar": self.event, "lat": self.lat, "lon": self.lon}

    @property
    def meaning(self) -> str:
        return f"solar {self.event} {self.lat!r} {self.lon!r}"


class solar(StandIn):  # noqa: N801 - Celery's name
    """Each time that the sun does ``event`` (one of EVENTS) at that latitude and longitude in degrees, north and east
    positive. ``nowfun`` is the clock of ``is_due`` only; ``app`` has no effect. Raises ScheduleError, also when astral
    is not installed.
    """

    event: str
    lat: float
    lon: float

    def __init__(
        self, event: object, lat: object, lon: object, nowfun: NowFunction | None = None, app: Any = None
    ) -> None:
        self.event, self.lat, self.lon = astuple(solar_event(event, lat, lon))
        super().__init__(nowfun, app)

    @property
    def value(self) -> Solar:
        return Solar(self.event, self.lat, self.lon)


def solar_event(event: object, lat: object, lon: object) -> Solar:
    """The Solar of these arguments. Raises ScheduleError."""
    if not isinstance(event, str) or event not in EVENTS:
        near = difflib.get_close_matches(event, EVENTS, n=1) if isinstance(event, str) else []
        hint = f'did you mean "{near[0]}"?' if near else f"expected {or_list(EVENTS)}"
        raise ScheduleError(f"solar = {shown(event)}: no such event; {hint}")
    place = _degrees("lat", lat, 90), _degrees("lon", lon, 180)
    try:
        import astral.sun  # noqa: F401, PLC0415 - optional, and slow to import
    except ImportError:
        raise ScheduleError("solar schedules need the package astral: pip install 'beatd[solar]'") from None
    return Solar(str(event), *place)


def _degrees(name: str, value: object, limit: int) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and -limit <= value <= limit:
        return float(value)
    wrong = f"{name} = {shown(value)} is {'out of range' if isinstance(value, int | float) else 'not a number'}"
    wrong = f"solar needs {name}" if value is None else wrong
    raise ScheduleError(f"{wrong}: expected degrees from -{limit} to {limit}")


@lru_cache(maxsize=4096)
def moment(event: str, lat: float, lon: float, day: int) -> int | None:
    """The event of that solar day, in seconds since the epoch; None when it does not happen that day.

    A solar day is the 24 hours around the noon of the place; counting by it, and not by days of UTC, gives each event
    exactly once also where it wanders over midnight UTC.
    """
    from astral import SunDirection, julian, sun  # noqa: PLC0415

    zenith, way = EVENTS[event]
    midnight = julian.julianday(date.fromordinal(day + EPOCH_DAY))
    minutes = 720 - 4 * lon
    for _ in range(ROUNDS):
        century = julian.julianday_to_juliancentury(midnight + minutes / 1440)
        if way in ("noon", "midnight"):
            angle = 0.0 if way == "noon" else -180.0
        else:
            direction = SunDirection.RISING if way == "rising" else SunDirection.SETTING
            try:
                angle = degrees(sun.hour_angle(lat, sun.sun_declination(century), zenith, direction))
            except ValueError:
                return None
        minutes = 720 - 4 * (lon + angle) - sun.eq_of_time(century)
    return day * DAY + floor(minutes * 60)
