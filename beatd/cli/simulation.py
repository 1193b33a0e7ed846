"""A window of time, run through ahead of time: how many runs each entry has, and when most of them leave.

The runs are walked slice by slice and only counted, so that a year takes no more memory than a day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from heapq import nlargest
from typing import NamedTuple

from beatd.cli.tracks import Totals, Track, tracks, window_text
from beatd.exceptions import BeatdError
from beatd.model import Entry

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
    """What the window [from_ms, to_ms) holds. ``seconds_per_column`` says how wide the columns are."""

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
    progress: Callable[[int], object] = lambda _: None,
) -> Simulation:
    """Run the entries through the window: the runs that are due from ``from_ms`` on and before ``to_ms``.

    ``progress`` hears how many milliseconds of the window are done. Raises :class:`TooManyRuns` when more than
    ``limit`` runs would have to be computed; those that entries with equal schedules share count once.
    """
    walkers = tracks(entries, from_ms)
    _refuse_hopeless(walkers, to_ms - from_ms, limit)
    width_s = column_width(to_ms - from_ms, FINEST)
    columns = [0] * -(-(to_ms - from_ms) // (width_s * 1000))
    top: list[tuple[int, int]] = []
    walked, seconds = 0, Counter[int]()
    for start_ms in range(from_ms, to_ms, SLICE_MS):
        end_ms = min(start_ms + SLICE_MS, to_ms)
        for walker in walkers:
            walked += walker.walk(end_ms, seconds)
            if walked > limit:
                raise TooManyRuns(_too_many(f"more than {limit:,} runs by {window_text(end_ms)}"))
        later = Counter[int]()  # jitter moves them into the next slice
        for second, count in seconds.items():
            if second >= end_ms // 1000 and end_ms < to_ms:
                later[second] = count
            else:
                columns[min((second * 1000 - from_ms) // (width_s * 1000), len(columns) - 1)] += count
        top = nlargest(busiest, [*top, *((count, -second) for second, count in seconds.items() if second not in later)])
        seconds = later
        progress(end_ms - start_ms)
    found = [Busy(-negative, count, _who(walkers, -negative)) for count, negative in top]
    totals = sorted((total for walker in walkers for total in walker.totals()), key=lambda total: total.entry.name)
    return Simulation(from_ms, to_ms, totals, found, width_s, columns)


def column_width(length_ms: int, at_most: int) -> int:
    """The narrowest of :data:`STEPS_S` with which a window of that length has at most so many columns."""
    return next((step for step in STEPS_S if step * 1000 * at_most >= length_ms), STEPS_S[-1])


def _refuse_hopeless(walkers: Sequence[Track], length_ms: int, limit: int) -> None:
    """Say at once what would be found out after a long walk."""
    surely = [(walker.at_least(length_ms), walker.entries[0].name) for walker in walkers]
    total = sum(count for count, _ in surely)
    if total > limit:
        count, name = max(surely)
        raise TooManyRuns(_too_many(f"at least {total:,} runs ({count:,} of {name}); {limit:,} are allowed"))


def _too_many(what: str) -> str:
    return f"the window holds {what}; take a shorter one, one entry (--entry), or raise --limit"


def _who(walkers: Sequence[Track], second: int) -> list[tuple[str, int]]:
    present = ((each, count) for each in walkers if (count := each.leaving_in(second)))
    named = ((entry.name, count) for each, count in present for entry in each.entries)
    return sorted(named, key=lambda one: (-one[1], one[0]))[:NAMED]
