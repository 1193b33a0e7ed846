"""What is in force: it keeps the heap in line with the schedule, and with what the store says was claimed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping

from beatd.beat.catchup import LATE_MS, GoingOn
from beatd.beat.changes import Changes, fingerprints
from beatd.beat.dispatcher import Dispatcher
from beatd.beat.heap import DueHeap
from beatd.beat.seat import Term
from beatd.clock import Clock
from beatd.model import Entry
from beatd.store.claims import Claims, EntryState, Gap

log = logging.getLogger("beatd.beat")

PUT_SLICE = 1_000
"""Entries put into the heap between two signs of life."""

SWEEP_EVERY_MS, SWEEP_AFTER_MS = 3_600_000, 30 * 86_400_000
"""How often the state of entries that left the schedule is looked at, and when it is forgotten."""

LOOK_AFTER_MS = 10_000
"""How often a leader looks after the state that it claimed, and after what it could not read."""

CLOCK_STEP_MS = 500
"""A larger difference between wall and monotonic time from one turn to the next is a step, not a drift."""


class Roster:
    """The entries in force and where each of them goes on.

    The heap is built from the store at the beginning of a term, and whenever it no longer says where entries stand;
    a reload touches only what it changes. ``on_turn`` is called now and then while that takes long.
    """

    def __init__(
        self, clock: Clock, claims: Claims, dispatcher: Dispatcher, heap: DueHeap, *, on_turn: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._claims = claims
        self._dispatcher = dispatcher
        self._heap = heap
        self._on_turn = on_turn
        self._entries: dict[str, Entry] = {}
        self._changes = Changes()
        self._replacing = threading.Lock()
        self._handing_over = threading.Lock()
        self._resumed_in = 0  # the token of the term in which the heap was built; 0: it is to be built anew
        self._unreadable: set[str] = set()  # entries whose state the store has, and nobody can read
        self._look_after_at_ms = 0
        self._sweep_at_ms = 0
        self._clock_offset_ms = self._offset_ms()

    def replace(self, entries: Iterable[Entry]) -> None:
        """Hand over another schedule, for the next :meth:`follow`. May be called from any thread.

        What changed is found out here, in the caller's thread: for a large schedule that takes longer than a turn may.
        """
        incoming = {entry.name: entry for entry in entries}
        with self._replacing:
            changes = Changes.between(self._entries, incoming)
            with self._handing_over:
                self._entries = incoming
                self._changes = self._changes.then(changes)

    def entry(self, name: str) -> Entry | None:
        """The entry of that name in force."""
        return self._entries.get(name)

    def amend(self, put: Mapping[str, Entry], gone: Collection[str]) -> None:
        """Hand over a change of the schedule: as :meth:`replace`, at the cost of what changes and not of what there is.

        An entry that is put as it was is looked at anew. May be called from any thread.
        """
        with self._replacing:
            entries = {**self._entries, **put}
            there = frozenset(name for name in gone if entries.pop(name, None) is not None)
            with self._handing_over:
                self._entries = entries
                self._changes = self._changes.then(Changes(put, there))

    def oldest_due_ms(self, term: Term) -> int | None:
        """When the earliest run that waits should leave, once the heap was built under ``term``."""
        return self._heap.next_fire_ms() if self._resumed_in == term.token else None

    def distrust(self) -> None:
        """What was read from the store may be wrong by now: build the heap anew."""
        self._resumed_in = 0

    def follow(self, term: Term, now_ms: int) -> None:
        """Make the heap say what is due under ``term``. Raises a :class:`~beatd.exceptions.StoreError`; then again."""
        if self._must_resume(term, now_ms):
            self._resume(term, now_ms)
        else:
            self._take_in(term, now_ms)
            self._look_after(term, now_ms)

    def _must_resume(self, term: Term, now_ms: int) -> bool:
        """Whether the heap no longer says where entries stand: after a new term, a clock step, or a stall."""
        offset_ms = self._offset_ms()
        step_ms, self._clock_offset_ms = offset_ms - self._clock_offset_ms, offset_ms
        if term.token != self._resumed_in:
            return True
        if abs(step_ms) > CLOCK_STEP_MS:
            log.warning("The clock stepped by %+d ms", step_ms, extra={"event": "clock_stepped", "step_ms": step_ms})
            return True
        oldest = self._heap.next_fire_ms()
        if oldest is not None and now_ms - oldest > LATE_MS:
            late_ms = now_ms - oldest
            log.warning("Runs are %d ms late; catching up", late_ms, extra={"event": "stalled", "lateness_ms": late_ms})
            return True
        return False

    def _resume(self, term: Term, now_ms: int) -> None:
        """Build the heap from what the store says was claimed, and let catch-up decide about the rest."""
        self._resumed_in = 0  # should the store fail half way, the next turn begins again
        with self._handing_over:
            entries, self._changes = self._entries, Changes()
        self._heap.clear()
        self._unreadable.clear()
        self._put(entries.values(), term, now_ms)
        self._sweep(entries, term, now_ms)
        self._look_after_at_ms = now_ms + LOOK_AFTER_MS
        self._resumed_in = term.token
        extra = {"event": "schedule_resumed", "entries": len(entries), "term": term.token}
        log.info("%d %s in force", len(entries), "entry" if len(entries) == 1 else "entries", extra=extra)

    def _take_in(self, term: Term, now_ms: int) -> None:
        """Put what was handed to :meth:`replace` in force; the rest of the heap is not touched."""
        with self._handing_over:
            changes, self._changes = self._changes, Changes()
        if changes:
            self._resumed_in = 0  # should the store fail half way, the next turn builds the heap anew
            for name in changes.gone:
                self._heap.remove(name)
            self._put(changes.put.values(), term, now_ms)
            self._resumed_in = term.token

    def _put(self, entries: Iterable[Entry], term: Term, now_ms: int) -> None:
        named = {entry.name: entry for entry in entries}
        known_as = list(fingerprints(named.values()))
        states = self._claims.adopt(known_as, lease_value=term.lease_value, now_ms=now_ms)
        gaps, going_on = [], GoingOn(now_ms)
        for number, (name, state) in enumerate(states):
            if gap := self._place(named.pop(name), state, going_on):
                gaps.append(gap)
            if number % PUT_SLICE == 0:
                self._on_turn()
        self._dispatcher.pass_over(gaps, term)
        self._unreadable |= named.keys()

    def _place(self, entry: Entry, state: EntryState, going_on: GoingOn) -> Gap | None:
        """Put an entry where it goes on; returns what it passes over on the way there."""
        policies = entry.policies
        if not policies.enabled:
            self._heap.remove(entry.name)
            return None
        line, (due_ms, passes_over) = going_on.of(entry, state.first_seen_ms, state.last_due_ms)
        left = None if policies.max_runs is None else policies.max_runs - state.runs
        self._heap.put(entry, line, due_ms, left=left)
        return Gap(entry.name, state.last_due_ms, due_ms) if passes_over and due_ms is not None else None

    def _look_after(self, term: Term, now_ms: int) -> None:
        """Find out if the store lost what it had confirmed, and if somebody mended what could not be read."""
        if now_ms < self._look_after_at_ms:
            return
        self._look_after_at_ms = now_ms + LOOK_AFTER_MS
        self._claims.look_back(lease_value=term.lease_value)
        if self._unreadable:
            names, self._unreadable = self._unreadable & self._entries.keys(), set()
            self._resumed_in = 0  # should the store fail half way, the next turn builds the heap anew
            self._put([self._entries[name] for name in names], term, now_ms)
            self._resumed_in = term.token

    def _sweep(self, entries: Collection[str], term: Term, now_ms: int) -> None:
        """Forget what the store knows of entries that left the schedule long ago."""
        if now_ms < self._sweep_at_ms:
            return
        self._sweep_at_ms = now_ms + SWEEP_EVERY_MS
        swept = self._claims.sweep(entries, lease_value=term.lease_value, now_ms=now_ms, keep_ms=SWEEP_AFTER_MS)
        if swept:
            extra = {"event": "state_swept", "entries": swept[:10], "count": len(swept)}
            log.info("Forgot %d entries that left the schedule long ago", len(swept), extra=extra)

    def _offset_ms(self) -> int:
        return self._clock.now_ms() - int(self._clock.monotonic() * 1000)
