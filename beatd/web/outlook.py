"""One entry as the page shows it: what it has done, and when it will run next.

Nothing is decided here. When an entry runs comes from :mod:`beatd.timeline`, as the daemon's own decision does.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from beatd.epoch import to_ms
from beatd.model import Entry
from beatd.schedules import Schedule, latest_ms
from beatd.store.claims import EntryState
from beatd.timeline import fire_ms, hidden, timeline

LONGEST_SEARCH = 500
"""Runs in a row that may be blacked out before the search for one that is sent ends: a page has many entries."""


class Outlook(NamedTuple):
    """``runs`` have been sent; ``last_due_ms`` is when the last was due, ``next_due_ms`` when the next will be."""

    entry: Entry
    runs: int
    last_due_ms: int | None
    next_due_ms: int | None
    next_fire_ms: int | None
    """When the next run leaves: later than it is due if the entry has jitter."""
    note: str
    """Why there is no next run, in words."""


def outlook(entry: Entry, state: EntryState | None, now_ms: int) -> Outlook:
    """What there is to say of ``entry`` at that moment. ``state`` is what the store remembers of it, if anything."""
    line = timeline(entry, now_ms if state is None else state.first_seen_ms)
    runs = 0 if state is None else state.runs
    last_due_ms = None if state is None else _last_run(line, state)
    next_due_ms, note = _next_run(entry, line, state, now_ms)
    next_fire_ms = None if next_due_ms is None else fire_ms(entry, line, next_due_ms)
    return Outlook(entry, runs, last_due_ms, next_due_ms, next_fire_ms, note)


def _last_run(line: Schedule, state: EntryState) -> int | None:
    """The last due time, if a run was due then: for an entry that has just begun it is when it began."""
    is_run = state.runs and line.next_after_ms(state.last_due_ms - 1) == state.last_due_ms
    return state.last_due_ms if is_run else None


def _next_run(entry: Entry, line: Schedule, state: EntryState | None, now_ms: int) -> tuple[int | None, str]:
    policies = entry.policies
    if not policies.enabled:
        return None, "not enabled"
    if state is not None and policies.max_runs is not None and state.runs >= policies.max_runs:
        return None, f"over after {policies.max_runs} run{'s' if policies.max_runs != 1 else ''}"
    due_ms = _delayed(entry, line, state, now_ms) or line.next_after_ms(now_ms)
    for _ in range(LONGEST_SEARCH):
        if due_ms is None or _is_stale(entry, due_ms):
            return None, "no run is left"
        if not hidden(entry, due_ms):
            return due_ms, ""
        due_ms = line.next_after_ms(due_ms)
    return None, "blacked out"


def _delayed(entry: Entry, line: Schedule, state: EntryState | None, now_ms: int) -> int | None:
    """A run that is due already and waits for its share of the jitter."""
    if state is None or not entry.policies.jitter_ms or state.last_due_ms >= now_ms:
        return None
    due_ms = latest_ms(line, max(state.last_due_ms, now_ms - entry.policies.jitter_ms), now_ms)
    return due_ms if due_ms is not None and fire_ms(entry, line, due_ms) > now_ms else None


def _is_stale(entry: Entry, due_ms: int) -> bool:
    """Whether its message would have expired, at an instant that the entry names, before it is due."""
    expires = entry.options.expires
    return isinstance(expires, datetime) and to_ms(expires) <= due_ms
