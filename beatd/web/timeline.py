"""Timeline: the load of the coming day or week by the minute, and what ran in the past day above what was planned."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from operator import add
from typing import Any

import msgspec

from beatd.clock import Clock
from beatd.model import Entry
from beatd.planning.load import DAY_MS, MINUTE_MS, Load, clock_changes, closed_times, load
from beatd.planning.preview import counts_from_first_seen
from beatd.planning.simulation import TooManyRuns
from beatd.schedules import bind
from beatd.timestamps import from_ms, iso_ms
from beatd.web.entries import EntryListing
from beatd.web.store_view import StoreView

WINDOWS = {"24h": (DAY_MS, MINUTE_MS), "7d": (7 * DAY_MS, 15 * MINUTE_MS)}
"""Length and step of each window."""
PAST_STEP_MS = 15 * MINUTE_MS
SHARED_MS = 60_000
"""Time for which a timeline holds: it begins at a full minute."""
_LIMIT = 2_000_000
"""Runs that are computed at most."""
_NAMED = 5


class Timeline:
    """Timelines of the entries in force. Raises :class:`~beatd.exceptions.StoreError`."""

    def __init__(self, schedule: EntryListing, store: StoreView, clock: Clock) -> None:
        self._schedule, self._store, self._clock = schedule, store, clock
        self._computing = threading.Lock()
        self._entries: tuple[Entry, ...] = ()
        self._now_ms = 0
        self._past: dict[str, Any] = {}
        self._known: dict[str, dict[str, Any]] = {}

    def document(self, window: str) -> dict[str, Any]:
        """The timeline of a window of :data:`WINDOWS`; computed once a minute, by one thread."""
        entries, now_ms = self._schedule.listing.entries, self._clock.now_ms() // SHARED_MS * SHARED_MS
        with self._computing:
            if entries is not self._entries or now_ms != self._now_ms:
                past = self._past_of(self._phased(entries, now_ms), now_ms)
                self._entries, self._now_ms, self._past, self._known = entries, now_ms, past, {}
            if window not in self._known:
                coming = self._compute(self._phased(entries, now_ms), now_ms, *WINDOWS[window])
                self._known[window] = {**coming, "past": self._past}
            return self._known[window]

    def _phased(self, entries: Sequence[Entry], now_ms: int) -> list[Entry]:
        """The entries, of which intervals are counted from when a daemon first saw them."""
        states = self._store.states(entries, now_ms=now_ms)
        return [
            msgspec.structs.replace(entry, schedule=bind(entry.schedule, from_ms(state.first_seen_ms)))
            if state is not None and counts_from_first_seen(entry)
            else entry
            for entry, state in zip(entries, states, strict=True)
        ]

    def _compute(self, entries: Sequence[Entry], now_ms: int, length_ms: int, step_ms: int) -> dict[str, Any]:
        start_ms = now_ms // step_ms * step_ms
        end_ms = start_ms + length_ms
        try:
            coming, problem = load(entries, start_ms, end_ms, step_ms, limit=_LIMIT), None
        except TooManyRuns:
            text = f"more than {_LIMIT:,} different runs: take the shorter window, or see beatd simulate"
            coming, problem = Load(start_ms, end_ms, step_ms, [], []), text
        changes = clock_changes(entries, start_ms, end_ms)
        return {
            **_load_facts(coming),
            "busiest": [
                {
                    "at": iso_ms(one.second * 1000),
                    "runs": one.runs,
                    "entries": [{"entry": name, "runs": count} for name, count in one.entries],
                }
                for one in coming.busiest
            ],
            "blackouts": [
                {
                    "blackout": one.blackout.notation,
                    "entries": one.entries[:_NAMED],
                    "entries_count": len(one.entries),
                    "spans": [{"from": iso_ms(first), "to": iso_ms(last)} for first, last in one.spans],
                }
                for one in closed_times(entries, start_ms, end_ms)
            ],
            "clock_changes": [
                {
                    "timezone": one.timezone,
                    "at": iso_ms(one.at_ms),
                    "before_s": one.before_s,
                    "after_s": one.after_s,
                    "entries": one.entries,
                }
                for one in changes
            ],
            "problem": problem,
        }

    def _past_of(self, entries: Sequence[Entry], now_ms: int) -> dict[str, Any]:
        end_ms = now_ms // PAST_STEP_MS * PAST_STEP_MS + PAST_STEP_MS
        start_ms = end_ms - DAY_MS
        try:
            planned = load(entries, start_ms, end_ms, PAST_STEP_MS, limit=_LIMIT, busiest=0).counts
        except TooManyRuns:
            planned = []
        departures = self._store.departures([entry.name for entry in entries])
        return {
            "from": iso_ms(start_ms),
            "to": iso_ms(end_ms),
            "step_ms": PAST_STEP_MS,
            "planned": planned,
            **_ran(departures, start_ms, DAY_MS // PAST_STEP_MS),
        }


def _load_facts(found: Load) -> dict[str, Any]:
    return {
        "from": iso_ms(found.from_ms),
        "to": iso_ms(found.to_ms),
        "step_ms": found.step_ms,
        "runs": sum(found.counts),
        "counts": found.counts,
    }


def _ran(departures: Sequence[tuple[int, str]], start_ms: int, steps: int) -> dict[str, list[int]]:
    """Runs that were sent, that failed and that were left out, by steps; as far as the histories remember."""
    counts = Counter(((at_ms - start_ms) // PAST_STEP_MS, word) for at_ms, word in departures)
    found = {word: [counts[step, word] for step in range(steps)] for word in ("sent", "failed", "skipped")}
    return {**found, "sent": list(map(add, found["sent"], found["failed"]))}
