"""The runs that an entry will have, computed from the file alone: what the daemon will do if nothing else happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from heapq import merge
from typing import NamedTuple

from beatd.clock import from_ms, to_ms
from beatd.model import Entry
from beatd.schedules import Schedule, bind, dst_note, jittered_ms, zone

LONGEST_SEARCH = 100_000
"""Runs in a row that a blackout may hide before the search ends."""

_NOTES = {
    "gap": "moved out of the skipped hour",
    "overlap": "in the repeated hour",
    None: "",
}


class Upcoming(NamedTuple):
    """One run to come: when it leaves, with its jitter, and when it is due; both in ms since the epoch."""

    fire_ms: int
    due_ms: int
    entry: Entry

    @property
    def due_at(self) -> datetime:
        """When it is due, in UTC."""
        return from_ms(self.due_ms)

    @property
    def local(self) -> datetime:
        """When it is due, in the time zone of the entry."""
        return self.due_at.astimezone(zone(self.entry.timezone).info)

    @property
    def fire_at(self) -> datetime:
        """When it leaves, in UTC."""
        return from_ms(self.fire_ms)

    @property
    def note(self) -> str:
        """What a clock change has to do with it, in words, if anything."""
        return _NOTES[dst_note(self.entry.schedule, self.due_at)]


def upcoming(entry: Entry, after_ms: int) -> Iterator[Upcoming]:
    """The runs of an entry after ``after_ms``, in order: within start and end, outside of its blackout."""
    policies = entry.policies
    if not policies.enabled:
        return
    schedule = bind(entry.schedule, from_ms(after_ms))
    if policies.start:
        after_ms = max(after_ms, to_ms(policies.start) - 1)
    end_ms = to_ms(policies.end) if policies.end else None
    hidden = 0
    for due_ms, next_ms in _pairs(schedule, after_ms):
        if (end_ms is not None and due_ms > end_ms) or hidden > LONGEST_SEARCH:
            return
        if policies.blackout and policies.blackout.covers_ms(due_ms):
            hidden += 1
        else:
            hidden = 0
            yield Upcoming(jittered_ms(entry.name, due_ms, policies.jitter_ms, next_ms), due_ms, entry)


def all_upcoming(entries: Iterable[Entry], after_ms: int) -> Iterator[Upcoming]:
    """The runs of all entries, in the order in which they leave."""
    return merge(*(upcoming(entry, after_ms) for entry in entries), key=lambda run: (run.fire_ms, run.entry.name))


def _pairs(schedule: Schedule, after_ms: int) -> Iterator[tuple[int, int | None]]:
    """Each due time with the one after it."""
    due_ms = schedule.next_after_ms(after_ms)
    while due_ms is not None:
        next_ms = schedule.next_after_ms(due_ms)
        yield due_ms, next_ms
        due_ms = next_ms
