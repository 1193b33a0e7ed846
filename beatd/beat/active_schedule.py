"""The active schedule: it keeps the heap in line with the entries in force, and with the claims in the store.

The difference between two schedules is a comparison of fingerprints, by which the store recognises an entry, too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, takewhile

from beatd.beat.dispatcher import Dispatcher
from beatd.beat.heap import DueHeap
from beatd.beat.term import Term
from beatd.clock import Clock
from beatd.exceptions import StoreUnavailable, TermLost
from beatd.memory import give_back
from beatd.model import Entry, EntryState
from beatd.planning.catchup import LATE_MS, ResumePoint, ResumePoints
from beatd.schedules import latest_ms
from beatd.sources.schedule_diff import differences, renewed
from beatd.store.claims import Claims, Gap, Unreadable
from beatd.store.entry_state import Fingerprints, limits_text
from beatd.timestamps import span_text


@dataclass(frozen=True, slots=True)
class ScheduleDiff:
    """Reload diff: the difference of two schedules; entries to put (new or changed), and names that are gone.

    Only entries in the diff are touched in the heap. The store sees by the fingerprint of its schedule if the entry
    resumes after its last run, or begins anew.
    """

    put: Mapping[str, Entry] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()

    @classmethod
    def between(cls, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> ScheduleDiff:
        """Return the difference from one schedule, by name, to another."""
        added, changed, gone = differences(tuple(before.values()), tuple(after.values()))
        return cls(added | changed, frozenset(gone))

    def then(self, later: ScheduleDiff) -> ScheduleDiff:
        """Return this change and a later one as one change."""
        put = {name: entry for name, entry in self.put.items() if name not in later.gone}
        return ScheduleDiff({**put, **later.put}, (self.gone - later.put.keys()) | later.gone)

    def __bool__(self) -> bool:
        return bool(self.put or self.gone)


def known_as(entry: Entry, fingerprints: Fingerprints) -> tuple[str, str]:
    """Return ``(name, fingerprint)`` of an entry; raises what its schedule raises, and for text that is no UTF-8."""
    name, fingerprint = entry.name, fingerprints.of(entry)
    if not name.isascii():
        name.encode()
    return name, fingerprint


log = logging.getLogger("beatd.beat")

PUT_SLICE = 1_000
"""Entries put into the heap between two calls of ``on_turn``."""

SWEEP_EVERY_MS, SWEEP_AFTER_MS = 3_600_000, 30 * 86_400_000
"""Time between two sweeps; time after which the state of a removed entry is deleted."""

MARKED_AT_ONCE = 1_000
"""Entries that are marked as gone in one turn."""

VERIFY_EVERY_MS = 10_000
"""How often a leader verifies its term and the state that it claimed."""

CLOCK_STEP_MS = 500
"""A larger difference between wall and monotonic time from one turn to the next is a step, not a drift."""


_Alike = tuple[list[Entry], ResumePoint, int]
"""Entries that resume at one point, this, and the due time (ms) of their last run."""


class ActiveSchedule:
    """The entries in force and where each of them goes on.

    The heap is built from the store at the beginning of a term, and whenever it no longer says where entries stand;
    a reload touches only what it changes. ``on_turn`` is called every :data:`PUT_SLICE` entries.
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
        self._changes = ScheduleDiff()
        self._replacing = threading.Lock()
        self._handing_over = threading.Lock()
        self._resumed_in = 0  # the token of the term in which the heap was built; 0: it is to be built anew
        self._held = dispatcher.held
        self._held_in = 0  # the token of the term in which entries were last held back
        self._without_state: set[str] = set()  # entries in force for which the store may have no state
        self._left: dict[str, float] = {}
        """Entries that have left the schedule, and are not marked in the store yet: since when (monotonic seconds)."""
        self._decided_ms = 0  # when catch-up has decided about all entries for the last time
        self._verify_at_ms = 0
        self._sweep_at_ms = 0
        self._clock_offset_ms = self._offset_ms()

    def replace(self, entries: Sequence[Entry]) -> None:
        """Hand over another schedule, for the next :meth:`follow`. May be called from any thread.

        What changed is found out here, in the caller's thread: for a large schedule that takes longer than a turn may.
        """
        with self._replacing:
            incoming = renewed(self._entries, entries)
            changes = ScheduleDiff.between(self._entries, incoming)
            with self._handing_over:
                self._entries = incoming
                self._changes = self._changes.then(changes)

    def entry(self, name: str) -> Entry | None:
        """The entry of that name in force."""
        return self._entries.get(name)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The entries in force, by name: another object after each change. May be asked from any thread."""
        return self._entries

    def amend(self, put: Mapping[str, Entry], gone: Collection[str]) -> None:
        """Hand over a change of the schedule. Unlike :meth:`replace` it compares no schedules: the change is given.

        An entry that is put unchanged is loaded again. May be called from any thread.
        """
        with self._replacing:
            entries = {**self._entries, **put}
            removed = frozenset(name for name in gone if entries.pop(name, None) is not None)
            with self._handing_over:
                self._entries = entries
                self._changes = self._changes.then(ScheduleDiff(put, removed))

    def load_again(self, names: Collection[str]) -> None:
        """Load these entries again at the next turn: the store knows better where they stand."""
        if names:
            with self._handing_over:
                put = {name: self._entries[name] for name in names if name in self._entries}
                self._changes = self._changes.then(ScheduleDiff(put))

    def rebuild(self) -> None:
        """Build the heap anew at the next turn: what was read from the store may be wrong by now."""
        self._resumed_in = 0

    def follow(self, term: Term, now_ms: int) -> None:
        """Bring the heap up to date under ``term``; to be repeated after a :class:`~beatd.exceptions.StoreError`."""
        if self._must_resume(term, now_ms):
            self._resume(term, now_ms)
        else:
            self._take_in(term, now_ms)
            self._verify_term(term, now_ms)
            self._try_again(term, now_ms)

    def is_in_force(self, term: Term) -> bool:
        """True when the heap was built under this term."""
        return self._resumed_in == term.token

    def _must_resume(self, term: Term, now_ms: int) -> bool:
        """True when the heap must be built anew: after a new term, a clock step, or a stall."""
        offset_ms = self._offset_ms()
        step_ms, self._clock_offset_ms = offset_ms - self._clock_offset_ms, offset_ms
        if term.token != self._resumed_in:
            return True
        if abs(step_ms) > CLOCK_STEP_MS:
            log.warning("The clock stepped by %+d ms", step_ms, extra={"event": "clock_stepped", "step_ms": step_ms})
            return True
        oldest = self._heap.next_fire_ms()
        if oldest is not None and now_ms - max(oldest, self._decided_ms) > LATE_MS:
            late_ms = now_ms - oldest
            extra = {"event": "stalled", "lateness_ms": late_ms}
            log.warning("Runs are %s late; catching up", span_text(late_ms), extra=extra)
            return True
        return False

    def _resume(self, term: Term, now_ms: int) -> None:
        """Build the heap from what the store says was claimed, and let catch-up decide about the rest."""
        self._resumed_in = 0  # should the store fail half way, the next turn begins again
        entries, changes = self._handed_over()
        if changes or self._left:
            self._left.clear()
            self._sweep_at_ms = 0  # which finds who left and who is back
        self._heap.clear()
        if self._held_in != term.token:
            self._held_in = term.token
            self._held.clear()
        self._held.try_all()
        self._without_state.clear()
        self._put(entries, term, now_ms)
        self._verify_at_ms = now_ms + VERIFY_EVERY_MS
        self._decided_ms = self._clock.now_ms()
        self._resumed_in = term.token
        give_back(len(entries))
        extra = {"event": "schedule_resumed", "entries": len(entries), "term": term.token}
        log.info("%d %s in force", len(entries), "entry" if len(entries) == 1 else "entries", extra=extra)

    def _handed_over(self) -> tuple[Mapping[str, Entry], ScheduleDiff]:
        """The entries in force, and the change since the last call; entries that are gone are forgotten."""
        with self._handing_over:
            entries, changes, self._changes = self._entries, self._changes, ScheduleDiff()
        self._held.forget(changes.gone)
        self._dispatcher.forget(changes.gone)
        return entries, changes

    def _take_in(self, term: Term, now_ms: int) -> None:
        """Apply the changes handed to :meth:`replace` and :meth:`amend`; the rest of the heap is not touched."""
        if not self._changes:
            return
        _, changes = self._handed_over()
        self._resumed_in = 0  # should the store fail half way, the next turn builds the heap anew
        self._held.try_now(changes.put)
        self._without_state -= changes.gone
        left_at = self._clock.monotonic()
        for name in changes.gone:
            self._heap.remove(name)
            self._left[name] = left_at
        new = [name for name in changes.put if name not in self._heap and self._left.pop(name, None) is None]
        self._note_absence((), new, term, now_ms)
        self._put(changes.put, term, now_ms)
        self._resumed_in = term.token

    def _put(self, named: Mapping[str, Entry], term: Term, now_ms: int) -> None:
        """Put entries into the heap at their resume points; hold back those for which that fails."""
        gaps, points = [], ResumePoints(now_ms)
        if self._without_state:
            self._without_state.difference_update(named)
        limits: dict[str, str] = {}
        pairs = self._known_as(named, limits, now_ms)
        states = self._claims.load_entries(pairs, lease_value=term.lease_value, now_ms=now_ms, limits=limits)
        while several := list(islice(states, PUT_SLICE)):
            for alike in self._alike(named, several, points):
                try:
                    gaps += self._place(*alike, now_ms)
                except Exception as error:  # noqa: BLE001 - as in _known_as
                    for entry in alike[0]:
                        self._hold(entry.name, error, now_ms)
            self._on_turn()
        self._dispatcher.pass_over(gaps, term)
        self._dispatcher.report.ran(named)

    def _known_as(self, named: Mapping[str, Entry], limits: dict[str, str], now_ms: int) -> Iterator[tuple[str, str]]:
        """Yield name and fingerprint of each entry, and add its limits to ``limits``; hold back those that raise."""
        fingerprints = Fingerprints()
        for name, entry in named.items():
            try:
                pair, limited = known_as(entry, fingerprints), limits_text(entry.policies)
            except Exception as error:  # noqa: BLE001 - whatever an entry raises concerns that entry only
                self._without_state.add(name)
                self._hold(name, error, now_ms)
            else:
                if limited is not None:
                    limits[name] = limited
                yield pair

    def _hold(self, name: str, error: Exception, now_ms: int) -> None:
        self._heap.remove(name)
        self._held.hold(name, error, now_ms)

    def _alike(
        self, named: Mapping[str, Entry], states: Iterable[tuple[str, EntryState | Unreadable]], points: ResumePoints
    ) -> Iterable[_Alike]:
        """Entries that resume alike, and where; those that are not to run, or cannot, are taken out of the heap."""
        groups: dict[int, _Alike] = {}
        for name, state in states:
            entry = named[name]
            if isinstance(state, Unreadable):
                self._without_state.add(name)
                self._heap.remove(name)
                self._held.hold_for(name, f"{state}", points.now_ms, by_run=False)
            elif not entry.policies.enabled:
                self._heap.remove(name)
                if len(self._held):
                    self._held.forget([name])
            else:
                try:
                    point = points.of(entry, state)
                except Exception as error:  # noqa: BLE001 - as in _known_as
                    self._hold(name, error, points.now_ms)
                    continue
                group = groups.get(id(point))
                if group is None:
                    groups[id(point)] = [entry], point, state.last_due_ms
                else:
                    group[0].append(entry)
        return groups.values()

    def _place(self, entries: Sequence[Entry], point: ResumePoint, last_due_ms: int, now_ms: int) -> list[Gap]:
        """Put entries into the heap at their resume point; returns their gaps if it passes over missed runs."""
        after_ms = last_due_ms
        if point.passes_over and point.due_ms is not None:  # those that are passed over may be sent after all
            after_ms = point.due_ms - 1
        self._heap.put(entries, point.timeline, point.due_ms, remaining_runs=point.remaining_runs, after_ms=after_ms)
        for entry in entries if len(self._held) else ():
            due_ms = point.due_ms if entry.name in self._heap else None
            self._held.was_put(entry.name, due_ms, self._clock.now_ms())
        gap = _gap(point, last_due_ms, now_ms) if point.passes_over else None
        return [Gap(entry.name, *gap) for entry in entries] if gap else []

    def _try_again(self, term: Term, now_ms: int) -> None:
        """Put held-back entries whose next attempt is due into the heap."""
        names = self._held.due(now_ms)
        if names:
            self._resumed_in = 0  # should the store fail half way, the next turn builds the heap anew
            entries = self._entries
            self._held.forget(name for name in names if name not in entries)
            self._put({name: entries[name] for name in names if name in entries}, term, now_ms)
            self._resumed_in = term.token

    def _verify_term(self, term: Term, now_ms: int) -> None:
        """Verify every :data:`VERIFY_EVERY_MS` that the term holds and that the store has lost no confirmed write."""
        if now_ms >= self._verify_at_ms:
            self._verify_at_ms = now_ms + VERIFY_EVERY_MS
            self._claims.verify_term(lease_value=term.lease_value)

    def sweep(self, term: Term, now_ms: int) -> None:
        """Mark entries that left the schedule; delete, once an hour, the state of those that left it long ago."""
        self._mark_left(term, now_ms)
        self._sweep_at_ms = min(self._sweep_at_ms, now_ms + SWEEP_EVERY_MS)  # the clock may have been set back
        if now_ms < self._sweep_at_ms:
            return
        with self._handing_over:
            entries, unloaded = self._entries, len(self._changes.put) + len(self._without_state)
        self._sweep_at_ms = now_ms + SWEEP_EVERY_MS
        with self._swept_soon_if_away():
            swept = self._claims.sweep(
                entries, lease_value=term.lease_value, now_ms=now_ms, keep_ms=SWEEP_AFTER_MS, unloaded=unloaded
            )
        if swept:
            extra = {"event": "state_swept", "entries": swept[:10], "count": len(swept)}
            log.info("Deleted the state of entries that left the schedule long ago: %d", len(swept), extra=extra)

    def _mark_left(self, term: Term, now_ms: int) -> None:
        """Mark some of the entries that have been away for so long that their runs are missed, and not only late."""
        if not self._left:
            return
        until = self._clock.monotonic() - LATE_MS / 1000
        names = [name for name, _ in takewhile(lambda one: one[1] < until, islice(self._left.items(), MARKED_AT_ONCE))]
        for name in names:  # should the store refuse it, the next sweep marks them
            del self._left[name]
        if names:
            self._note_absence(names, (), term, now_ms)

    def _note_absence(self, gone: Sequence[str], back: Sequence[str], term: Term, now_ms: int) -> None:
        with self._swept_soon_if_away():
            self._claims.note_absence(gone, back, lease_value=term.lease_value, now_ms=now_ms)

    @contextmanager
    def _swept_soon_if_away(self) -> Iterator[None]:
        """Sweep when the store is back, if it went away: marks are missing. One that refuses is asked an hour later."""
        try:
            yield
        except (StoreUnavailable, TermLost):
            self._sweep_at_ms = 0
            raise

    def _offset_ms(self) -> int:
        return self._clock.now_ms() - int(self._clock.monotonic() * 1000)


def _gap(point: ResumePoint, last_due_ms: int, now_ms: int) -> tuple[int, int, int | None] | None:
    """Return the gap, but for the name, that an entry leaves which passes over missed runs, maybe its last ones."""
    before_ms = point.due_ms
    decided_ms = now_ms if before_ms is None or before_ms > now_ms else None
    if before_ms is None and (last_ms := latest_ms(point.timeline, after_ms=last_due_ms, until_ms=now_ms)) is not None:
        before_ms = last_ms + 1
    return None if before_ms is None else (last_due_ms, before_ms, decided_ms)
