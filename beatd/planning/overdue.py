"""Overdue runs: those that have not started, or not finished, as long after their due time as their entry allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from beatd.exceptions import ScheduleError
from beatd.model import Entry, EntryState
from beatd.planning.timeline import after_blackouts_ms, fire_ms, timeline


class PastRun(NamedTuple):
    """A run that was sent. ``fire_ms``: when it should have left, its jitter included."""

    due_ms: int
    fire_ms: int
    is_started: bool
    is_over: bool


def overdue_since_ms(entry: Entry, state: EntryState | None, runs: Sequence[PastRun], now_ms: int) -> int | None:
    """Return since when a run of the entry is overdue; None if none is.

    A run after the last one that has started (or finished) counts, whether it was sent or not.
    """
    policies = entry.policies
    if not policies.enabled or state is None:
        return None
    since = []
    for limit_ms, done in (
        (policies.overdue_after_ms, [run for run in runs if run.is_started]),
        (policies.expect_within_ms, [run for run in runs if run.is_over]),
    ):
        if limit_ms is not None and (first_ms := _first_open(entry, state, runs, done)) is not None:
            since.append(first_ms + limit_ms)
    return min((ms for ms in since if ms <= now_ms), default=None)


def _first_open(entry: Entry, state: EntryState, runs: Sequence[PastRun], done: Sequence[PastRun]) -> int | None:
    """The fire time of the first run after the last one that is done."""
    last_done_ms = max((run.due_ms for run in done), default=0)
    waiting = [run.fire_ms for run in runs if run.due_ms > last_done_ms and run not in done]
    if waiting:
        return min(waiting)
    policies = entry.policies
    if policies.max_runs is not None and state.runs >= policies.max_runs:
        return None
    line = timeline(entry, state.first_seen_ms)
    try:
        due_ms = after_blackouts_ms(entry, line, line.next_after_ms(max(state.last_due_ms, last_done_ms)))
    except ScheduleError:
        return None
    return None if due_ms is None else fire_ms(entry, line, due_ms)
