"""Catch-up: which of the missed runs are still made, and so where an entry resumes. Pure time.

The rule: a leader resumes each entry after the due time of its last claimed run. A run is *missed* if its fire time is
more than 20 s past; one that still waits for its jitter is not. If none was missed, the entry resumes with the next
run. Else its ``catch_up`` policy decides: ``"latest"`` resumes with the last missed run, ``"all"`` with the oldest of
the last ``catch_up_max`` ones, both only within the catch-up window; ``"none"`` with the first run that is not missed.
Runs in a blackout do not count: the last one that no blackout covers is the last missed run.
From its resume point on, an entry has one run after the other as always: a caught-up run is sent like any other.

The daemon's heap and every preview begin at :class:`ResumePoints`: so they agree on the next run.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from beatd.model import Entry, EntryState, Policies
from beatd.planning.timeline import fire_ms, hidden, next_due_ms, timeline
from beatd.schedules import Schedule, latest_ms, period_ms
from beatd.timestamps import from_ms

LATE_MS = 20_000
"""A run that is later than this was missed; up to then it is late, and sent whatever catch-up says.

Longer than a failover takes with the default lease: so those lose nothing.
"""

BLACKED_OUT = 10_000
"""Runs in blackouts that are passed at most in search of a missed one."""

WINDOW_MIN_MS = 60_000
WINDOW_MAX_MS = 24 * 3_600_000


class ResumePoint(NamedTuple):
    """Resume point of an entry: its timeline, its next due time (ms) there, and the runs that it may still have."""

    timeline: Schedule
    due_ms: int | None
    """``None``: it never runs again."""
    remaining_runs: int | None = None
    """``None``: any number."""
    passes_over: bool = False
    """True if runs before it were missed and are not made."""


class ResumePoints:
    """Resume points at ``now_ms``, cached for entries with equal schedules, policies and state.

    Most of a large schedule are: they share schedule and policies, and were first seen and last due together. The
    entries must outlive this.
    """

    def __init__(self, now_ms: int, waiting: Mapping[str, int] = MappingProxyType({})) -> None:
        self.now_ms = now_ms
        self.waiting = waiting
        """Due times (ms) of runs that a leader holds back until the run before has ended, by entry."""
        self._points: dict[tuple[int, int, int, int], ResumePoint] = {}
        self._next_dues: dict[tuple[int, int, int, int], tuple[Schedule, int | None]] = {}
        self._caught_up: dict[tuple[int, int, int, str], int | None] = {}

    def of(self, entry: Entry, state: EntryState) -> ResumePoint:
        """Return where ``entry`` resumes; one that is not enabled, or has had all of its runs, never does."""
        policies = entry.policies
        key = (id(entry.schedule), id(policies), state.first_seen_ms, state.last_due_ms)
        if entry.name in self.waiting:
            own = self._point(entry, state)
            return own if own.due_ms is None else own._replace(due_ms=self.waiting[entry.name], passes_over=False)
        point = self._points.get(key)
        if point is None:
            point = self._point(entry, state)
            if policies.max_runs is None and not policies.jitter_ms:  # else it is this entry's own
                self._points[key] = point
        return point

    def _point(self, entry: Entry, state: EntryState) -> ResumePoint:
        policies = entry.policies
        bounds = id(policies) if policies.start is not None or policies.end is not None else 0
        key = (id(entry.schedule), bounds, state.first_seen_ms, state.last_due_ms)
        cached = self._next_dues.get(key)
        if cached is None:
            line = timeline(entry, state.first_seen_ms)
            cached = self._next_dues[key] = line, next_due_ms(line, state.last_due_ms)
        line, due_ms = cached
        remaining_runs = None
        if policies.max_runs is not None:
            remaining_runs = max(policies.max_runs - state.runs, 0)
        if remaining_runs == 0 or not policies.enabled:
            return ResumePoint(line, None, remaining_runs)
        if due_ms is None or due_ms >= self.now_ms - LATE_MS:
            return ResumePoint(line, due_ms, remaining_runs)
        resume_ms = self._catch_up(entry, line, due_ms, state.last_due_ms)
        return ResumePoint(line, resume_ms, remaining_runs, passes_over=resume_ms != due_ms)

    def _catch_up(self, entry: Entry, line: Schedule, due_ms: int, last_due_ms: int) -> int | None:
        """The due time with which an entry resumes that may have missed runs; jitter is the entry's own."""
        key = (id(line), id(entry.policies), last_due_ms, entry.name if entry.policies.jitter_ms else "")
        if key not in self._caught_up:
            self._caught_up[key] = resume_due_ms(entry, line, due_ms, last_due_ms=last_due_ms, now_ms=self.now_ms)
        return self._caught_up[key]


def resume_due_ms(entry: Entry, line: Schedule, due_ms: int, *, last_due_ms: int, now_ms: int) -> int | None:
    """Return the due time with which ``entry`` resumes at ``now_ms``; ``due_ms`` is that after ``last_due_ms``."""
    if fire_ms(entry, line, due_ms) >= now_ms - LATE_MS:
        return due_ms
    waiting_ms = _waiting_for_jitter(entry, line, due_ms, now_ms)
    until_ms = now_ms if waiting_ms is None else waiting_ms - 1
    since_ms = max(last_due_ms, now_ms - _window_ms(line, entry.policies, last_due_ms))
    missed_ms = None
    if entry.policies.catch_up != "none":
        count = 1 if entry.policies.catch_up == "latest" else entry.policies.catch_up_max
        missed_ms = _oldest_of_the_last(count, entry, line, last_due_ms, since_ms=since_ms, until_ms=until_ms)
    if missed_ms is not None:
        return missed_ms
    return waiting_ms if waiting_ms is not None else next_due_ms(line, now_ms)


def _waiting_for_jitter(entry: Entry, line: Schedule, due_ms: int, now_ms: int) -> int | None:
    """The run that is due after ``due_ms`` and by now, and waits for its fire time. Jitter ends before the next run:
    so there is one at most."""
    jitter_ms = entry.policies.jitter_ms
    if not jitter_ms:
        return None
    waiting_ms = latest_ms(line, after_ms=due_ms, until_ms=now_ms)
    return waiting_ms if waiting_ms is not None and fire_ms(entry, line, waiting_ms) > now_ms else None


def _window_ms(schedule: Schedule, policies: Policies, at_ms: int) -> int:
    """Catch-up window: as the entry says, else a day for ``"all"``, and for ``"latest"`` one period, at most a day."""
    if policies.catch_up_window_ms is not None:
        return policies.catch_up_window_ms
    if policies.catch_up == "all":  # of which one period would leave the latest
        return WINDOW_MAX_MS
    period = period_ms(schedule, from_ms(at_ms))
    return WINDOW_MAX_MS if period is None else min(max(period, WINDOW_MIN_MS), WINDOW_MAX_MS)


def _oldest_of_the_last(
    count: int, entry: Entry, schedule: Schedule, after_ms: int, *, since_ms: int, until_ms: int
) -> int | None:
    """Step back from ``until_ms`` to ``since_ms`` until ``count`` runs have been found that no blackout covers.

    The number of runs further back does not matter. The runs are those that follow one another from ``after_ms`` on. If
    a blackout covers all of them it is the last one: it is skipped for that reason, and no run was missed.
    """
    oldest_ms = last_ms = None
    for _ in range(count if entry.policies.blackout is None else count + BLACKED_OUT):
        due_ms = latest_ms(schedule, after_ms=after_ms, until_ms=until_ms)
        if due_ms is None or due_ms <= since_ms:
            break
        last_ms, until_ms = last_ms or due_ms, due_ms - 1
        if not hidden(entry, due_ms):
            oldest_ms, count = due_ms, count - 1
            if not count:
                break
    return last_ms if oldest_ms is None else oldest_ms
