"""Overdue runs, which have not started in time, and runs that take too long. The bounds are those of the entry, or are
learned from its own history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import quantiles
from typing import NamedTuple

from beatd.exceptions import ScheduleError
from beatd.model import Entry, EntryState, Policies
from beatd.planning.policies import runtime_ms
from beatd.planning.timeline import after_blackouts_ms, fire_ms, timeline

LEARNED_FROM = 20
"""Ended runs that are needed to learn a bound."""
_DELAYS_FROM = 10
"""Delays that are needed to learn a bound of delays. The history, which has the due times, may keep fewer runs."""
_SPARE_MS = 60_000
"""What a learned bound adds to twice the 95th percentile: short runs vary by much more than twice their time."""


class PastRun(NamedTuple):
    """A run that was sent.

    ``fire_ms``: when it should have left, its jitter included. With ``overlap = "queue_one"`` it may have waited:
    when it left counts.
    """

    due_ms: int
    fire_ms: int
    is_started: bool
    is_over: bool
    start_ms: int | None = None
    """When it started, of a run that is running."""
    end_ms: int | None = None
    """When it ended at the earliest, if that is known."""


class EndedAttempt(NamedTuple):
    """An attempt of a run that has ended. Instants in ms."""

    run_id: str
    start_ms: int | None
    end_ms: int
    is_first: bool
    is_success: bool


class Bounds(NamedTuple):
    """Time limits (ms) beyond which a run is overdue or takes too long; None: there is no limit."""

    start_ms: int | None = None
    """From the fire time to the start."""
    finish_ms: int | None = None
    """From the fire time to the end."""
    runtime_ms: int | None = None
    """From the start to the end."""
    learned_from: int = 0
    """Number of runs from which bounds were learned; 0: all are the entry's own."""


class Delay(NamedTuple):
    """Delays of an entry at one moment. Instants in ms."""

    overdue_since_ms: int | None = None
    """Since when a run should have started."""
    too_long_since_ms: int | None = None
    """Since when a run that has started should have finished."""
    check_at_ms: int | None = None
    """The earliest moment at which this can become worse; None: never."""


def learned_bounds(attempts: Sequence[EndedAttempt], dues: Mapping[str, int]) -> Bounds:
    """Return the bounds that the runs of an entry teach. ``dues``: run id → due time (ms), of the runs that have one.

    A bound is twice the 95th percentile and a minute. Of workers that do not report when runs start, the time from due
    to finished is taken.
    """
    done = [one for one in attempts if one.is_success]
    if len(done) < LEARNED_FROM:
        return Bounds()
    runtimes = [one.end_ms - one.start_ms for one in done if one.start_ms is not None]
    first = [one for one in attempts if one.is_first and one.run_id in dues]
    starts = [one.start_ms - dues[one.run_id] for one in first if one.start_ms is not None]
    ends = [] if starts else [one.end_ms - dues[one.run_id] for one in done if one.run_id in dues]
    return Bounds(_bound(starts, _DELAYS_FROM), _bound(ends, _DELAYS_FROM), _bound(runtimes, LEARNED_FROM), len(done))


def _bound(lengths: Sequence[int], needed: int) -> int | None:
    if len(lengths) < needed:
        return None
    return 2 * max(round(quantiles(lengths, n=20, method="inclusive")[-1]), 0) + _SPARE_MS


def bounds_of(policies: Policies, learned: Bounds) -> Bounds:
    """Return the bounds in force: those of the entry's fields, and for a field that is not set the learned ones.

    A field of 0 (``"never"``) switches its bounds off.
    """
    start_ms, finish_ms, runtime_ms = learned.start_ms, learned.finish_ms, learned.runtime_ms
    if policies.overdue_after_ms is not None:
        start_ms, finish_ms = policies.overdue_after_ms or None, None
    if policies.expect_within_ms is not None:
        finish_ms, runtime_ms = policies.expect_within_ms or None, None
    is_own = policies.overdue_after_ms is not None and policies.expect_within_ms is not None
    return Bounds(start_ms, finish_ms, runtime_ms, 0 if is_own else learned.learned_from)


def delay_of(entry: Entry, state: EntryState | None, runs: Sequence[PastRun], bounds: Bounds, now_ms: int) -> Delay:
    """Return which runs of the entry are late.

    Of runs that wait the first after the last one that has started (or finished) counts, whether it was sent or not.
    """
    if not entry.policies.enabled or state is None:
        return Delay()
    limits = list(_limits(entry, state, runs, bounds, now_ms))
    overdue = [limit.ms for limit in limits if limit.ms <= now_ms and not limit.is_started]
    too_long = [limit.ms for limit in limits if limit.ms <= now_ms and limit.is_started]
    check_at_ms = min((max(limit.ms, now_ms) for limit in limits), default=None)
    return Delay(min(overdue, default=None), min(too_long, default=None), check_at_ms)


class _Limit(NamedTuple):
    """The moment (ms) after which a run is late."""

    ms: int
    is_started: bool


def _limits(entry: Entry, state: EntryState, runs: Sequence[PastRun], bounds: Bounds, now_ms: int) -> Iterator[_Limit]:
    def first_open(done: Sequence[PastRun]) -> PastRun | None:
        return _first_open(entry, state, runs, done, now_ms)

    if bounds.start_ms is not None and (first := first_open([run for run in runs if run.is_started])):
        yield _Limit(first.fire_ms + bounds.start_ms, is_started=False)
    if bounds.finish_ms is None and bounds.runtime_ms is None:
        return
    first = first_open([run for run in runs if run.is_over])
    if bounds.finish_ms is not None and first is not None:
        yield _Limit(first.fire_ms + bounds.finish_ms, first.is_started)
    if bounds.runtime_ms is not None:
        at_work = [run.start_ms for run in runs if run.start_ms is not None and not run.is_over]
        yield from (_Limit(start_ms + bounds.runtime_ms, is_started=True) for start_ms in at_work)
        if not at_work and first is not None:
            yield _Limit(max(first.fire_ms, now_ms) + bounds.runtime_ms, is_started=True)


def _first_open(
    entry: Entry, state: EntryState, runs: Sequence[PastRun], done: Sequence[PastRun], now_ms: int
) -> PastRun | None:
    """The first run after the last one that is done; None if it waits for that one to end."""
    last_done_ms = max((run.due_ms for run in done), default=0)
    waiting = [run for run in runs if run.due_ms > last_done_ms and run not in done]
    if waiting:
        return min(waiting, key=lambda run: run.fire_ms)
    policies = entry.policies
    if policies.max_runs is not None and state.runs >= policies.max_runs:
        return None
    line = timeline(entry, state.first_seen_ms)
    try:
        due_ms = after_blackouts_ms(entry, line, line.next_after_ms(max(state.last_due_ms, last_done_ms)))
    except ScheduleError:
        return None
    if due_ms is None:
        return None
    leaves_ms = fire_ms(entry, line, due_ms)
    if policies.overlap == "queue_one" and runs:
        last = max(runs, key=lambda run: run.fire_ms)
        free_ms = (last.end_ms or 0) if last.is_over else last.fire_ms + runtime_ms(entry)
        if not last.is_over and now_ms < free_ms:
            return None
        leaves_ms = max(leaves_ms, free_ms)
    return PastRun(due_ms, leaves_ms, is_started=False, is_over=False)
