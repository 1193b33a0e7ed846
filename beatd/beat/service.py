"""The beat of one shard: it turns due entries into messages, while this daemon leads.

:meth:`Beat.step` is the whole of it. It returns how long to sleep, and everything that could cut the sleep short (a
term that begins, a new schedule, a signal) sets one event. :mod:`~beatd.beat.loop` sleeps.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice

from beatd.beat.catchup import LATE_MS, first_due
from beatd.beat.changes import Changes, fingerprints
from beatd.beat.dispatcher import Dispatcher
from beatd.beat.heap import DueHeap
from beatd.beat.seat import Seat, Term
from beatd.clock import Clock
from beatd.exceptions import BrokerError, StoreError, StoreRefused, StoreWentBack, TermLost
from beatd.model import Entry
from beatd.store.claims import Claims, EntryState, Gap
from beatd.timeline import timeline

log = logging.getLogger("beatd.beat")

TURN = 5_000
"""Runs dispatched before the heap moves on and the term is looked at again."""

PREPARE_MS, PREPARE_SPARE_MS, PREPARE_SLICE = 5_000, 50, 200
"""Messages of runs that come due between so many milliseconds from now are made ready, so many at once."""

PUT_SLICE = 1_000
"""Entries put into the heap between two signs of life."""

SWEEP_EVERY_MS, SWEEP_AFTER_MS = 3_600_000, 30 * 86_400_000
"""How often the state of entries that left the schedule is looked at, and when it is forgotten."""

LOOK_AFTER_MS = 10_000
"""How often a leader looks after the state that it claimed, and after what it could not read."""

SLEEP_MAX = 1.0
"""Seconds; the loop turns at least this often, which feeds the watchdog and finds clock steps."""

CLOCK_STEP_MS = 500
"""A larger difference between wall and monotonic time from one turn to the next is a step, not a drift."""

RETRY_MIN, RETRY_MAX = 0.05, 2.0
"""Seconds between attempts while the store refuses or does not answer."""


class Beat:
    """One shard's part of the daemon's loop. Owns its heap; everything else is handed in.

    ``on_turn`` is called whenever it has got on: what feeds the watchdog.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        elector: Seat,
        claims: Claims,
        dispatcher: Dispatcher,
        heap: DueHeap,
        wake: threading.Event,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._elector = elector
        self._claims = claims
        self._dispatcher = dispatcher
        self._heap = heap
        self._wake = wake
        self._on_turn = on_turn
        self._entries: dict[str, Entry] = {}
        self._changes = Changes()
        self._replacing = threading.Lock()
        self._handing_over = threading.Lock()
        self._resumed_in = 0  # the token of the term in which the heap was built
        self._unreadable: set[str] = set()  # entries whose state the store has, and nobody can read
        self._look_after_at_ms = 0
        self._sweep_at_ms = 0
        self._preparing_for = 0
        self._to_prepare: Iterator[Entry] = iter(())
        self._clock_offset_ms = self._offset_ms()
        self._failures = 0

    def replace(self, entries: Iterable[Entry]) -> None:
        """Put another schedule in force at the next turn. May be called from any thread.

        What changed is found out here, in the caller's thread: for a large schedule that takes longer than a turn may.
        """
        incoming = {entry.name: entry for entry in entries}
        with self._replacing:
            changes = Changes.between(self._entries, incoming)
            with self._handing_over:
                self._entries = incoming
                self._changes = self._changes.then(changes)
        self._wake.set()

    def turn(self) -> float:
        """A :meth:`step` that outlives store and broker: errors are said and waited out, they never end the loop."""
        try:
            seconds = self.step()
        except TermLost as error:
            return self._lose_term(error)
        except StoreWentBack as error:
            log.error("%s; reading it again", error, extra={"event": "store_went_back"})  # noqa: TRY400 - no traceback
            self._resumed_in = 0
            return 0.0
        except (StoreError, BrokerError) as error:
            return self._back_off(error)
        except Exception:
            log.exception("A turn failed in an unexpected way; trying again", extra={"event": "beat_error"})
            return RETRY_MAX
        finally:
            self._on_turn()
        self._failures = 0
        return seconds

    def step(self) -> float:
        """One turn of the beat; returns the seconds to sleep."""
        term = self._elector.term()
        if term is None:
            return SLEEP_MAX  # the elector wakes us when a term begins
        # What a leader before us, or a broker that was down, left behind. Until that is gone nothing more is claimed;
        # what is missed meanwhile is left to catch-up.
        if not self._dispatcher.flush(term):
            return 0.0
        now_ms = self._clock.now_ms()
        if self._must_resume(term, now_ms):
            self._resume(term, now_ms)
        else:
            self._take_in(term, now_ms)
            self._look_after(term, now_ms)
        while runs := self._heap.due(now_ms, at_most=TURN):
            outcomes = self._dispatcher.dispatch(runs, term)  # claims and pushes; raises and changes nothing otherwise
            self._heap.advance(outcomes)  # memory moves after the store has
            self._on_turn()
            if (term := self._elector.term()) is None or not self._dispatcher.flush(term):
                return 0.0
        return self._until_next_due()

    def _until_next_due(self) -> float:
        instant = self._heap.next_fire_ms()
        if instant is None:
            return SLEEP_MAX
        left_ms = instant - self._clock.now_ms()
        if PREPARE_SPARE_MS < left_ms < PREPARE_MS and self._prepare(instant):
            return 0.0
        return min(max(left_ms / 1000, 0.0), SLEEP_MAX)

    def _prepare(self, instant: int) -> bool:
        """Make some of the messages of a coming instant ready; tells whether there may be more to do."""
        if instant != self._preparing_for:
            self._preparing_for, self._to_prepare = instant, self._heap.entries_at(instant)
        entries = list(islice(self._to_prepare, PREPARE_SLICE))
        for entry in entries:
            self._dispatcher.prepare(entry)
        return bool(entries)

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

    def _put(self, entries: Iterable[Entry], term: Term, now_ms: int) -> None:
        named = {entry.name: entry for entry in entries}
        known_as = list(fingerprints(named.values()))
        states = self._claims.adopt(known_as, lease_value=term.lease_value, now_ms=now_ms)
        gaps = []
        for number, (name, state) in enumerate(states):
            if gap := self._place(named.pop(name), state, now_ms):
                gaps.append(gap)
            if number % PUT_SLICE == 0:
                self._on_turn()
        self._dispatcher.pass_over(gaps, term)
        self._unreadable |= named.keys()

    def _place(self, entry: Entry, state: EntryState, now_ms: int) -> Gap | None:
        """Put an entry where it goes on; returns what it passes over on the way there."""
        policies = entry.policies
        if not policies.enabled:
            self._heap.remove(entry.name)
            return None
        line = timeline(entry, state.first_seen_ms)
        due_ms, passes_over = first_due(line, policies, last_due_ms=state.last_due_ms, now_ms=now_ms)
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

    def _lose_term(self, error: TermLost) -> float:
        term = self._elector.term()
        if term is not None:
            self._elector.lose(term)
        log.warning("%s", error, extra={"event": "fenced_off"})
        return 0.0

    def _back_off(self, error: StoreError | BrokerError) -> float:
        self._failures += 1
        pause: float = min(RETRY_MIN * 2.0 ** min(self._failures - 1, 10), RETRY_MAX)
        event = "broker_unavailable" if isinstance(error, BrokerError) else "store_unavailable"
        if isinstance(error, StoreRefused):
            event = "store_refused"
            self._resumed_in = 0  # what was read before may be what is wrong now
        extra = {"event": event, "attempt": self._failures}
        log.warning("%s; trying again in %.2f s", error, pause, extra=extra)
        return pause

    def _offset_ms(self) -> int:
        return self._clock.now_ms() - int(self._clock.monotonic() * 1000)
