"""What is scheduled while everything breaks: 700 runs a second, none of which a policy may drop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_DEFAULTS = '[defaults]\ncatch_up = "all"\ncatch_up_window = "1h"\ncatch_up_max = 1000000\n'


class Plan(NamedTuple):
    """A schedule whose every run is known beforehand."""

    intervals: dict[str, int]
    """Entry → milliseconds between its runs."""
    schedule: str
    """As beat.toml has it."""
    options: int
    """How many kinds of entries there are."""

    @staticmethod
    def of(options: Sequence[str], size: int = 100) -> Plan:
        """Entries that take turns in ``options``: three of them each second and one each quarter, ``size`` times."""
        intervals = {f"second-{n}": 1000 for n in range(3 * size)} | {f"quarter-{n}": 250 for n in range(size)}
        named = enumerate(intervals.items())
        entries = (_entry(name, interval_ms, options[n % len(options)]) for n, (name, interval_ms) in named)
        return Plan(intervals, _DEFAULTS + "".join(entries), len(options))

    def of_kind(self, number: int) -> set[str]:
        """The entries that have the options of that number."""
        return {name for n, name in enumerate(self.intervals) if n % self.options == number}


def _entry(name: str, interval_ms: int, options: str) -> str:
    return f'[beat_schedule.{name}]\ntask = "tasks.tick"\nschedule = {interval_ms / 1000}\n{options}'
