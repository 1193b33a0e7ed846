"""Counters of a process, written by its working thread and read by another one on request.

Counting costs one addition to a dictionary; everything else happens on request. One thread writes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, islice
from typing import NamedTuple

import msgspec

MOMENTS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Buckets for what should take moments."""
TASKS_S = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
"""Buckets for run times of tasks."""

ENTRIES_MAX = 100_000
"""Limit of entries that are counted by name; beyond it, the half with the most runs is kept."""


class Histogram(msgspec.Struct):
    """Counts of values in buckets, and their sum."""

    bounds: tuple[float, ...] = MOMENTS_S
    counts: list[int] = []
    total: float = 0.0

    def __post_init__(self) -> None:
        """Begin with empty buckets."""
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float, count: int = 1) -> None:
        """Count a value, once or more often."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Return ``(upper bound, count so far)`` pairs, the last with ``+Inf``, and the sum of all values."""
        bounds = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        return [(bound, float(count)) for bound, count in zip(bounds, accumulate(self.counts), strict=True)], self.total


class Outcome(NamedTuple):
    """Outcome of a run in the daemon: ``sent``, ``skipped``, ``missed`` or ``refused``, with the reason of a skip."""

    outcome: str
    reason: str = ""


SENT, MISSED, REFUSED = Outcome("sent"), Outcome("missed"), Outcome("refused")


class EntryLimit(NamedTuple):
    """The setting ``[metrics] entries``: the number of entries whose runs are shown by entry; None: all."""

    most: int | None

    def allows(self, number: int) -> bool:
        """True if so many entries can be shown one by one."""
        return self.most is None or number <= self.most

    @classmethod
    def parse(cls, text: str) -> EntryLimit:
        """Read ``all``, ``none`` or ``top:N``."""
        match text:
            case "all":
                return cls(None)
            case "none":
                return cls(0)
            case _:
                return cls(int(text.removeprefix("top:")))


class DaemonCounters:
    """Counts of one daemon: runs by outcome and entry, lateness, claims, reloads."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self.totals: Counter[Outcome] = Counter()
        self.reloads: Counter[str] = Counter(ok=0, broken=0)
        self.faults = 0
        """Errors of the files when they were last read."""
        self.lateness, self.claims = Histogram(), Histogram()
        self.notices: Counter[tuple[str, str]] = Counter()
        """Attempts to send notices, by target (or ``ping``, ``check_in``) and outcome: ``sent``, ``failed``."""
        self._entries: dict[Outcome, Counter[str]] = {}

    def count(self, outcome: Outcome, names: Sequence[str]) -> None:
        """Count runs of these entries."""
        self.totals[outcome] += len(names)
        counts = self._entries.get(outcome)
        if counts is None:
            counts = self._entries[outcome] = Counter()
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        if len(counts) > self._entries_max:
            self._entries[outcome] = Counter(dict(counts.most_common(self._entries_max // 2)))

    def sent(self, names: Sequence[str], late_ms: Iterable[int]) -> None:
        """Count runs that left, with their lateness."""
        self.count(SENT, names)
        counts: dict[int, int] = {}
        for value_ms in late_ms:
            counts[value_ms] = counts.get(value_ms, 0) + 1
        for value_ms, count in counts.items():
            self.lateness.observe(max(value_ms, 0) / 1000, count)

    def most_runs(self, limit: EntryLimit, names: Iterable[str]) -> list[str]:
        """Return as many of the names as the limit allows: those with the most runs first, then any."""
        if limit.most is None:
            return list(names)
        sums: Counter[str] = Counter()
        for counted in list(self._entries.values()):
            sums.update(dict(counted))
        known = dict.fromkeys(names)
        ranked = dict.fromkeys(name for name, _ in sums.most_common() if name in known) if limit.most else {}
        return list(islice({**ranked, **known}, limit.most))

    def by_entry(self, limit: EntryLimit) -> list[tuple[str, Outcome, int]]:
        """Return the counts of entries: of those with the most runs, where there is a limit."""
        counts = {outcome: dict(names) for outcome, names in list(self._entries.items())}
        sums: Counter[str] = Counter()
        for names in counts.values():
            sums.update(names)
        shown = sums if limit.most is None else dict(sums.most_common(limit.most))
        return [(name, outcome, n) for outcome, names in counts.items() for name, n in names.items() if name in shown]
