"""The phase of an interval that nobody has anchored: the moment at which its entry was first seen."""

from __future__ import annotations

from datetime import datetime
from weakref import WeakValueDictionary

from beatd.epoch import to_ms
from beatd.schedules.interval import Interval
from beatd.schedules.schedule import Schedule
from beatd.schedules.union import Union, union

_bound: WeakValueDictionary[tuple[int, int], Interval] = WeakValueDictionary()


def bind(schedule: Schedule, first_seen: datetime) -> Schedule:
    """The schedule with its phase: an interval without an anchor, alone or in a union, gets it from ``first_seen``.

    All others stay as they are. Only the phase is kept, so that intervals that run together are one object.
    """
    if isinstance(schedule, Union):
        parts = tuple(bind(part, first_seen) for part in schedule.parts)
        return union(parts) if any(new is not old for new, old in zip(parts, schedule.parts, strict=True)) else schedule
    if not isinstance(schedule, Interval) or schedule.phase_ms is not None:
        return schedule
    key = (schedule.every_ms, to_ms(first_seen) % schedule.every_ms)
    if (known := _bound.get(key)) is None:
        known = _bound[key] = Interval(*key)
    return known
