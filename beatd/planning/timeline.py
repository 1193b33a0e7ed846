"""Timeline: the runs of one entry over time, their due times and fire times, for the daemon and for previews.

An entry's timeline is its schedule, with the phase that it got when it was first seen, between its start and its end.

Jitter: each run fires up to ``jitter`` later than it is due, by a hash of entry name and due time. It can be previewed,
is the same on every host and after every restart, and never reaches the next due time.
"""

from __future__ import annotations

from dataclasses import dataclass

from beatd.exceptions import ScheduleError
from beatd.model import Entry
from beatd.schedules import Schedule, bind, is_chain, jittered_ms, latest_ms
from beatd.schedules.cron import Cron
from beatd.schedules.schedule import BaseSchedule
from beatd.timestamps import LAST_MS, from_ms, to_ms

JUMPS = 1_000
"""Blackouts in a row that are passed in search of a run that is sent."""
SEARCHED_MS = 50 * 366 * 86_400_000
"""Time that is searched: 50 years. For each of them calendars of a blackout are expanded."""


def timeline(entry: Entry, first_seen_ms: int) -> Schedule:
    """The runs of ``entry``, first seen at ``first_seen_ms``, as a schedule.

    An interval without an anchor counts from its start if it has one, which is then its first run; else from when it
    was first seen.
    """
    start, end = entry.policies.start, entry.policies.end
    schedule = entry.schedule
    if not isinstance(schedule, Cron):  # which has no phase: most entries of a large schedule need no more than this
        schedule = bind(schedule, start or from_ms(first_seen_ms))
    if start is None and end is None:
        return schedule
    return Bounded(schedule, None if start is None else to_ms(start), None if end is None else to_ms(end))


def next_due_ms(schedule: Schedule, after_ms: int) -> int | None:
    """The next run of a timeline; raises :class:`~beatd.exceptions.ScheduleError` for one that does not get on."""
    due_ms = schedule.next_after_ms(after_ms)
    if due_ms is not None and not after_ms < due_ms:
        raise ScheduleError("its schedule does not get on: the next run is not later than the one before")
    return due_ms


def fire_ms(entry: Entry, schedule: Schedule, due_ms: int) -> int:
    """Fire time of a run (ms): when it is due, or, with jitter, a part of ``jitter`` later.

    The part is a hash of entry name and due time: every host computes the same one. It ends before the next run.
    Raises :class:`~beatd.exceptions.ScheduleError` for a time that no calendar has.
    """
    jitter_ms = entry.policies.jitter_ms
    leaves_ms = due_ms
    if jitter_ms:
        leaves_ms = jittered_ms(entry.name, due_ms, jitter_ms, schedule.next_after_ms(due_ms))
    if not 0 <= leaves_ms <= LAST_MS:
        raise ScheduleError("its next run is due outside the years 1970 to 9998")
    return leaves_ms


def hidden(entry: Entry, due_ms: int) -> bool:
    """True if the entry's blackout covers that moment."""
    blackout = entry.policies.blackout
    return blackout is not None and blackout.covers_ms(due_ms)


class BlackedOut(ScheduleError):
    """No run is found that a blackout does not cover."""


def after_blackouts_ms(entry: Entry, schedule: Schedule, due_ms: int | None) -> int | None:
    """The first due time, from ``due_ms`` on, that no blackout covers. ``None``: none is left.

    Jumps from blackout to blackout, so that what it takes does not depend on the runs in them. After
    :data:`JUMPS` of them, or :data:`SEARCHED_MS`, it raises :class:`BlackedOut`.
    """
    blackout = entry.policies.blackout
    last_ms = (due_ms or 0) + SEARCHED_MS
    for _ in range(JUMPS):
        if due_ms is None or blackout is None or not blackout.covers_ms(due_ms):
            return due_ms
        if due_ms > last_ms:
            break
        end_ms = blackout.end_ms(due_ms) - 1
        if is_chain(schedule):
            covered_ms = latest_ms(schedule, after_ms=due_ms, until_ms=end_ms)
            end_ms = due_ms if covered_ms is None else covered_ms
        due_ms = schedule.next_after_ms(end_ms)
    raise BlackedOut("all runs that were looked at are blacked out")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Bounded(BaseSchedule):
    """A schedule between two moments, both included."""

    schedule: Schedule
    start_ms: int | None
    end_ms: int | None

    def next_after_ms(self, t_ms: int, /) -> int | None:
        if self.start_ms is not None:
            t_ms = max(t_ms, self.start_ms - 1)
        due_ms = self.schedule.next_after_ms(t_ms)
        return None if due_ms is None or (self.end_ms is not None and due_ms > self.end_ms) else due_ms

    @property
    def is_chain(self) -> bool:
        """True if each run depends on the one before."""
        return is_chain(self.schedule)

    def latest_ms(self, after_ms: int, until_ms: int) -> int | None:
        """The latest run in (after, until]."""
        if self.start_ms is not None:
            after_ms = max(after_ms, self.start_ms - 1)
        if self.end_ms is not None:
            until_ms = min(until_ms, self.end_ms)
        return latest_ms(self.schedule, after_ms, until_ms)

    @property
    def notation(self) -> object:
        return self.schedule.notation

    @property
    def meaning(self) -> str:
        return f"{self.schedule.fingerprint} from {self.start_ms} to {self.end_ms}"
