"""Simulation: a window of time run through ahead of time; how many runs each entry has, and when most of them leave.

Entries that run together are walked as one. The runs are walked slice by slice and only counted, so that a year takes
no more memory than a day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from heapq import nlargest
from typing import NamedTuple

from beatd.exceptions import BeatdError
from beatd.model import Entry, EntryState
from beatd.planning.catchup import ResumePoints
from beatd.planning.policies import Skip
from beatd.planning.preview import Upcoming, counts_from_first_seen, upcoming
from beatd.schedules import Schedule, dst_note, is_chain
from beatd.schedules.cron import Cron
from beatd.schedules.interval import Interval
from beatd.schedules.schedule import Union
from beatd.schedules.timezone import Zone
from beatd.timestamps import from_ms, utc_text

_MARGIN_S = 26 * 3600
"""A run that a change of the clock moved is nearer to the change than this."""


class Totals(NamedTuple):
    """Totals of one entry in the window. Times in ms since the epoch."""

    entry: Entry
    sent: int
    skipped: dict[Skip, int]
    moved: int
    """Runs that were moved out of an hour that the clock skips."""
    overlaps: int
    """Runs that leave before the one before them need have ended, by the entry's ``max_runtime``."""
    first_overlap_ms: int | None


class EntryGroup:
    """Entries with equal schedules, and nothing of their own that would set one apart from the others.

    If all of its runs are sent when they are due it is *plain*: they are counted by their due times alone, as a year of
    seconds is 30 million of them. Else each run is planned, as :func:`~beatd.planning.preview.upcoming` does.
    """

    def __init__(self, entries: Sequence[Entry], window_ms: int) -> None:
        self.entries = entries
        self._entry = entry = entries[0]
        self._window_ms = window_ms
        points, state = ResumePoints(window_ms - 1), window_state(entry, window_ms)
        self._line, self._due_ms, *_ = points.of(entry, state)
        self._first_ms = self._due_ms
        self._runs = upcoming(entry, state, points)
        self._plain = self._is_plain()
        self._is_countable = self._plain and not is_chain(entry.schedule)
        self._run = None if self._plain else next(self._runs, None)
        self._zones = _zones(entry.schedule)
        self._sent = self._moved = self._overlaps = 0
        self._skipped: Counter[Skip] = Counter()
        self._last_fire_ms: int | None = None
        self._first_overlap_ms: int | None = None

    def walk(self, end_ms: int, seconds: Counter[int]) -> int:
        """Take the runs that are due before ``end_ms``, count them in the seconds in which they leave; tells how many
        were computed."""
        if self._plain:
            return self._walk_plain(end_ms, seconds)
        walked, run = 0, self._run
        if run is None or run.due_ms >= end_ms:
            return 0
        near_a_change = self._may_be_moved(run.due_ms // 1000, end_ms // 1000)
        while run is not None and run.due_ms < end_ms:
            self._moved += near_a_change and dst_note(self._entry.schedule, run.due_at) == "gap"
            self._take(run, seconds)
            run = next(self._runs, None)
            walked += 1
        self._run = run
        return walked

    def leaving_in(self, second: int) -> int:
        """Return how many runs of each of the entries leave in that second."""
        if self._is_countable:
            return self._plain_in(second)
        entry, state = self._entry, window_state(self._entry, self._window_ms)
        if entry.policies.max_runs is None and not is_chain(entry.schedule):
            near_ms = second * 1000 - entry.policies.jitter_ms - 1
            state = state._replace(last_due_ms=max(state.last_due_ms, near_ms))
        count = 0
        for run in upcoming(entry, state, ResumePoints(state.last_due_ms)):
            if run.due_ms >= (second + 1) * 1000:
                break
            count += run.skip is None and run.fire_ms // 1000 == second
        return count

    def at_least(self, length_ms: int) -> int:
        """Lower bound of the runs in a window of that length, without walking it."""
        schedule, policies = self._entry.schedule, self._entry.policies
        if not isinstance(schedule, Interval) or policies.start or policies.end or policies.max_runs:
            return 0
        return length_ms // schedule.every_ms

    def totals(self) -> Iterator[Totals]:
        """Return the totals of each entry so far."""
        for entry in self.entries:
            skipped = dict(self._skipped)
            yield Totals(entry, self._sent, skipped, self._moved, self._overlaps, self._first_overlap_ms)

    def _walk_plain(self, end_ms: int, seconds: Counter[int]) -> int:
        due, next_after, size, walked = self._due_ms, self._line.next_after_ms, len(self.entries), 0
        if due is None or due >= end_ms:
            return 0
        near_a_change = self._may_be_moved(due // 1000, end_ms // 1000)
        runtime_ms, last_ms = self._entry.policies.max_runtime_ms or 0, self._last_fire_ms
        while due is not None and due < end_ms:
            seconds[due // 1000] += size
            if near_a_change:
                self._moved += dst_note(self._entry.schedule, from_ms(due)) == "gap"
            if last_ms is not None and due - last_ms < runtime_ms:
                self._overlap(due)
            last_ms = due
            due = next_after(due)
            walked += 1
        self._due_ms, self._last_fire_ms = due, last_ms
        self._sent += walked
        return walked

    def _plain_in(self, second: int) -> int:
        count, end_ms = 0, (second + 1) * 1000
        if self._first_ms is None or self._first_ms >= end_ms:
            return 0
        due = self._line.next_after_ms(max(second * 1000, self._first_ms) - 1)
        while due is not None and due < end_ms:
            count += 1
            due = self._line.next_after_ms(due)
        return count

    def _take(self, run: Upcoming, seconds: Counter[int]) -> None:
        if run.skip is not None:
            self._skipped[run.skip] += 1
            return
        self._sent += 1
        seconds[run.fire_ms // 1000] += len(self.entries)
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
        return (
            not (policies.jitter_ms or policies.blackout or isinstance(expires, datetime)) and policies.max_runs is None
        )

    def _may_be_moved(self, start: int, end: int) -> bool:
        return any(zone.span(start - _MARGIN_S).end < end + _MARGIN_S for zone in self._zones)


def window_state(entry: Entry, window_ms: int) -> EntryState:
    """State of an entry that a leader sees for the first time as the window begins; its first moment may be a run."""
    counts_from_window = counts_from_first_seen(entry) and entry.schedule.next_after_ms(window_ms - 1) != window_ms
    return EntryState(window_ms if counts_from_window else window_ms - 1, window_ms, 0)


def entry_groups(entries: Sequence[Entry], window_ms: int) -> list[EntryGroup]:
    """The enabled entries in groups that begin at ``window_ms``."""
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
    return [EntryGroup(group, window_ms) for group in alike.values()]


def _zones(schedule: Schedule) -> list[Zone]:
    parts = schedule.parts if isinstance(schedule, Union) else (schedule,)
    return list({part.zone for part in parts if isinstance(part, Cron) and part.fixed and not part.zone.is_utc})


def window_text(ms: int) -> str:
    """A moment of the window, for people."""
    return utc_text(ms)


SLICE_MS = 86_400_000
"""Runs are counted by the second within a slice; of each slice only the busiest seconds are kept."""

FINEST = 400
"""The most columns of a chart."""

_DAY = 86_400
STEPS_S = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200),
    *(_DAY * days for days in (1, 2, 7, 14, 28, 91, 182, 364, 1820, 3640)),
)
"""Widths of a chart's columns, in seconds."""

NAMED = 10
"""How many entries of a busy second are named."""


class TooManyRuns(BeatdError):
    """The window holds more runs than one wants to wait for."""


class Busy(NamedTuple):
    """One second (since the epoch), how many runs leave in it, and the entries with the most of them."""

    second: int
    runs: int
    entries: list[tuple[str, int]]


class Simulation(NamedTuple):
    """Result of a simulation of [from_ms, to_ms). ``seconds_per_column`` is the width of a column."""

    from_ms: int
    to_ms: int
    totals: list[Totals]
    busiest: list[Busy]
    seconds_per_column: int
    columns: list[int]
    """Runs that leave in each part of the window; the last one has those that jitter moves out of it, too."""

    @property
    def sent(self) -> int:
        """Runs in all."""
        return sum(total.sent for total in self.totals)


def simulate(
    entries: Sequence[Entry],
    from_ms: int,
    to_ms: int,
    *,
    limit: int,
    busiest: int = 5,
    width_s: int | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Simulation:
    """Run the entries through the window: the runs that are due from ``from_ms`` on and before ``to_ms``.

    ``width_s`` is the width of a column, by default what gives a readable chart. ``progress`` hears how many
    milliseconds of the window are done. Raises :class:`TooManyRuns` when more than
    ``limit`` runs would have to be computed; those that entries with equal schedules share count once.
    """
    groups = entry_groups(entries, from_ms)
    _refuse_too_many(groups, to_ms - from_ms, limit)
    width_s = width_s or column_width(to_ms - from_ms, FINEST)
    columns = [0] * -(-(to_ms - from_ms) // (width_s * 1000))
    top: list[tuple[int, int]] = []
    walked, seconds = 0, Counter[int]()
    for start_ms in range(from_ms, to_ms, SLICE_MS):
        end_ms = min(start_ms + SLICE_MS, to_ms)
        for group in groups:
            walked += group.walk(end_ms, seconds)
            if walked > limit:
                raise TooManyRuns(_too_many(f"more than {limit:,} runs by {window_text(end_ms)}"))
        later = Counter[int]()  # jitter moves them into the next slice
        for second, count in seconds.items():
            if second >= end_ms // 1000 and end_ms < to_ms:
                later[second] = count
            else:
                column = max(second * 1000 - from_ms, 0) // (width_s * 1000)  # a window may begin within a second
                columns[min(column, len(columns) - 1)] += count
        top = nlargest(busiest, [*top, *((count, -second) for second, count in seconds.items() if second not in later)])
        seconds = later
        progress(end_ms - start_ms)
    busy = [Busy(-negative, count, _busiest_entries(groups, -negative)) for count, negative in top]
    totals = sorted((total for group in groups for total in group.totals()), key=lambda total: total.entry.name)
    return Simulation(from_ms, to_ms, totals, busy, width_s, columns)


def column_width(length_ms: int, at_most: int) -> int:
    """The narrowest of :data:`STEPS_S` with which a window of that length has at most so many columns."""
    return next((step for step in STEPS_S if step * 1000 * at_most >= length_ms), STEPS_S[-1])


def _refuse_too_many(groups: Sequence[EntryGroup], length_ms: int, limit: int) -> None:
    """Raise TooManyRuns at once, by the least number of runs, rather than after a long walk."""
    surely = [(group.at_least(length_ms), group.entries[0].name) for group in groups]
    total = sum(count for count, _ in surely)
    if total > limit:
        count, name = max(surely)
        raise TooManyRuns(_too_many(f"at least {total:,} runs ({count:,} of {name}); {limit:,} are allowed"))


def _too_many(count: str) -> str:
    return f"the window holds {count}; take a shorter one, one entry (--entry), or raise --limit"


def _busiest_entries(groups: Sequence[EntryGroup], second: int) -> list[tuple[str, int]]:
    present = ((group, count) for group in groups if (count := group.leaving_in(second)))
    counts = ((entry.name, count) for group, count in present for entry in group.entries)
    return sorted(counts, key=lambda item: (-item[1], item[0]))[:NAMED]
