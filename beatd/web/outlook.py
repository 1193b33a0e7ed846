"""One entry as the page shows it: what it has done, and when it will run next.

Nothing is decided here. When an entry runs comes from :mod:`beatd.timeline`, as the daemon's own decision does.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from beatd.epoch import from_ms, to_ms
from beatd.exceptions import ScheduleError
from beatd.model import Entry
from beatd.schedules import Schedule, latest_ms, zone
from beatd.store.claims import EntryState
from beatd.store.held_back import HeldBackEntry
from beatd.timeline import fire_ms, first_sent_ms, timeline


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
    held: HeldBackEntry | None = None
    """Why it is held back, if it is."""


def outlooks(
    entries: Sequence[Entry],
    states: Sequence[EntryState | None],
    now_ms: int,
    *,
    paused: Container[str],
    held: Mapping[str, HeldBackEntry],
    last_dues: Callable[[Sequence[str]], Mapping[str, int]],
) -> list[Outlook]:
    """The outlooks of many entries. One that cannot be computed has the error as its note, and the others theirs.

    ``last_dues`` reads from the history when the last runs of entries were due: asked for those whose state does not
    say, as that of an entry that was resumed.
    """
    looks = [_safe(entry, state, now_ms) for entry, state in zip(entries, states, strict=True)]
    unknown = [look.entry.name for look in looks if look.runs and look.last_due_ms is None]
    past = last_dues(unknown) if unknown else {}
    return [
        look._replace(
            last_due_ms=past.get(name, look.last_due_ms),
            note="paused" if name in paused else f"held back: {held[name].reason}" if name in held else look.note,
            held=held.get(name),
        )
        for look in looks
        for name in (look.entry.name,)
    ]


def _safe(entry: Entry, state: EntryState | None, now_ms: int) -> Outlook:
    """The outlook of an entry, whatever is wrong with it: one entry hides no other."""
    try:
        look = outlook(entry, state, now_ms)
        for ms in (look.last_due_ms, look.next_due_ms, look.next_fire_ms):
            if ms is not None:
                from_ms(ms).astimezone(zone(entry.timezone).info)
    except Exception as error:  # noqa: BLE001 - shown as the note
        text = f"error: {str(error) or type(error).__name__}"
        return Outlook(entry, 0 if state is None else state.runs, None, None, None, text)
    return look


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
    try:
        due_ms = first_sent_ms(entry, line, due_ms)
    except ScheduleError:
        return None, "blacked out"
    if due_ms is None or _is_stale(entry, due_ms):
        return None, "no run is left"
    return due_ms, ""


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
