"""Main loop of the daemon: one turn of each shard, one after the other, then sleep until the first has work.

:meth:`ShardLoop.step` turns due entries of one shard into messages, while this daemon leads it. It returns how long to
sleep; everything that could cut the sleep short (a term that begins, a new schedule, a signal) sets one event.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from types import MappingProxyType
from typing import NamedTuple

from beatd.beat.active_schedule import ActiveSchedule
from beatd.beat.dispatcher import Dispatcher
from beatd.beat.heap import DueHeap
from beatd.beat.manual_runs import ManualRuns
from beatd.beat.term import Leadership, Term
from beatd.clock import Backoff, Clock
from beatd.exceptions import BrokerError, StoreError, StoreRefused, StoreRolledBack, TermLost
from beatd.memory import without_collections
from beatd.model import Entry, Run
from beatd.planning.policies import Decision
from beatd.redaction import redacted_text
from beatd.store.claims import Claims
from beatd.store.keys import shard_of
from beatd.timestamps import span_text

log = logging.getLogger("beatd.beat")

TURN, TURNS = 5_000, 20
"""Runs dispatched before the heap moves on and the term is looked at again; and how often, before a step ends."""

FIRST_TURN = 350
"""Runs of the first turn of a step, three batches: before a turn begins, all of its runs are looked at, and the first
messages of a herd would wait for that."""

STEP_S = 5.0
"""Seconds after which a step ends although more runs are due: other shards wait, and a slow store never catches up."""

PREPARE_MS, PREPARE_SPARE_MS, PREPARE_SLICE = 5_000, 50, 200
"""Messages are rendered ahead for runs that are due between these times (ms) from now; so many at once."""

_PROBLEM_MAX = 2_000
"""Characters of an error that are shown."""

TURN_SPACING_MS = 2
"""Time between the beginnings of two turns, at least: runs that are due one after the other leave together. A call of
the store takes about as long for ten runs as for one. Turns begin with a millisecond, as runs do: no run waits for more
than one of them."""

FEW, ON_TIME_MS = 50, 100
"""A turn ends after fewer runs than this, none later than this; runs that come due meanwhile leave with the next."""

SWITCH_INTERVAL_S = 0.0005
"""Time after which another thread gives the interpreter to the loop, when both have work. With Python's own 5 ms, runs
would wait for that long after each answer of the store, while outcomes are read."""

SLEEP_MAX = 1.0
"""Seconds; the loop turns at least this often, which feeds the watchdog and finds clock steps."""

RETRY_MIN, RETRY_MAX = 0.05, 2.0
"""Seconds between attempts while the store refuses or does not answer."""


_NONE: Mapping[str, Entry] = MappingProxyType({})


class Problem(NamedTuple):
    """Reason why turns fail, and since when (monotonic seconds)."""

    text: str
    since: float


class ShardLoop:
    """Loop of one shard. Owns its heap; everything else is handed in.

    ``on_turn`` is called whenever it has made progress: that feeds the watchdog.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        leadership: Leadership,
        claims: Claims,
        dispatcher: Dispatcher,
        heap: DueHeap,
        manual: ManualRuns | None = None,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._manual = manual
        self._leadership = leadership
        self._dispatcher = dispatcher
        self._heap = heap
        self._on_turn = on_turn
        self.schedule = ActiveSchedule(clock, claims, dispatcher, heap, on_turn=on_turn)
        """The schedule in force: another one is handed to it from any thread."""
        self.problem: Problem | None = None
        """Reason why the last turn failed, if it did. Read by other threads."""
        self._preparing_for = 0
        self._to_prepare: Iterator[Run] = iter(())
        self._backoff = Backoff(RETRY_MIN, RETRY_MAX)
        self._not_before = 0.0
        """No step begins before this (monotonic seconds), unless a new term does."""
        self._term: Term | None = None
        """The term of the step under way, or of the last one."""
        self._late_since_ms: int | None = None
        """When the earliest run should have left that a failed turn has delayed."""

    def look_for_run_requests(self) -> None:
        """Look for requests for runs at the next turn. May be called from any thread."""
        if self._manual:
            self._manual.look_at_next_turn()

    def turn(self) -> float:
        """Run a :meth:`step`; returns the seconds to sleep. Errors are logged and retried, they never end the loop.

        After an error nothing is tried before its pause is over, however often other shards turn meanwhile. A new term
        is tried at once.
        """
        if (left := self._not_before - self._clock.monotonic()) > 0 and not self._is_new(self._leadership.term()):
            return left
        try:
            seconds = self.step()
        except TermLost as error:
            return self._lose_term(error)
        except StoreRolledBack as error:
            self._note_lateness()
            log.error("%s; reading it again", error, extra={"event": "store_went_back"})  # noqa: TRY400 - no traceback
            self.schedule.rebuild()
            return 0.0
        except (StoreError, BrokerError) as error:
            self._note_problem(str(error))
            return self._back_off(error)
        except Exception as error:
            self._note_problem(f"unexpected error: {type(error).__name__}; see the log of the daemon")
            self._note_lateness()
            self.schedule.rebuild()  # nobody knows how far it got
            log.exception("A turn failed in an unexpected way; trying again", extra={"event": "beat_error"})
            return self._pause(RETRY_MAX)
        finally:
            self._on_turn()
        if self.problem is not None and self._leadership.term() is not None:  # without a term nothing was tried
            away_s = self._clock.monotonic() - self.problem.since
            extra = {"event": "beat_recovered", "seconds": round(away_s, 1), "attempts": self._backoff.attempts}
            log.info("Runs are dispatched again, after %s", span_text(int(away_s * 1000)), extra=extra)
        self._backoff.succeeded()
        self.problem = None
        self._late_since_ms = None
        self._not_before = 0.0
        return seconds

    def _is_new(self, term: Term | None) -> bool:
        """True if a term is another one than that of the last step, or if there is none now."""
        return term is None or self._term is None or term.token != self._term.token

    def _pause(self, seconds: float) -> float:
        """Let no step begin for some seconds; returns them."""
        self._not_before = self._clock.monotonic() + seconds
        return seconds

    @property
    def held(self) -> int:
        """Number of entries that are held back. May be asked from any thread."""
        return len(self._dispatcher.held)

    def led(self) -> Mapping[str, Entry]:
        """The entries of the shard, by name, while this daemon leads it, else none. May be asked from any thread.

        Also while the term is not trusted: until it ends, a watcher keeps what it knows of the entries.
        """
        return self.schedule.entries if self._leadership.token is not None else _NONE

    def ran_since(self) -> Iterable[str]:
        """Return the entries that have had runs since this was asked before. May be asked from another thread."""
        return self._dispatcher.report.ran_since()

    def next_fire_ms(self, name: str) -> int | None:
        """Return when the next run of an entry leaves, while this daemon leads. May be asked from any thread."""
        return self._heap.fire_ms_of(name) if self._leadership.term() is not None else None

    @property
    def oldest_due_ms(self) -> int | None:
        """Fire time (ms) of the earliest run that waits, while this daemon leads.

        Entries that are held back do not count. May be asked from any thread.
        """
        term = self._leadership.term()
        if term is None:
            return None
        waits_ms = self._heap.next_fire_ms() if self.schedule.is_in_force(term) else None
        return min((ms for ms in (waits_ms, self._late_since_ms) if ms is not None), default=None)

    def _note_lateness(self) -> None:
        """Note since when runs are late, as a turn failed: the heap, which would tell, may be built anew meanwhile."""
        if self._late_since_ms is None:
            now_ms, next_ms = self._clock.now_ms(), self._heap.next_fire_ms()
            self._late_since_ms = now_ms if next_ms is None else min(next_ms, now_ms)

    def _note_problem(self, text: str) -> None:
        since = self._clock.monotonic() if self.problem is None else self.problem.since
        self.problem = Problem(redacted_text(text, at_most=_PROBLEM_MAX), since)

    def step(self) -> float:
        """Dispatch what is due, once; returns the seconds to sleep."""
        term = self._term = self._leadership.term()
        if term is None:
            return SLEEP_MAX  # the elector wakes us when a term begins
        # First the leftovers of a leader before us, or of a broker that was down. Until they are gone nothing more is
        # claimed; catch-up decides about what is missed meanwhile.
        if not self._dispatcher.flush(term):
            return 0.0
        self.schedule.follow(term, self._clock.now_ms())
        held = self._dispatcher.held
        until = self._clock.monotonic() + STEP_S
        for number in takewhile(lambda _: self._clock.monotonic() < until, range(TURNS)):
            now_ms = self._clock.now_ms()
            runs = self._heap.due(now_ms, at_most=TURN if number else FIRST_TURN)
            if number and not self._dispatcher.flush(term, more_comes=bool(runs)):
                return 0.0
            if not runs:
                break
            is_last = len(runs) < FEW and now_ms - runs.earliest_fire_ms < ON_TIME_MS
            entries = runs.entries
            for decisions in self._dispatcher.dispatch(runs, term, until=until):  # claims batch by batch, or raises
                for entry, error in self._heap.advance(decisions):  # memory moves after the store has
                    held.hold(entry.name, error, self._clock.now_ms())
                self.schedule.load_again(_uncounted(entries, decisions))
                self._on_turn()  # a slow store may take seconds for each batch
            if (later := self._leadership.term()) is None or later.token != term.token:
                return 0.0
            if is_last:
                break
            held.note(term, self._clock.now_ms())
        else:
            self._after_runs(term)
            return 0.0
        return min(self._after_runs(term), self._until_next_due(), held.pause(self._clock.now_ms()))

    def _after_runs(self, term: Term) -> float:
        """Send manual runs and sweep the store; returns the seconds until the next manual run."""
        self._dispatcher.held.note(term, self._clock.now_ms())
        manual_in = self._manual.turn(term, self.schedule.entry) if self._manual else SLEEP_MAX
        self.schedule.sweep(term, self._clock.now_ms())
        return manual_in if self._dispatcher.flush(term) else 0.0  # the loop may end here

    def _until_next_due(self) -> float:
        instant = self._heap.next_fire_ms()
        if instant is None:
            return SLEEP_MAX
        left = self._clock.seconds_until(instant)
        if PREPARE_SPARE_MS < left * 1000 < PREPARE_MS and self._prepare(instant):
            return 0.0
        return min(max(left, 0.0), SLEEP_MAX)

    def _prepare(self, instant: int) -> bool:
        """Render some of the messages of a coming instant ahead; True if there may be more."""
        if instant != self._preparing_for:
            self._preparing_for, self._to_prepare = instant, self._heap.runs_at(instant)
        runs = list(islice(self._to_prepare, PREPARE_SLICE))
        for run in runs:
            self._dispatcher.prepare(run)
        return bool(runs)

    def _lose_term(self, error: TermLost) -> float:
        if self._term is not None:  # the elector may have won another one meanwhile
            self._leadership.lose(self._term)
        log.warning("%s", error, extra={"event": "fenced_off"})
        return 0.0

    def _back_off(self, error: StoreError | BrokerError) -> float:
        self._note_lateness()
        pause = self._backoff.failed()
        event = "broker_unavailable" if isinstance(error, BrokerError) else error.word
        if isinstance(error, StoreRefused):
            self.schedule.rebuild()  # what was read before may be what is wrong now
        extra = {"event": event, "attempt": self._backoff.attempts, "since": self._backoff.since}
        text = "%s%s; trying again in %.2f s"
        log.log(self._backoff.level, text, error, self._backoff.since_text, pause, extra=extra)
        return self._pause(pause)


def _uncounted(entries: Iterator[Entry], decisions: Sequence[Decision]) -> list[str]:
    """Entries with ``max_runs`` of which a run was claimed before: only the store knows if it was sent."""
    decided = zip(decisions, entries, strict=False)  # in this order: the next entry is of the next batch
    return [
        entry.name for decision, entry in decided if decision.claimed_before and entry.policies.max_runs is not None
    ]


def _by_shard(entries: Sequence[Entry], shards: int) -> list[list[Entry]]:
    parts: list[list[Entry]] = [[] for _ in range(shards)]
    for entry in entries:
        parts[shard_of(entry.name, shards)].append(entry)
    return parts


class DaemonLoop:
    """Loop of the daemon, in the thread that calls :meth:`run`. Setting ``wake`` cuts its sleep short."""

    def __init__(self, shards: Sequence[ShardLoop], clock: Clock, wake: threading.Event) -> None:
        self._shards = shards
        self._clock = clock
        self._wake = wake
        self.stopping = False
        """True after :meth:`stop`."""

    def replace(self, entries: Sequence[Entry]) -> None:
        """Put another schedule in force at the next turn: to each shard its own. May be called from any thread."""
        parts = [entries] if len(self._shards) == 1 else _by_shard(entries, len(self._shards))
        for shard, part in zip(self._shards, parts, strict=True):
            shard.schedule.replace(part)
        self._wake.set()

    def amend(self, put: Mapping[str, Entry], gone: Iterable[str]) -> None:
        """Change some entries of the schedule at the next turn. May be called from any thread."""
        changes: list[tuple[dict[str, Entry], set[str]]] = [({}, set()) for _ in self._shards]
        for name, entry in put.items():
            changes[shard_of(name, len(changes))][0][name] = entry
        for name in gone:
            changes[shard_of(name, len(changes))][1].add(name)
        for shard, (own, lost) in zip(self._shards, changes, strict=True):
            if own or lost:
                shard.schedule.amend(own, lost)
        self._wake.set()

    def look_for_run_requests(self) -> None:
        """Look for requests for runs at the next turn. May be called from any thread."""
        for shard in self._shards:
            shard.look_for_run_requests()
        self._wake.set()

    def run(self) -> None:
        """Turn until :meth:`stop`."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        while not self.stopping:
            self._wake.clear()
            began_ms = self._clock.now_ms()
            seconds = self._turn()
            if not self.stopping:
                spacing = min(self._clock.seconds_until(began_ms + TURN_SPACING_MS), TURN_SPACING_MS / 1000)
                self._clock.wait(self._wake, max(seconds, spacing))

    def _turn(self) -> float:
        """One turn of each shard. Garbage waits until it is over: to collect it in a herd delays all messages by tens
        of milliseconds."""
        with without_collections():
            return min([shard.turn() for shard in self._shards])

    def stop(self) -> None:
        """End :meth:`run` after the current turn. May be called from a signal handler."""
        self.stopping = True
        self._wake.set()
