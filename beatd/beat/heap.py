"""What is due, and what comes next.

Runs wait in buckets, one for each instant at which something fires, and only the instants are in a heap. A herd of ten
thousand entries that share a minute costs one heap operation, and equal schedules compute their next time once.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

from beatd.clock import from_ms, to_ms
from beatd.model import Entry, Run
from beatd.schedules import Schedule, jittered


class Slot:
    """An entry's place in the heap: its schedule (with its phase) and its next run."""

    __slots__ = ("due_ms", "entry", "fire_ms", "gone", "schedule")

    def __init__(self, entry: Entry, schedule: Schedule) -> None:
        self.entry = entry
        self.schedule = schedule
        self.gone = False

    def set_due(self, due_ms: int) -> None:
        """Make the run at ``due_ms`` the next one."""
        self.due_ms = due_ms
        self.fire_ms = fire_ms(self.entry, self.schedule, due_ms)


def fire_ms(entry: Entry, schedule: Schedule, due_ms: int) -> int:
    """When a run leaves (ms): when it is due, or later by its share of the entry's jitter."""
    jitter_ms = entry.policies.jitter_ms
    if not jitter_ms:
        return due_ms
    due_at = from_ms(due_ms)
    return to_ms(jittered(entry.name, due_at, jitter_ms, schedule.next_after(due_at)))


class DueHeap:
    """The next run of every entry, by the instant at which it fires.

    :meth:`due` hands out runs and :meth:`advance` moves them on. In between nothing has changed: after a dispatch that
    failed, :meth:`due` hands out the same runs again.
    """

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}
        self._buckets: dict[int, list[Slot]] = {}
        self._instants: list[int] = []
        self._taken: list[Slot] = []

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()
        self._buckets.clear()
        self._instants.clear()
        self._taken.clear()

    def put(self, entry: Entry, schedule: Schedule, due_ms: int | None) -> None:
        """Add an entry, or replace the one of that name. Without a ``due_ms`` it never runs again and is left out."""
        self.remove(entry.name)
        if due_ms is not None:
            slot = self._slots[entry.name] = Slot(entry, schedule)
            self._file(slot, due_ms)

    def remove(self, name: str) -> None:
        """Take an entry out, if it is there."""
        slot = self._slots.pop(name, None)
        if slot is not None:
            slot.gone = True  # it stays in its bucket until that comes up: finding it there would take a search

    def due(self, now_ms: int, *, at_most: int) -> list[Run]:
        """The earliest runs that fire at or before ``now_ms``; the same ones again until :meth:`advance`."""
        taken = self._taken = [slot for slot in self._taken if not slot.gone]
        while len(taken) < at_most and self._instants and self._instants[0] <= now_ms:
            instant = self._instants[0]
            bucket = self._buckets[instant]
            room = at_most - len(taken)
            taken += [slot for slot in bucket[:room] if not slot.gone]
            del bucket[:room]
            if not bucket:
                heappop(self._instants)
                del self._buckets[instant]
        return [Run(slot.entry, slot.due_ms, slot.fire_ms) for slot in taken]

    def advance(self) -> None:
        """Move every run that :meth:`due` handed out to the next occurrence of its entry."""
        taken, self._taken = self._taken, []
        nexts: dict[tuple[int, int], int | None] = {}
        for slot in taken:
            key = (id(slot.schedule), slot.due_ms)
            if key not in nexts:
                nexts[key] = slot.schedule.next_after_ms(slot.due_ms)
            due_ms = nexts[key]
            if due_ms is None:
                del self._slots[slot.entry.name]
            else:
                self._file(slot, due_ms)

    def next_fire_ms(self) -> int | None:
        """The instant at which the earliest run fires, or should have fired; ``None`` when nothing waits."""
        waiting = [slot.fire_ms for slot in self._taken[:1]] + self._instants[:1]
        return min(waiting, default=None)

    def slots(self) -> Iterable[Slot]:
        """Every entry's slot, in no particular order."""
        return self._slots.values()

    def _file(self, slot: Slot, due_ms: int) -> None:
        slot.set_due(due_ms)
        bucket = self._buckets.get(slot.fire_ms)
        if bucket is None:
            self._buckets[slot.fire_ms] = [slot]
            heappush(self._instants, slot.fire_ms)
        else:
            bucket.append(slot)
