"""Advice on herds: entries that leave in one second and could be spread by another minute or second of their schedule.

A cron entry may move within its hour, or within its step (``*/10`` to ``3-59/10``); by second it stays in its minute.
Each entry that leaves in a busy second moves to where the fewest others leave, as near as possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, takewhile
from typing import Any, Literal, NamedTuple

from msgspec import structs

from beatd.config.writer import Unwritable, escaped_table
from beatd.exceptions import ScheduleError
from beatd.model import Entry
from beatd.planning.catchup import ResumePoints
from beatd.planning.preview import upcoming
from beatd.planning.simulation import window_state
from beatd.schedules import Schedule, parse
from beatd.schedules.cron import Cron, Dst

DAY_MS = 86_400_000
BUSY = 10
"""A second with more runs than this is a herd."""
_RUNS_LOOKED_AT = 1_440
_COMPARED = 48
"""Runs of an entry that are compared for each place to which it could move."""

Unit = Literal["minute", "second"]
_UNIT_S: Mapping[Unit, int] = {"minute": 60, "second": 1}


class Move(NamedTuple):
    """The new schedule of an entry; both as in ``beat.toml``."""

    entry: Entry
    old: Any
    new: Any
    moved: Entry
    """The entry with the new schedule."""


class Movable(NamedTuple):
    """An entry that could move by 1 to ``steps`` units."""

    entry: Entry
    steps: int
    seconds: Sequence[int]
    """When it leaves now, in seconds since the epoch."""


def advise(
    entries: Sequence[Entry], now_ms: int, *, unit: Unit = "minute", within_s: int = 3600, above: int = BUSY
) -> list[Move]:
    """Return the moves that take runs out of seconds with more than ``above`` runs of the coming day.

    ``within_s``: no entry moves by more.
    """
    seconds: dict[int, int] = {}
    movable: list[Movable] = []
    cache: dict[Any, Sequence[int]] = {}
    for entry in entries:
        if not entry.policies.enabled:
            continue
        times = _seconds(entry, now_ms, cache)
        for second in times:
            seconds[second] = seconds.get(second, 0) + 1
        steps = 0 if entry.policies.jitter_ms else min(_steps(entry, unit), within_s // _UNIT_S[unit])
        if steps > 0:
            movable.append(Movable(entry, steps, times))
    moves = []
    for one in movable:
        if max((seconds[second] for second in one.seconds), default=0) <= above:
            continue
        shift = _best(one, seconds, _UNIT_S[unit])
        if shift and (move := _move(one.entry, shift, unit)) is not None:
            for second in one.seconds:
                seconds[second] -= 1
                later = second + shift * _UNIT_S[unit]
                seconds[later] = seconds.get(later, 0) + 1
            moves.append(move)
    return moves


def _seconds(entry: Entry, now_ms: int, cache: dict[Any, Sequence[int]]) -> Sequence[int]:
    """The seconds of the coming day in which the entry leaves; the same for entries with equal schedules."""
    policies = entry.policies
    own = entry.name if policies.jitter_ms else None
    key = (entry.schedule, policies.start, policies.end, policies.blackout and id(policies.blackout), own)
    if (known := cache.get(key)) is None:
        until_ms = now_ms + DAY_MS
        every = upcoming(entry, window_state(entry, now_ms), ResumePoints(now_ms))
        runs = takewhile(lambda run: run.due_ms < until_ms, islice(every, _RUNS_LOOKED_AT))
        known = cache[key] = [run.fire_ms // 1000 for run in runs if run.skip is None and run.fire_ms < until_ms]
    return known


def _best(one: Movable, seconds: Mapping[int, int], unit_s: int) -> int:
    """The number of units to move by: to where the fewest others leave, and the nearest of these; 0: it stays."""
    compared = one.seconds[:_COMPARED]
    best, fewest = 0, max(seconds[second] for second in compared) - 1
    for shift in range(1, one.steps + 1):
        others = max(seconds.get(second + shift * unit_s, 0) for second in compared)
        if others < fewest:
            best, fewest = shift, others
            if fewest == 0:
                break
    return best


def _steps(entry: Entry, unit: Unit) -> int:
    """By how many units the entry can move at most; 0 for a schedule that stays as it is."""
    if isinstance(entry.schedule, Cron) and entry.schedule.hashed:
        return 0
    match _written(entry):
        case str(text) if len(fields := text.split()) == 5 and not text.startswith("@"):
            return 59 if unit == "second" else _minute_steps(fields[0])
        case {**table} if unit == "minute" and table.keys() <= _TABLE_KEYS:
            return _minute_steps(str(table.get("minute", "*")))
    return 0


_TABLE_KEYS = frozenset({"minute", "hour", "day_of_week", "day_of_month", "month_of_year"})


def _minute_steps(field: str) -> int:
    if field.isdigit():
        return 59 - int(field)
    step = field.removeprefix("*/")
    return int(step) - 1 if step != field and step.isdigit() and int(step) > 1 and 60 % int(step) == 0 else 0


def _move(entry: Entry, shift: int, unit: Unit) -> Move | None:
    old = _written(entry)
    if isinstance(old, str):
        minute, rest = old.split(maxsplit=1)
        new: Any = f"{shift} {old}" if unit == "second" else f"{_moved_minute(minute, shift)} {rest}"
    else:
        new = {**old, "minute": _moved_minute(str(old["minute"]), shift)}
    try:
        dst: Dst = "skip" if isinstance(entry.schedule, Cron) and entry.schedule.skip else "cron"
        schedule = parse(new, timezone=entry.timezone, name=entry.name, dst=dst)
    except ScheduleError:
        return None
    if _is_fixed(schedule) != _is_fixed(entry.schedule):  # it would run at other times when the clock is changed
        return None
    return Move(entry, old, new, structs.replace(entry, schedule=schedule))


def _is_fixed(schedule: Schedule) -> bool:
    return isinstance(schedule, Cron) and schedule.fixed and not schedule.zone.is_utc


def _moved_minute(field: str, shift: int) -> str:
    return str(int(field) + shift) if field.isdigit() else f"{shift}-59/{field.removeprefix('*/')}"


def _written(entry: Entry) -> Any:
    """The schedule as in ``beat.toml``."""
    try:
        return escaped_table({"schedule": entry.schedule.notation})["schedule"]
    except Unwritable:
        return None


def moved_entries(entries: Sequence[Entry], moves: Sequence[Move]) -> Iterator[Entry]:
    """The entries as they would be with the moves."""
    by_name = {move.entry.name: move.moved for move in moves}
    return (by_name.get(entry.name, entry) for entry in entries)
