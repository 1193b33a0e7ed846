"""The walk to the next match, for cron strings and Celery's tables alike.

The wall clock is walked in integers: a day is found on masks, the time of day on tables of next values. Only then is
the zone asked, and an ordinary day's answer is a subtraction. Around a change of the clock the rules are those of
Debian's cron(8): a *fixed* time that falls into the gap runs right after it, one in the repeated hour runs the first
time only; what runs by a wildcard hour or minute follows real time through both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from beatd.epoch import EARLIEST_MS, LAST_MS
from beatd.schedules.days import Days
from beatd.schedules.fields import HOUR, MINUTE, NONE, SECOND, next_table, render
from beatd.schedules.schedule import Moments
from beatd.schedules.zone import DAY, Zone

Dst = Literal["cron", "skip"]


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Cron(Moments):
    """Times of day on certain days, on the wall clock of a zone. Build it with ``parse`` or ``crontab``."""

    written: object
    canonical: str
    zone: Zone
    fixed: bool
    """Neither minute nor hour is a wildcard: Debian's "runs at a specific time", with its rules at a clock change."""
    skip: bool
    """Whether a fixed time in the gap is left out rather than moved behind it."""
    days: Days
    seconds: bytes
    minutes: bytes
    hours: bytes
    first: int
    """The first second of the day that matches."""
    last: int
    """The last one."""

    @property
    def notation(self) -> object:
        return self.written

    @property
    def meaning(self) -> str:
        return self.canonical

    def next_after_ms(self, t_ms: int, /) -> int | None:
        if not EARLIEST_MS <= t_ms < LAST_MS:
            return None if t_ms >= LAST_MS else self.next_after_ms(EARLIEST_MS)
        t = t_ms // 1000
        _, end, offset, fresh = self.zone.span(t)
        wall = self.wall_after(t + offset)
        if wall is None:
            return None
        due: int | None = wall - offset
        if wall - offset >= end or (self.fixed and wall < fresh):
            due = self._fixed_after(t, wall) if self.fixed else self._real_after(t, wall)
        return due * 1000 if due is not None and due * 1000 <= LAST_MS else None

    def wall_after(self, wall: int) -> int | None:
        """The next match on the wall clock strictly after ``wall`` (seconds), as if the clock were never changed."""
        day, second = divmod(wall + 1, DAY)
        if second > self.last:
            day, second = day + 1, 0
        week = self.days.week
        match = day + week[(day + 4) % 7] if week is not None else self.days.first_from(day)
        if match == day and second > self.first:
            return day * DAY + self._time_from(second)
        return None if match is None else match * DAY + self.first

    def _time_from(self, second: int) -> int:
        """The first matching second of the day that is ``second`` or later; there is one."""
        minute, second = divmod(second, 60)
        hour, minute = divmod(minute, 60)
        if self.hours[hour] == hour:
            if self.minutes[minute] == minute and (at := self.seconds[second]) != NONE:
                return hour * 3600 + minute * 60 + at
            if (at := self.minutes[minute + 1]) != NONE:
                return hour * 3600 + at * 60 + self.seconds[0]
        return self.hours[hour + 1] * 3600 + self.minutes[0] * 60 + self.seconds[0]

    def _fixed_after(self, t: int, wall: int | None) -> int | None:
        """Each wall time once: the first time it is shown, or when the clock has jumped over it."""
        while wall is not None:
            due, jumped = self.zone.instant(wall)
            if due > t and not (jumped and self.skip):
                return due
            # Nothing else can come of what is shown again, or of what was jumped over: go to the end of it.
            span = self.zone.span(max(due, t))
            wall = self.wall_after(max(wall, (span.start + span.offset if jumped else span.fresh) - 1))
        return None

    def _real_after(self, t: int, wall: int | None) -> int | None:
        """Each instant whose wall time matches, span by span."""
        span = self.zone.span(t)
        while wall is not None:
            if wall - span.offset < span.end:
                return wall - span.offset
            before, span = span, self.zone.span(span.end)
            if span.offset < before.offset or wall < span.start + span.offset:
                wall = self.wall_after(span.start + span.offset - 1)
        return None


def cron(
    notation: object,
    days: Days,
    *,
    hours: int,
    minutes: int,
    seconds: int = 1,
    fixed: bool,
    zone: Zone,
    dst: Dst,
) -> Cron:
    """The Cron of these masks."""
    clock = f"{render(seconds, SECOND)} {render(minutes, MINUTE)} {render(hours, HOUR)}"
    rule = "" if zone.is_utc else f" {dst}" if fixed else " real"
    second_table, minute_table, hour_table = next_table(seconds, 60), next_table(minutes, 60), next_table(hours, 24)
    return Cron(
        notation,
        f"cron {clock} {days.meaning} {zone.name}{rule}",
        zone,
        fixed,
        dst == "skip",
        days,
        second_table,
        minute_table,
        hour_table,
        first=hour_table[0] * 3600 + minute_table[0] * 60 + second_table[0],
        last=(hours.bit_length() - 1) * 3600 + (minutes.bit_length() - 1) * 60 + seconds.bit_length() - 1,
    )
