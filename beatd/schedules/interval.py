"""Intervals: a grid of ``anchor + k·every`` in whole milliseconds of UTC. It cannot drift; DST does not touch it.

An interval that nobody has anchored begins at the moment at which its entry was first seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from beatd.exceptions import ScheduleError
from beatd.schedules.due import NowFunction
from beatd.schedules.duration import duration_ms, duration_text, instant_ms, instant_text
from beatd.schedules.schedule import BaseSchedule, Schedule, StandIn, Union, union
from beatd.schedules.timezone import DAY, Zone, zone
from beatd.timestamps import EARLIEST_MS, LAST_MS, to_ms

SHORTEST_MS = 10
#: Celery's units for ``relative``: the largest that the interval holds (else the second).
RELATIVE_UNITS = (DAY * 1000, 3_600_000, 60_000, 1000)


@dataclass(frozen=True, slots=True, repr=False, weakref_slot=True)
class Interval(BaseSchedule):
    """Every so many milliseconds. Build it with ``every`` or ``parse``."""

    every_ms: int
    phase_ms: int | None = None
    """The anchor modulo ``every_ms``; None as long as nobody has said when to start (see ``bind``)."""

    def next_after_ms(self, t_ms: int, /) -> int | None:
        due_ms = t_ms + self.every_ms
        if self.phase_ms is not None:
            due_ms -= (t_ms - self.phase_ms) % self.every_ms
        return due_ms if due_ms <= LAST_MS else None

    @property
    def notation(self) -> object:
        text = duration_text(self.every_ms)
        return text if self.phase_ms is None else {"every": text, "anchor": instant_text(self.phase_ms)}

    @property
    def meaning(self) -> str:
        phase = "" if self.phase_ms is None else f" phase {self.phase_ms}ms"
        return f"every {duration_text(self.every_ms)}{phase}"


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Relative(BaseSchedule):
    """Celery's ``relative=True``: one interval after the last run, rounded down to the interval's unit.

    The unit is the day, hour, minute or second: the largest that the interval holds, on the zone's wall clock.
    """

    every_ms: int
    zone: Zone
    is_chain: ClassVar[bool] = True

    @property
    def unit_ms(self) -> int:
        return next(unit for unit in RELATIVE_UNITS if unit <= self.every_ms)

    def next_after_ms(self, t_ms: int, /) -> int | None:
        t_ms = max(t_ms, EARLIEST_MS)
        if t_ms + self.every_ms > LAST_MS:
            return None
        unit = self.unit_ms
        if unit == DAY * 1000:
            return self._day_after(t_ms)
        due_ms = t_ms + self.every_ms
        span = self.zone.span(due_ms // 1000)
        found_ms = due_ms - (due_ms + span.offset * 1000) % unit
        return found_ms if found_ms >= span.start * 1000 else self._before_change(t_ms, found_ms // 1000 + span.offset)

    def _before_change(self, t_ms: int, wall: int) -> int:
        """Return the run for which the clock shows ``wall``, which is before a change of the clock; or that of the
        next full unit, if ``wall`` is over."""
        due, _ = self.zone.instant(wall)
        if due * 1000 <= t_ms:
            due, _ = self.zone.instant(wall + self.unit_ms // 1000)
        return due * 1000

    def _day_after(self, t_ms: int) -> int:
        t = t_ms // 1000
        wall = t + self.zone.span(t).offset + self.every_ms // 1000
        while True:
            wall -= wall % DAY
            due, _ = self.zone.instant(wall)
            if due > t:
                return due * 1000
            wall += DAY  # the clock was set back over midnight, and this day has begun once already

    def latest_ms(self, after_ms: int, until_ms: int) -> int | None:
        """The last of the runs that follow one another from ``after_ms`` on and are not later than ``until_ms``.

        Each run depends on the one before, so this cannot be bisected; but within a span of one offset, from a full
        unit on, they are evenly spaced and are counted, not walked.
        """
        step = self.every_ms - self.every_ms % self.unit_ms
        found, due = None, self.next_after_ms(after_ms)
        while due is not None and due <= until_ms:
            found = due
            span = self.zone.span(found // 1000)
            if (found + span.offset * 1000) % self.unit_ms == 0:
                inside = (span.end * 1000 - 1 - self.every_ms - found) // step + 1
                found += max(0, min((until_ms - found) // step, inside)) * step
            due = self.next_after_ms(found)
        return found

    @property
    def notation(self) -> object:
        return {"every": duration_text(self.every_ms), "relative": True}

    @property
    def meaning(self) -> str:
        return f"relative {duration_text(self.every_ms)} {self.zone.name}"


def every(
    interval: object, *, anchor: object = None, relative: bool = False, timezone: str | tzinfo | None = None
) -> Interval | Relative:
    """A run every ``interval`` (seconds, ``"1h30m"``, ``"PT30S"``, a timedelta), at least 10 ms.

    With ``anchor`` (an aware datetime, or a naive one in ``timezone``) at anchor + k·interval, before it too; without
    one the phase is the moment at which the entry is first seen (``bind``). ``relative`` as in Celery: rounded down to
    the unit of the interval. Raises ScheduleError.
    """
    ms = duration_ms(interval)
    if ms < SHORTEST_MS:
        raise ScheduleError(f"an interval of {duration_text(ms)} is too short; expected at least {SHORTEST_MS}ms")
    if relative and anchor is not None:
        raise ScheduleError("an interval is either anchored or relative; leave out anchor or relative")
    if relative:
        if ms < 1000:
            raise ScheduleError(f'relative needs an interval of at least "1s", got {duration_text(ms)}')
        return Relative(ms, zone(timezone))
    known = zone(timezone)
    return Interval(ms, None if anchor is None else instant_ms(anchor, known, "anchor") % ms)


class schedule(StandIn):  # noqa: N801 - Celery's name
    """A run every ``run_every``, as :func:`every`, with Celery's arguments in Celery's order.

    ``nowfun`` is the clock of ``is_due`` only; ``app`` has no effect. Raises ScheduleError.
    """

    run_every: timedelta
    """The interval."""
    relative: bool

    def __init__(
        self, run_every: object = None, relative: bool = False, nowfun: NowFunction | None = None, app: Any = None
    ) -> None:
        self.run_every = timedelta(milliseconds=duration_ms(run_every))
        self.relative = relative
        super().__init__(nowfun, app)
        _ = self.value  # it raises what is wrong

    @property
    def value(self) -> Interval | Relative:
        return every(self.run_every, relative=self.relative)

    @property
    def seconds(self) -> float:
        """The interval in seconds."""
        return self.run_every.total_seconds()


def maybe_schedule(s: Any, relative: bool = False, app: Any = None) -> Any:
    """Return the schedule of a number of seconds or a timedelta; anything else is returned as it is."""
    is_interval = isinstance(s, int | float | timedelta)
    return schedule(s, relative, app=app) if is_interval else s


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
