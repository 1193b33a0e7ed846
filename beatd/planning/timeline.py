"""The runs of one entry over time: what the daemon does and what previews show comes from here.

An entry's timeline is its schedule, with the phase that it got when it was first seen, between its start and its end.
"""

from __future__ import annotations

from dataclasses import dataclass

from beatd.exceptions import ScheduleError
from beatd.model import Entry
from beatd.schedules import Schedule, bind, jittered_ms, latest_ms
from beatd.schedules.cron import Cron
from beatd.schedules.schedule import BaseSchedule
from beatd.timestamps import from_ms, to_ms

JUMPS = 1_000
"""Blackouts in a row that are passed in search of a run that is sent."""


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


def fire_ms(entry: Entry, schedule: Schedule, due_ms: int) -> int:
    """When a run leaves (ms): when it is due, or later by its share of the entry's jitter."""
    jitter_ms = entry.policies.jitter_ms
    if not jitter_ms:
        return due_ms
    return jittered_ms(entry.name, due_ms, jitter_ms, schedule.next_after_ms(due_ms))


def hidden(entry: Entry, due_ms: int) -> bool:
    """True if the entry's blackout covers that moment."""
    blackout = entry.policies.blackout
    return blackout is not None and blackout.covers_ms(due_ms)


def first_sent_ms(entry: Entry, schedule: Schedule, due_ms: int | None) -> int | None:
    """The first run, from the one at ``due_ms`` on, that no blackout hides. ``None``: none is left.

    Jumps from blackout to blackout, so that what it takes does not depend on the runs in them. After
    :data:`JUMPS` of them it raises :class:`~beatd.exceptions.ScheduleError`.
    """
    blackout = entry.policies.blackout
    for _ in range(JUMPS):
        if due_ms is None or blackout is None or not blackout.covers_ms(due_ms):
            return due_ms
        due_ms = schedule.next_after_ms(blackout.end_ms(due_ms) - 1)
    raise ScheduleError(f"its next {JUMPS:,} runs are blacked out")


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
