"""Entries that run together, walked as one: what makes a simulation of many entries quick."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from beatd.beat.verdict import Skip
from beatd.cli.preview import Upcoming, counts_from_first_seen, foreseen, upcoming
from beatd.epoch import from_ms
from beatd.model import Entry
from beatd.schedules import Schedule, dst_note
from beatd.schedules.cron import Cron
from beatd.schedules.interval import Interval, Relative
from beatd.schedules.union import Union
from beatd.schedules.zone import Zone
from beatd.timeline import timeline

_MARGIN_S = 26 * 3600
"""A run that a change of the clock moved is nearer to the change than this."""


class Totals(NamedTuple):
    """What one entry does in the window. Times in ms since the epoch."""

    entry: Entry
    sent: int
    skipped: dict[Skip, int]
    moved: int
    """Runs that were moved out of an hour that the clock skips."""
    overlaps: int
    """Runs that leave before the one before them need have ended, by the entry's ``max_runtime``."""
    first_overlap_ms: int | None


class Track:
    """Entries with equal schedules, and nothing of their own that would set one apart from the others."""

    def __init__(self, entries: Sequence[Entry], window_ms: int) -> None:
        self.entries = entries
        self._entry = entry = entries[0]
        self._window_ms = window_ms
        self.line: Schedule = timeline(entry, window_ms)
        first_after = window_ms if counts_from_first_seen(entry) else window_ms - 1
        self.due_ms = self.line.next_after_ms(first_after)
        self._left = entry.policies.max_runs
        self._plain = self._is_plain()
        self._zones = _zones(entry.schedule)
        self._sent = self._moved = self._overlaps = 0
        self._skipped: Counter[Skip] = Counter()
        self._last_fire_ms: int | None = None
        self._first_overlap_ms: int | None = None

    def walk(self, end_ms: int, seconds: Counter[int]) -> int:
        """Take the runs that are due before ``end_ms``, count them in the seconds in which they leave; tells how many
        were computed."""
        if self.due_ms is None or self.due_ms >= end_ms:
            return 0
        near_a_change = self._may_be_moved(self.due_ms // 1000, end_ms // 1000)
        if self._plain and not near_a_change:
            return self._walk_plain(end_ms, seconds)
        walked = 0
        while self.due_ms is not None and self.due_ms < end_ms:
            run = foreseen(self._entry, self.line, self.due_ms)
            self._moved += near_a_change and dst_note(self._entry.schedule, run.due_at) == "gap"
            self._take(run, seconds)
            self.due_ms = None if self._left == 0 else self.line.next_after_ms(self.due_ms)
            walked += 1
        return walked

    def leaving_in(self, second: int) -> int:
        """How many runs of each of the entries leave in that second."""
        entry, after_ms = self._entry, self._window_ms - 1
        if entry.policies.max_runs is None and not _is_chain(entry.schedule):
            after_ms = max(after_ms, second * 1000 - entry.policies.jitter_ms - 1)
        count = 0
        for run in upcoming(entry, after_ms, first_seen_ms=self._window_ms):
            if run.due_ms >= (second + 1) * 1000:
                break
            count += run.skip is None and run.fire_ms // 1000 == second
        return count

    def at_least(self, length_ms: int) -> int:
        """How many runs a window of that length surely holds, as far as can be said without walking."""
        schedule, policies = self._entry.schedule, self._entry.policies
        if not isinstance(schedule, Interval) or policies.start or policies.end or policies.max_runs:
            return 0
        return length_ms // schedule.every_ms

    def totals(self) -> Iterator[Totals]:
        """What each of the entries did so far."""
        for entry in self.entries:
            skipped = dict(self._skipped)
            yield Totals(entry, self._sent, skipped, self._moved, self._overlaps, self._first_overlap_ms)

    def _walk_plain(self, end_ms: int, seconds: Counter[int]) -> int:
        """The same for runs that all are sent when they are due: a year of seconds is 30 million of them."""
        due, next_after, size, walked = self.due_ms, self.line.next_after_ms, len(self.entries), 0
        runtime_ms, last_ms = self._entry.policies.max_runtime_ms or 0, self._last_fire_ms
        while due is not None and due < end_ms:
            seconds[due // 1000] += size
            if last_ms is not None and due - last_ms < runtime_ms:
                self._overlap(due)
            last_ms = due
            due = next_after(due)
            walked += 1
        self.due_ms, self._last_fire_ms = due, last_ms
        self._sent += walked
        return walked

    def _take(self, run: Upcoming, seconds: Counter[int]) -> None:
        if run.skip is not None:
            self._skipped[run.skip] += 1
            return
        self._sent += 1
        seconds[run.fire_ms // 1000] += len(self.entries)
        if self._left is not None:
            self._left -= 1
        runtime_ms, last_ms = self._entry.policies.max_runtime_ms or 0, self._last_fire_ms
        if last_ms is not None and run.fire_ms - last_ms < runtime_ms:
            self._overlap(run.fire_ms)
        self._last_fire_ms = run.fire_ms

    def _overlap(self, at_ms: int) -> None:
        self._overlaps += 1
        if self._first_overlap_ms is None:
            self._first_overlap_ms = at_ms

    def _is_plain(self) -> bool:
        policies, expires = self._entry.policies, self._entry.options.expires
        apart = (policies.jitter_ms, policies.blackout, policies.max_runs)
        return not any(apart) and not isinstance(expires, datetime)

    def _may_be_moved(self, start: int, end: int) -> bool:
        return any(zone.span(start - _MARGIN_S).end < end + _MARGIN_S for zone in self._zones)


def tracks(entries: Sequence[Entry], window_ms: int) -> list[Track]:
    """The enabled entries as tracks that begin at ``window_ms``."""
    alike: dict[object, list[Entry]] = {}
    for entry in entries:
        policies, expires = entry.policies, entry.options.expires
        if not policies.enabled:
            continue
        own = entry.name if policies.jitter_ms else None
        until = expires if isinstance(expires, datetime) else None
        bounds = (policies.start, policies.end, policies.max_runs, policies.max_runtime_ms)
        key = (own, entry.schedule, bounds, policies.blackout and id(policies.blackout), until)
        alike.setdefault(key, []).append(entry)
    return [Track(group, window_ms) for group in alike.values()]


def _zones(schedule: Schedule) -> list[Zone]:
    parts = schedule.parts if isinstance(schedule, Union) else (schedule,)
    return list({part.zone for part in parts if isinstance(part, Cron) and part.fixed and not part.zone.is_utc})


def _is_chain(schedule: Schedule) -> bool:
    """Whether each run depends on the one before, so that one cannot begin in the middle."""
    parts = schedule.parts if isinstance(schedule, Union) else (schedule,)
    return any(isinstance(part, Relative) for part in parts)


def window_text(ms: int) -> str:
    """A moment of the window, for people."""
    return f"{from_ms(ms):%Y-%m-%d %H:%M:%S} UTC"
