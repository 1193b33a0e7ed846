"""Load: how many runs leave in each stretch of a window, the busiest seconds, blackouts and changes of clocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from beatd.model import Entry
from beatd.planning.simulation import Busy, simulate
from beatd.schedules import zone
from beatd.schedules.blackout import Blackout

MINUTE_MS, DAY_MS = 60_000, 86_400_000
BUSIEST = 40
_SPANS = 50
"""Spans of one blackout that are listed."""
_BLACKOUTS = 50


class ClosedTime(NamedTuple):
    """A blackout in a window: the entries that share it, and its spans (ms)."""

    blackout: Blackout
    entries: list[str]
    spans: list[tuple[int, int]]


class ClockChange(NamedTuple):
    """A change of the clocks of a zone. Offsets in seconds."""

    timezone: str
    at_ms: int
    before_s: int
    after_s: int
    entries: int


class Load(NamedTuple):
    """Runs of [from_ms, to_ms) by stretches of ``step_ms``."""

    from_ms: int
    to_ms: int
    step_ms: int
    counts: list[int]
    busiest: list[Busy]


def load(
    entries: Sequence[Entry], from_ms: int, to_ms: int, step_ms: int, *, limit: int, busiest: int = BUSIEST
) -> Load:
    """The load of a window, with its ``busiest`` seconds.

    Raises :class:`~beatd.planning.simulation.TooManyRuns` beyond ``limit`` runs.
    """
    found = simulate(entries, from_ms, to_ms, limit=limit, busiest=busiest, width_s=step_ms // 1000)
    return Load(from_ms, to_ms, step_ms, found.columns, [one for one in found.busiest if one.runs > 1])


def closed_times(entries: Sequence[Entry], from_ms: int, to_ms: int) -> list[ClosedTime]:
    """The blackouts of enabled entries in a window, those of most entries first."""
    shared: dict[Blackout, list[str]] = {}
    for entry in entries:
        if (blackout := entry.policies.blackout) is not None and entry.policies.enabled:
            shared.setdefault(blackout, []).append(entry.name)
    most = sorted(shared.items(), key=lambda one: -len(one[1]))[:_BLACKOUTS]
    found = (ClosedTime(blackout, names, list(_spans(blackout, from_ms, to_ms))) for blackout, names in most)
    return [one for one in found if one.spans]


def _spans(blackout: Blackout, from_ms: int, to_ms: int) -> Iterator[tuple[int, int]]:
    """The stretches that it covers, to the minute."""
    t_ms, count = from_ms, 0
    while t_ms < to_ms and count < _SPANS:
        if blackout.covers_ms(t_ms):
            end_ms = max(blackout.end_ms(t_ms), t_ms + 1)
            yield t_ms, min(end_ms, to_ms)
            count += 1
            t_ms = end_ms
        else:
            t_ms = t_ms // MINUTE_MS * MINUTE_MS + MINUTE_MS


def clock_changes(entries: Sequence[Entry], from_ms: int, to_ms: int) -> list[ClockChange]:
    """The changes of clocks in the zones of enabled entries."""
    zones: dict[str, int] = {}
    for entry in entries:
        if entry.policies.enabled:
            zones[entry.timezone] = zones.get(entry.timezone, 0) + 1
    return sorted(_changes(zones, from_ms // 1000, to_ms // 1000), key=lambda one: one.at_ms)


def _changes(zones: dict[str, int], start: int, end: int) -> Iterator[ClockChange]:
    for name, count in zones.items():
        where, spans, at = zone(name), [], start
        while at < end:
            span = where.span(at)
            spans.append(span)
            at = span.end
        for before, after in pairwise(spans):
            if before.offset != after.offset:
                yield ClockChange(name, after.start * 1000, before.offset, after.offset, count)
