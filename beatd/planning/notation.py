"""Notation of a schedule as lists show it: in words where these are short, or else as it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from beatd.schedules import Schedule
from beatd.schedules.interval import Interval


class Phrase(NamedTuple):
    """A schedule as text. ``is_code`` is true for what stands in the file like that, and not in words."""

    text: str
    is_code: bool = False


def schedule_phrase(schedule: Schedule) -> Phrase:
    """The schedule in words, or else as it is written."""
    return _phrase(schedule.notation, is_interval=isinstance(schedule, Interval))


def _phrase(notation: object, *, is_interval: bool = False) -> Phrase:
    match notation:
        case str() if is_interval:
            return Phrase(f"every {notation}")
        case str():
            return Phrase(notation, is_code=True)
        case {"every": length, "relative": True}:
            return Phrase(f"every {length}, relative")
        case {"every": length}:
            return Phrase(f"every {length}")
        case {"at": moment}:
            return Phrase(f"once, {str(moment).replace('T', ' ').replace('Z', ' UTC')}")
        case {"solar": event, "lat": lat, "lon": lon}:
            return Phrase(f"{str(event).replace('_', ' ')} at {lat}, {lon}")
        case list():
            return Phrase(" or ".join(_phrase(part).text for part in notation))
        case Mapping():
            return Phrase(", ".join(f"{name} {_listed(value)}" for name, value in notation.items()), is_code=True)
    return Phrase(str(notation), is_code=True)


def _listed(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
