"""Warnings: what is right, can be run, and is probably not what was meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from beatd.clock import from_ms, iso_ms, to_ms
from beatd.config.faults import dotted
from beatd.config.loading import Config
from beatd.config.text import SCHEDULE
from beatd.exceptions import Fault
from beatd.model import Entry
from beatd.schedules import Schedule, bind, dst_note, duration_text, period_ms
from beatd.schedules.cron import Cron

HERD = 1000
"""More runs than this in one second are worth a warning."""

_DAY_MS = 86_400_000
_YEAR_S = 366 * 86_400
_RUNS_LOOKED_AT = 1500
"""Runs of one schedule in the search for herds: a day of minutes."""
_SCHEDULES_LOOKED_AT = 2000
_ALIKE = 10
"""Warnings of one kind that are shown one by one."""

Check = Callable[[tuple[Entry, ...], int], Iterator[Fault]]


def review(config: Config, now_ms: int) -> list[Fault]:
    """The warnings about a configuration at ``now_ms``, those of a kind together."""
    enabled = tuple(entry for entry in config.entries if entry.policies.enabled)
    warnings: list[Fault] = []
    for check in CHECKS:
        found = list(check(enabled, now_ms))
        warnings += found[:_ALIKE]
        if len(found) > _ALIKE:
            message = f"and {len(found) - _ALIKE:,} more like the last one"
            warnings.append(Fault(found[-1].file, None, SCHEDULE, message))
    return warnings


def never(entries: tuple[Entry, ...], now_ms: int) -> Iterator[Fault]:
    """Entries that have no run left."""
    for entry in entries:
        if entry.policies.end and to_ms(entry.policies.end) <= now_ms:
            yield _warning(entry, "end", f"it ended at {entry.policies.end.isoformat()} and never runs again")
        elif isinstance(entry.schedule, Cron) or entry.schedule.next_after_ms(now_ms) is not None:
            continue
        else:
            yield _warning(entry, "schedule", "its time has passed: it never runs again")


def long_lived(entries: tuple[Entry, ...], now_ms: int) -> Iterator[Fault]:
    """Messages that still wait when the next one comes, and jitter that is cut short."""
    period_of = _Periods(now_ms)
    for entry in entries:
        expires, jitter_ms = entry.options.expires, entry.policies.jitter_ms
        if not jitter_ms and not isinstance(expires, int):
            continue
        period = period_of(entry.schedule)
        if period is None:
            continue
        if isinstance(expires, int) and expires > period:
            longer = f"{duration_text(expires)} is longer than the period of {duration_text(period)}"
            yield _warning(entry, "expires", f"{longer}: runs pile up when no worker takes them")
        if jitter_ms > period:
            longer = f"{duration_text(jitter_ms)} is longer than the period of {duration_text(period)}"
            yield _warning(entry, "jitter", f"{longer}: it is cut to end before the next run")


def both_days(entries: tuple[Entry, ...], _now_ms: int) -> Iterator[Fault]:
    """Cron strings with a day of the month and one of the week: they run on either, which surprises."""
    for entry in entries:
        written = entry.schedule.notation
        fields = written.split() if isinstance(written, str) else []
        if len(fields) in {5, 6} and not {fields[-3][0], fields[-1][0]} & {"*", "?"}:
            message = f'"{written}" runs on each of these days of the month and also on each of these weekdays'
            yield _warning(entry, "schedule", message)


def clock_changes(entries: tuple[Entry, ...], now_ms: int) -> Iterator[Fault]:
    """Runs in the next year that a change of the clock moves, or that have a twin an hour away."""
    notes: dict[Schedule, str] = {}
    for entry in entries:
        schedule = entry.schedule
        if not isinstance(schedule, Cron) or not schedule.fixed or schedule.zone.is_utc:
            continue
        if schedule not in notes and len(notes) < _SCHEDULES_LOOKED_AT:
            notes[schedule] = _clock_change(schedule, now_ms)
        if note := notes.get(schedule):
            yield _warning(entry, "schedule", note)


def herd(entries: tuple[Entry, ...], now_ms: int) -> Iterator[Fault]:
    """The second of the next day in which most entries are due together, if they are too many."""
    sizes = Counter(bind(entry.schedule, from_ms(now_ms)) for entry in entries if not entry.policies.jitter_ms)
    if sizes.total() <= HERD:
        return
    seconds: Counter[int] = Counter()
    for schedule, size in sizes.most_common(_SCHEDULES_LOOKED_AT):
        for second in _seconds(schedule, now_ms):
            seconds[second] += size
    second, count = max(seconds.items(), key=lambda item: (item[1], -item[0]), default=(0, 0))
    if count > HERD:
        first = next(entry for entry in entries if not entry.policies.jitter_ms)
        message = f'{count:,} runs are due in one second, at {iso_ms(second * 1000)}; jitter = "30s" would spread them'
        yield Fault(_file(first), None, SCHEDULE, message)


CHECKS: tuple[Check, ...] = (never, long_lived, both_days, clock_changes, herd)


class _Periods:
    """The time between the two next runs, computed once for each schedule."""

    def __init__(self, now_ms: int) -> None:
        self._now = from_ms(now_ms)
        self._known: dict[int, int | None] = {}

    def __call__(self, schedule: Schedule) -> int | None:
        if id(schedule) not in self._known:
            self._known[id(schedule)] = period_ms(bind(schedule, self._now), self._now)
        return self._known[id(schedule)]


def _clock_change(schedule: Cron, now_ms: int) -> str:
    """What the next change of the clock that concerns a schedule does to it."""
    start = now_ms // 1000
    second = start
    while second < start + _YEAR_S:
        span = schedule.zone.span(second)
        second = span.end
        if schedule.zone.span(second).offset == span.offset:
            continue
        for due_ms in islice(_runs(schedule, (second - 7200) * 1000, (second + 7200) * 1000), 500):
            due_at = from_ms(due_ms)
            local = f"{due_at.astimezone(schedule.zone.info):%Y-%m-%d %H:%M}"
            match dst_note(schedule, due_at):
                case "gap":
                    return f"the clock skips its time in {schedule.zone.name}: that run is made at {local}"
                case "overlap":
                    return f"the clock shows {local} twice in {schedule.zone.name}: it runs the first time only"
    return ""


def _seconds(schedule: Schedule, now_ms: int) -> Iterable[int]:
    return {due_ms // 1000 for due_ms in islice(_runs(schedule, now_ms, now_ms + _DAY_MS), _RUNS_LOOKED_AT)}


def _runs(schedule: Schedule, after_ms: int, until_ms: int) -> Iterator[int]:
    due_ms = schedule.next_after_ms(after_ms)
    while due_ms is not None and due_ms <= until_ms:
        yield due_ms
        due_ms = schedule.next_after_ms(due_ms)


def _file(entry: Entry) -> str:
    return entry.source.rpartition(":")[0]


def _warning(entry: Entry, key: str, message: str) -> Fault:
    file, _, line = entry.source.rpartition(":")
    return Fault(file, int(line), dotted((SCHEDULE, entry.name, key)), message)
