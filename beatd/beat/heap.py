"""Due heap: the next run of every entry, by the instant at which it fires.

Runs wait in buckets, one for each instant at which something fires, and only the instants are in a heap. A herd of ten
thousand entries that share a minute costs one heap operation, and equal schedules compute their next time once.

Next run: an entry enters at its resume point (:mod:`beatd.planning.catchup`) and moves on along its timeline
(:func:`beatd.planning.timeline.next_due_ms`) when its run is done with; previews use the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

import msgspec

from beatd.model import Entry, Run
from beatd.planning.policies import Decision
from beatd.planning.timeline import fire_ms, next_due_ms
from beatd.schedules import Schedule


class Failed(NamedTuple):
    """An entry that left the heap because its next run cannot be found."""

    entry: Entry
    error: Exception


class Slot(msgspec.Struct, eq=False, gc=False):
    """An entry's place in the heap: its timeline, its next run, and its remaining runs (``None``: any number).

    It is part of no cycle, so the collector need not look at a million of them.
    """

    entry: Entry
    timeline: Schedule
    remaining_runs: int | None
    after_ms: int | None
    """The due time of the last run that may have been sent; its next run is the first after it."""
    due_ms: int = 0
    fire_ms: int = 0
    deleted: bool = False
    """A tombstone: its entry was removed or replaced."""


class DueRuns:
    """Runs that are due, the earliest first, one per entry.

    Each is made when its turn in the iteration comes: to make all of a herd would delay its first message.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Run]:
        return map(_run_of, self._slots)

    def __getitem__(self, number: int) -> Run:
        return _run_of(self._slots[number])

    @property
    def entries(self) -> Iterator[Entry]:
        """The entries of the runs, in the same order."""
        return (slot.entry for slot in self._slots)

    @property
    def earliest_fire_ms(self) -> int:
        """Fire time (ms) of the first one, while none has been moved on."""
        return min(slot.fire_ms for slot in self._slots)


class DueHeap:
    """The next run of every entry, by the instant at which it fires.

    :meth:`due` hands out runs and :meth:`advance` moves them on, the first ones first. After a dispatch that failed
    half way, :meth:`due` hands out those again that were not moved on.

    Invariants:

    * ``_slots`` has one slot for each entry, the only one of that name that is not ``deleted``.
    * A slot that is not deleted is in exactly one place: in the bucket of one instant, or in flight (handed out by
      :meth:`due` and not moved on yet).
    * ``_instants`` is a heap of the keys of ``_buckets``, each once. No bucket is empty.
    * A deleted slot stays in its bucket until that comes up, as finding it there would take a search; ``_deleted``
      counts them, and :meth:`_compact` drops them when there are more of them than entries.
    """

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}
        self._buckets: dict[int, list[Slot]] = {}
        self._instants: list[int] = []
        self._in_flight: list[Slot] = []
        self._now_ms = 0
        self._deleted = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()
        self._buckets.clear()
        self._instants.clear()
        self._in_flight.clear()
        self._deleted = 0

    def put(
        self,
        entries: Sequence[Entry],
        timeline: Schedule,
        due_ms: int | None,
        *,
        remaining_runs: int | None = None,
        after_ms: int | None = None,
    ) -> None:
        """Add entries, or replace those of their names. One with jitter or ``remaining_runs`` comes alone.

        ``after_ms``: see :attr:`beatd.model.Run.after_ms`. Without a ``due_ms`` or ``remaining_runs`` they never run
        again and are left out. Raises whatever their timeline or jitter raise; they are not in the heap then.
        """
        names = [entry.name for entry in entries]
        for name in self._slots.keys() & names:
            self.remove(name)
        if due_ms is not None and (remaining_runs is None or remaining_runs > 0):
            slots = [Slot(entry, timeline, remaining_runs, after_ms) for entry in entries]
            self._place(slots, due_ms, fire_ms(entries[0], timeline, due_ms))
            self._slots.update(zip(names, slots, strict=True))

    def remove(self, name: str) -> None:
        """Take an entry out, if it is there."""
        slot = self._slots.pop(name, None)
        if slot is not None:
            slot.deleted = True
            self._deleted += 1
            if self._deleted > len(self._slots) + 1_000:
                self._compact()

    def due(self, now_ms: int, *, at_most: int) -> DueRuns:
        """The earliest runs that fire at or before ``now_ms``, one per entry; the same again until :meth:`advance`."""
        self._now_ms = now_ms
        in_flight = self._in_flight = [slot for slot in self._in_flight if not slot.deleted]
        while len(in_flight) < at_most and self._instants and self._instants[0] <= now_ms:
            instant = self._instants[0]
            bucket = self._buckets[instant]
            room = at_most - len(in_flight)
            in_flight += [slot for slot in bucket[:room] if not slot.deleted]
            del bucket[:room]
            if not bucket:
                heappop(self._instants)
                del self._buckets[instant]
        return DueRuns(tuple(in_flight))

    def advance(self, decisions: Sequence[Decision]) -> list[Failed]:
        """Move on the first of the runs that :meth:`due` handed out, given the decision for each in the same order.

        An entry that is behind goes to the end of what is due now: entries that catch up take turns, and runs that come
        due meanwhile wait for one round of them, not for all missed runs. Returns the entries whose next run cannot be
        found.
        """
        moved, self._in_flight = self._in_flight[: len(decisions)], self._in_flight[len(decisions) :]
        nexts: dict[tuple[int, int], int | None] = {}
        failed: list[Failed] = []
        for slots, decision in _alike(moved, decisions):
            try:
                stay = self._advance(slots, decision, nexts)
            except Exception as error:  # noqa: BLE001 - a schedule may do anything; it concerns its own entries only
                failed += [Failed(slot.entry, error) for slot in slots]
                stay = False
            if not stay:
                for slot in slots:
                    slot.deleted = True
                    self._slots.pop(slot.entry.name, None)
        return failed

    def _advance(self, slots: Sequence[Slot], decision: Decision, nexts: dict[tuple[int, int], int | None]) -> bool:
        """Move on entries that are alike; tells whether they have a place in the heap now.

        ``nexts``: next due times by timeline.
        """
        if decision.hold:
            return False
        first, due_ms = slots[0], slots[0].due_ms
        if decision.retry_ms is not None:
            self._place(slots, due_ms, decision.retry_ms)
            return True
        if decision.skip is None and first.remaining_runs is not None:
            first.remaining_runs -= 1  # it is alone
        if decision.skip is None or decision.claimed_before:
            for slot in slots:
                slot.after_ms = due_ms
        passed_ms = due_ms if decision.passed_ms is None else decision.passed_ms
        key = (id(first.timeline), passed_ms)
        if key not in nexts:
            nexts[key] = next_due_ms(first.timeline, passed_ms)
        next_ms = nexts[key]
        if next_ms is None or first.remaining_runs == 0:
            return False
        self._place(slots, next_ms, fire_ms(first.entry, first.timeline, next_ms), not_before=self._now_ms)
        return True

    def next_fire_ms(self) -> int | None:
        """The instant at which the earliest run fires, or should have fired; ``None`` when nothing waits."""
        waiting = [slot.fire_ms for slot in self._in_flight[:1]] + self._instants[:1]  # copies: other threads ask, too
        return min(waiting, default=None)

    def fire_ms_of(self, name: str) -> int | None:
        """The instant at which the next run of an entry fires; ``None`` if it has none."""
        slot = self._slots.get(name)
        return slot.fire_ms if slot is not None else None

    def runs_at(self, instant: int) -> Iterator[Run]:
        """The runs that fire at an instant, as of now."""
        return (_run_of(slot) for slot in tuple(self._buckets.get(instant, ())) if not slot.deleted)

    def _place(self, slots: Sequence[Slot], due_ms: int, fires_ms: int, *, not_before: int = 0) -> None:
        """Give slots their next run, and a place in the bucket of the instant at which that fires. Times in ms."""
        for slot in slots:
            slot.due_ms, slot.fire_ms = due_ms, fires_ms
        instant = max(fires_ms, not_before)
        bucket = self._buckets.get(instant)
        if bucket is None:
            self._buckets[instant] = [*slots]
            heappush(self._instants, instant)
        else:
            bucket += slots

    def _compact(self) -> None:
        """Drop deleted slots: the bucket of a yearly entry would keep them for months."""
        self._buckets.clear()
        self._instants.clear()
        self._deleted = 0
        waiting = {id(slot) for slot in self._in_flight}
        for slot in self._slots.values():
            if id(slot) not in waiting:
                self._place([slot], slot.due_ms, slot.fire_ms)


def _alike(slots: Sequence[Slot], decisions: Sequence[Decision]) -> list[tuple[list[Slot], Decision]]:
    """Slots in a row that move on in one step, as those of a herd do, and the decision for them.

    They have timeline, due time and decision in common. One with jitter or a number of runs, its own, is alone.
    """
    groups: list[tuple[list[Slot], Decision]] = []
    first: Slot | None = None  # of the last group, unless it is alone
    for slot, decision in zip(slots, decisions, strict=True):
        is_alone = slot.remaining_runs is not None or slot.entry.policies.jitter_ms != 0
        if (
            first is not None
            and not is_alone
            and slot.timeline is first.timeline
            and slot.due_ms == first.due_ms
            and decision == groups[-1][1]
        ):
            groups[-1][0].append(slot)
        else:
            groups.append(([slot], decision))
            first = None if is_alone else slot
    return groups


def _run_of(slot: Slot) -> Run:
    return Run(slot.entry, slot.due_ms, slot.fire_ms, slot.timeline, None, slot.after_ms)
