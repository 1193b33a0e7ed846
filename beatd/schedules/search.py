"""Search: questions about any schedule, answered by a few calls of its one method; and jitter.

Jitter can be previewed: a hash of entry and nominal time, the same on every host and after every restart.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import Literal

from beatd.exceptions import ScheduleError
from beatd.schedules.cron import Cron
from beatd.schedules.interval import bind
from beatd.schedules.schedule import Schedule, Union
from beatd.timestamps import LAST_MS, from_ms, to_ms


def latest(schedule: Schedule, *, after: datetime, until: datetime) -> datetime | None:
    """The latest run in (after, until], or None. Found by bisection: a year of missed minutes costs some dozen steps.

    An interval without a phase counts from ``after``.
    """
    found = latest_ms(bind(schedule, after), to_ms(after), to_ms(until))
    return None if found is None else from_ms(found)


def latest_ms(schedule: Schedule, after_ms: int, until_ms: int) -> int | None:
    """``latest`` in milliseconds since the epoch."""
    until_ms = min(until_ms, LAST_MS)
    if (own := getattr(schedule, "latest_ms", None)) is not None:  # a chain, or what wraps another schedule
        found_ms: int | None = own(after_ms, until_ms)
        return found_ms
    if isinstance(schedule, Union) and len(chains := [part for part in schedule.parts if is_chain(part)]) == 1:
        return _latest_of_union(schedule, chains[0], after_ms, until_ms)

    def run_after(t_ms: int) -> int | None:
        due = schedule.next_after_ms(t_ms)
        if due is not None and due <= t_ms:
            raise ScheduleError("the schedule is broken: its next run is not later than the one before")
        return due if due is not None and due <= until_ms else None

    found = run_after(after_ms)
    if found is None:
        return None
    # `found` is a run; no run in the range starts after `high`. The first guess is that runs are evenly spaced.
    high = until_ms
    step = found - after_ms
    while (following := run_after(found)) is not None:
        found = following
        step *= 2
        probe = max(high - step, (found + high) // 2)
        if (later := run_after(probe)) is not None:
            found = later
        else:
            high = probe
    return found


def is_chain(schedule: Schedule) -> bool:
    """True if each run depends on the one before: none is known without those before it."""
    if isinstance(schedule, Union):
        return any(map(is_chain, schedule.parts))
    return bool(getattr(schedule, "is_chain", False))


def _latest_of_union(schedule: Union, chain: Schedule, after_ms: int, until_ms: int) -> int | None:
    """A run of another part is a run of the union, whatever the chain does; from the last such run on the chain alone
    goes on."""
    dues = [latest_ms(part, after_ms, until_ms) for part in schedule.parts if part is not chain]
    found = max((due for due in dues if due is not None), default=None)
    later = latest_ms(chain, after_ms if found is None else found, until_ms)
    return found if later is None else later


def period_ms(schedule: Schedule, at: datetime) -> int | None:
    """The time between the two next runs after ``at``, in milliseconds; None when fewer than two are left."""
    first = schedule.next_after_ms(to_ms(at))
    second = None if first is None else schedule.next_after_ms(first)
    return None if first is None or second is None else second - first


def dst_note(schedule: Schedule, t: datetime) -> Literal["gap", "overlap"] | None:
    """Say if the run at ``t`` was moved out of a gap of the wall clock, or falls into an hour that is repeated."""
    if isinstance(schedule, Union):
        notes = (dst_note(part, t) for part in schedule.parts if _runs_at(part, to_ms(t)))
        return next((note for note in notes if note), None)
    if not isinstance(schedule, Cron):
        return None
    second = to_ms(t) // 1000
    wall = second + schedule.zone.span(second).offset
    if schedule.fixed and schedule.wall_after(wall - 1) != wall:
        return "gap"
    return "overlap" if schedule.zone.is_repeated(second) else None


def _runs_at(schedule: Schedule, t_ms: int) -> bool:
    return schedule.next_after_ms(t_ms - 1) == t_ms


def jittered_ms(name: str, due_ms: int, jitter_ms: int, next_due_ms: int | None) -> int:
    """Return when a run is sent (ms): from ``due_ms`` to ``due_ms + jitter_ms``, and before ``next_due_ms``."""
    room = min(jitter_ms, min(LAST_MS + 1, LAST_MS + 1 if next_due_ms is None else next_due_ms) - due_ms - 1)
    if room <= 0:
        return due_ms
    digest = blake2b(f"{name}@{due_ms}".encode(), digest_size=8).digest()
    return due_ms + int.from_bytes(digest) % (room + 1)
