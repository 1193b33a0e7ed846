"""Catch-up: which of the missed runs are still to be made. Pure time.

The answer is one instant: where the entry goes on. From there the heap walks on as always, so a run that is caught up
takes the same way as any other.
"""

from __future__ import annotations

from typing import NamedTuple

from beatd.model import Entry, Policies
from beatd.planning.timeline import timeline
from beatd.schedules import Schedule, latest_ms, period_ms
from beatd.timestamps import from_ms

LATE_MS = 20_000
"""A run that is later than this was missed; up to then it is late, and sent whatever catch-up says.

Longer than a failover takes with the default lease: so those lose nothing.
"""

WINDOW_MIN_MS = 60_000
WINDOW_MAX_MS = 24 * 3_600_000


class ResumePoint(NamedTuple):
    """Resume point of an entry: its next due time (ms), ``None`` if it never runs again."""

    due_ms: int | None
    passes_over: bool = False
    """Whether runs before it were missed and are not made."""


def first_due(schedule: Schedule, policies: Policies, *, last_due_ms: int, now_ms: int) -> ResumePoint:
    """Return the resume point of an entry after ``last_due_ms``.

    Nothing was missed if the next run after ``last_due_ms`` lies in the future, or is only late. Else
    ``policies.catch_up`` decides: ``"latest"`` goes on with the last missed run, ``"all"`` with the oldest of the last
    ``catch_up_max``, both only within the catch-up window; ``"none"`` with the first run after now.
    """
    due = schedule.next_after_ms(last_due_ms)
    if due is None or due >= now_ms - LATE_MS:
        return ResumePoint(due)
    since = max(last_due_ms, now_ms - _window_ms(schedule, policies, last_due_ms))
    missed = None
    match policies.catch_up:
        case "latest":
            missed = latest_ms(schedule, after_ms=since, until_ms=now_ms)
        case "all":
            missed = _oldest_of_the_last(policies.catch_up_max, schedule, since, now_ms)
    goes_on = missed if missed is not None else schedule.next_after_ms(now_ms)
    return ResumePoint(goes_on, passes_over=goes_on != due)


class ResumePoints:
    """Resume points at ``now_ms``, cached for entries with equal schedules, policies and state.

    Most of a large schedule are: they share schedule and policies, and were first seen and last due together.
    """

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._known: dict[tuple[int, int, int, int], tuple[Schedule, ResumePoint]] = {}

    def of(self, entry: Entry, first_seen_ms: int, last_due_ms: int) -> tuple[Schedule, ResumePoint]:
        """The entry's timeline, and where it goes on there. The entries must outlive this."""
        key = (id(entry.schedule), id(entry.policies), first_seen_ms, last_due_ms)
        if (known := self._known.get(key)) is None:
            line = timeline(entry, first_seen_ms)
            onward = first_due(line, entry.policies, last_due_ms=last_due_ms, now_ms=self._now_ms)
            known = self._known[key] = line, onward
        return known


def _window_ms(schedule: Schedule, policies: Policies, at_ms: int) -> int:
    """Catch-up window: as the entry says, else a day for ``"all"``, and for ``"latest"`` one period, at most a day."""
    if policies.catch_up_window_ms is not None:
        return policies.catch_up_window_ms
    if policies.catch_up == "all":  # of which one period would leave the latest
        return WINDOW_MAX_MS
    period = period_ms(schedule, from_ms(at_ms))
    return WINDOW_MAX_MS if period is None else min(max(period, WINDOW_MIN_MS), WINDOW_MAX_MS)


def _oldest_of_the_last(count: int, schedule: Schedule, after_ms: int, until_ms: int) -> int | None:
    """Step back from ``until_ms`` at most ``count`` times; the number of runs further back does not matter."""
    oldest = None
    for _ in range(count):
        found = latest_ms(schedule, after_ms=after_ms, until_ms=until_ms)
        if found is None:
            break
        oldest, until_ms = found, found - 1
    return oldest
