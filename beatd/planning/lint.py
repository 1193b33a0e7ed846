"""Warnings: what is right, can be run, and is probably not what was meant."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice, pairwise
from pathlib import Path

from beatd.config.errors import dotted
from beatd.config.loader import Config
from beatd.config.toml import SCHEDULE, Document, read
from beatd.exceptions import ConfigError, Fault
from beatd.model import Entry
from beatd.planning.croniter_comparison import differences
from beatd.planning.preview import counts_from_first_seen
from beatd.planning.timeline import BlackedOut, after_blackouts_ms, timeline
from beatd.schedules import Schedule, bind, dst_note, duration_text
from beatd.schedules.cron import Cron
from beatd.schedules.cron_parser import FIELDS as CRON_FIELDS
from beatd.schedules.schedule import Union
from beatd.schedules.timezone import Zone
from beatd.timestamps import from_ms, iso_ms, to_ms

HERD = 1000
"""More runs than this in one second are worth a warning."""

_DAY_MS = 86_400_000
_YEAR_S = 366 * 86_400
_RUNS_LOOKED_AT = 1500
"""Runs of one schedule in the search for herds: a day of minutes."""
_SCHEDULES_LOOKED_AT = 2000
"""Schedules in the search for herds, those of most entries first; and cron strings compared with croniter's reading."""
_GAPS_LOOKED_AT, _GAPS_IN_ALL = 60, 60_000
"""Runs of one schedule in the search for the shortest time between two, and of all schedules together."""
_ALIKE = 10
"""Warnings of one kind that are shown one by one."""

Check = Callable[[tuple[Entry, ...], int], Iterator[Fault]]


def find_warnings(config: Config, now_ms: int) -> list[Fault]:
    """The warnings about a configuration at ``now_ms``, those of a kind together."""
    enabled = tuple(entry for entry in config.entries if entry.policies.enabled)
    warnings: list[Fault] = [*config.remarks, *_first(config.task_faults)]
    for check in CHECKS:
        warnings += _first(list(check(enabled, now_ms)))
    return _at_their_settings(warnings)


def _first(faults: Sequence[Fault]) -> list[Fault]:
    """The first warnings of a kind, and how many more there are."""
    if len(faults) <= _ALIKE:
        return list(faults)
    message = f"and {len(faults) - _ALIKE:,} more like the last one"
    return [*faults[:_ALIKE], Fault(faults[-1].file, None, SCHEDULE, message)]


def schedule_warnings(entry: Entry, now_ms: int) -> list[str]:
    """The warnings about one entry alone, without their place."""
    return [fault.message for check in CHECKS for fault in check((entry,), now_ms)]


def _at_their_settings(warnings: list[Fault]) -> list[Fault]:
    """The warnings at the positions of the settings that they are about, where an entry has them itself."""
    documents: dict[str, Document | None] = {}
    placed = []
    for warning in warnings:
        keys = _keys_of(warning)
        if keys is not None and warning.line is not None:
            if warning.file not in documents:
                documents[warning.file] = _document(warning.file)
            document = documents[warning.file]
            paths = [] if document is None else [(SCHEDULE, keys[0], *more) for more in keys[1]]
            found = [position for path in paths if (position := document and document.position_of(path))]
            place = max(found, default=None)
            if place is not None and place.line >= warning.line:
                warning = warning._replace(line=place.line, column=place.column)  # noqa: PLW2901
        placed.append(warning)
    return placed


def _keys_of(warning: Fault) -> tuple[str, tuple[tuple[str, ...], ...]] | None:
    """The entry and the places of its setting, from the dotted path."""
    try:
        table = tomllib.loads(f"{warning.path} = 0")[SCHEDULE]
        [(name, inner)] = table.items()
        [key] = inner
    except (tomllib.TOMLDecodeError, KeyError, ValueError, TypeError, AttributeError):
        return None
    return name, ((key,), ("options", key))


def _document(file: str) -> Document | None:
    try:
        return Document(file, read(Path(file), file))
    except ConfigError:  # it was changed since
        return None


def never(entries: tuple[Entry, ...], now_ms: int) -> Iterator[Fault]:
    """Entries of which no run will be sent any more."""
    over: dict[int, bool] = {}
    for entry in entries:
        policies, expires = entry.policies, entry.options.expires
        if policies.end and to_ms(policies.end) <= now_ms:
            yield entry_warning(entry, "end", f"it ended at {policies.end.isoformat()} and never runs again")
        elif isinstance(expires, datetime) and to_ms(expires) <= now_ms:
            yield entry_warning(entry, "expires", f"that was at {expires.isoformat()}: no run is sent any more")
        elif policies.start or policies.end:
            if timeline(entry, now_ms).next_after_ms(now_ms) is None:
                yield entry_warning(
                    entry, "schedule", "no run is left between its start and its end: it never runs again"
                )
        else:
            key = id(entry.schedule)
            if key not in over:
                over[key] = timeline(entry, now_ms).next_after_ms(now_ms) is None
            if over[key]:
                yield entry_warning(entry, "schedule", "its time has passed: it never runs again")


def hidden(entries: tuple[Entry, ...], now_ms: int) -> Iterator[Fault]:
    """Entries whose blackout covers all that they do."""
    covered: dict[tuple[int, ...], bool] = {}
    for entry in entries:
        policies = entry.policies
        if policies.blackout is None or counts_from_first_seen(entry):
            continue  # when an interval without an anchor runs is not known here
        bounds = id(policies) if policies.start or policies.end else 0
        key = id(entry.schedule), id(policies.blackout), bounds
        if key not in covered:
            covered[key] = _is_hidden(entry, now_ms)
        if covered[key]:
            yield entry_warning(entry, "blackout", "it covers all of the coming runs: none is sent")


def _is_hidden(entry: Entry, now_ms: int) -> bool:
    """True if the entry has runs to come, and no search finds one that its blackout does not cover."""
    line = timeline(entry, now_ms)
    due_ms = line.next_after_ms(now_ms)
    try:
        return due_ms is not None and after_blackouts_ms(entry, line, due_ms) is None
    except BlackedOut:
        return True


def long_lived(entries: tuple[Entry, ...], now_ms: int) -> Iterator[Fault]:
    """Messages that still wait when the next one comes, and jitter that is cut short."""
    concerned = [entry for entry in entries if entry.policies.jitter_ms or isinstance(entry.options.expires, int)]
    period_of = _Periods(concerned, now_ms)
    for entry in concerned:
        expires, jitter_ms = entry.options.expires, entry.policies.jitter_ms
        period = period_of(entry.schedule)
        if period is None:
            continue
        if isinstance(expires, int) and expires > period:
            longer = f"{duration_text(expires)} is longer than the period of {duration_text(period)}"
            yield entry_warning(entry, "expires", f"{longer}: runs pile up when no worker takes them")
        if jitter_ms > period:
            longer = f"{duration_text(jitter_ms)} is longer than the period of {duration_text(period)}"
            yield entry_warning(entry, "jitter", f"{longer}: it is cut to end before the next run")


def both_days(entries: tuple[Entry, ...], _now_ms: int) -> Iterator[Fault]:
    """Cron strings with a day of the month and one of the week: they run on either, which surprises."""
    return _noted(entries, _both_days)


def _both_days(part: Cron) -> Iterator[str]:
    fields = part.written.split() if isinstance(part.written, str) else []
    if len(fields) in {5, 6} and not {fields[-3][0], fields[-1][0]} & {"*", "?"}:
        yield f'"{part.written}" runs on each of these days of the month and also on each of these weekdays'


def odd_crons(entries: tuple[Entry, ...], _now_ms: int) -> Iterator[Fault]:
    """Cron notations that mean something else than they seem to."""
    return _noted(
        entries, lambda part: _odd_text(part.written) if isinstance(part.written, str) else _odd_table(part.written)
    )


def _odd_text(text: str) -> Iterator[str]:
    fields = text.lower().split()
    if len(fields) not in {5, 6}:
        return
    if len(fields) == 6 and fields[0] == "*":
        yield f'"{text}" has six fields, the second first: it runs every second'
    for part, field in zip(fields[-5:], CRON_FIELDS[-5:], strict=True):
        if match := re.fullmatch(r"(\d{1,2})/(\d{1,2})", part):
            yield f'"{part}" is read as "{match[1]}-{field.high}/{match[2]}"'
    for part, size, unit in ((fields[-5], 60, "hour"), (fields[-4], 24, "day")):
        if (match := re.fullmatch(r"\*/(\d{1,2})", part)) and size % int(match[1]):
            yield f'"{part}" starts again at each {unit}: the last step is shorter than the others'
    if re.fullmatch(r"29|30|31", fields[-3]) and fields[-1] in {"*", "?"} and fields[-2] == "*":
        yield f'there is no day {fields[-3]} in some months; write "L" for the last day of each month'


def _odd_table(table: object) -> Iterator[str]:
    if isinstance(table, dict) and "hour" in table and "minute" not in table:
        yield "minute is not set: it runs every minute of these hours; write minute = 0 for once"


def read_by_croniter(entries: tuple[Entry, ...], _now_ms: int) -> Iterator[Fault]:
    """Cron strings that croniter, and so many other programs, read in another way."""
    looked_at: set[str] = set()

    def notes(part: Cron) -> Iterator[str]:
        if isinstance(part.written, str) and len(looked_at) < _SCHEDULES_LOOKED_AT:
            looked_at.add(part.written)
            yield from differences(part.written, with_seconds=False)

    return _noted(entries, notes)


def clock_changes(entries: tuple[Entry, ...], now_ms: int) -> Iterator[Fault]:
    """Runs in the next year that a change of the clock moves, or that have a twin an hour away."""
    changes = _Changes(now_ms // 1000)

    def notes(part: Cron) -> Iterator[str]:
        if part.fixed and not part.zone.is_utc and (note := _clock_change(part, changes(part.zone))):
            yield note

    return _noted(entries, notes, at_most=1)


def no_exchange(entries: tuple[Entry, ...], _now_ms: int) -> Iterator[Fault]:
    """Routing keys that say nothing."""
    for entry in entries:
        options = entry.options
        if options.routing_key and not options.exchange:
            goes = f"to the queue {options.queue}" if options.queue else "to default_queue of [broker]"
            yield entry_warning(entry, "routing_key", f"it says nothing without an exchange: the message goes {goes}")


def herd(entries: tuple[Entry, ...], now_ms: int) -> Iterator[Fault]:
    """The second of the next day in which most entries are due together, if they are too many."""
    alike: dict[object, list[Entry]] = {}
    for entry in entries:
        policies = entry.policies
        if not policies.jitter_ms:
            key = (entry.schedule, policies.start, policies.end, policies.blackout and id(policies.blackout))
            alike.setdefault(key, []).append(entry)
    if sum(map(len, alike.values())) <= HERD:
        return
    seconds: Counter[int] = Counter()
    for group in sorted(alike.values(), key=len, reverse=True)[:_SCHEDULES_LOOKED_AT]:
        for second in _seconds(group[0], now_ms):
            seconds[second] += len(group)
    second, count = max(seconds.items(), key=lambda item: (item[1], -item[0]), default=(0, 0))
    if count > HERD:
        first = next(entry for entry in entries if not entry.policies.jitter_ms)
        message = f'{count:,} runs are due in one second, at {iso_ms(second * 1000)}; jitter = "30s" would spread them'
        yield Fault(_place(first)[0], None, SCHEDULE, message)


CHECKS: tuple[Check, ...] = (
    never,
    hidden,
    long_lived,
    both_days,
    odd_crons,
    read_by_croniter,
    clock_changes,
    no_exchange,
    herd,
)


class _Periods:
    """The shortest time between two of the next runs of a schedule, computed once for each."""

    def __init__(self, entries: Iterable[Entry], now_ms: int) -> None:
        self._now_ms = now_ms
        self._cache: dict[int, int | None] = {}
        schedules = len({id(entry.schedule) for entry in entries}) or 1
        self._runs = max(3, min(_GAPS_LOOKED_AT, _GAPS_IN_ALL // schedules))

    def __call__(self, schedule: Schedule) -> int | None:
        if id(schedule) not in self._cache:
            runs = islice(_runs(bind(schedule, from_ms(self._now_ms)), self._now_ms), self._runs)
            self._cache[id(schedule)] = min((later - due for due, later in pairwise(runs)), default=None)
        return self._cache[id(schedule)]


class _Changes:
    """The moments (s) of a year from ``start`` on at which the clock of a zone is changed, looked up once for each."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._cache: dict[str, list[int]] = {}

    def __call__(self, zone: Zone) -> list[int]:
        if zone.name not in self._cache:
            self._cache[zone.name] = list(self._of(zone))
        return self._cache[zone.name]

    def _of(self, zone: Zone) -> Iterator[int]:
        second = self._start
        while second < self._start + _YEAR_S:
            span = zone.span(second)
            second = span.end
            if zone.span(second).offset != span.offset:
                yield second


def _clock_change(schedule: Cron, changes: Iterable[int]) -> str:
    """Describe the effect of the first clock change forward that concerns a schedule, and of the first one back."""
    notes: dict[str, str] = {}
    for second in changes:
        for due_ms in islice(_runs(schedule, (second - 7200) * 1000, (second + 7200) * 1000), 500):
            due_at = from_ms(due_ms)
            local = f"{due_at.astimezone(schedule.zone.info):%Y-%m-%d %H:%M}"
            match dst_note(schedule, due_at):
                case "gap":
                    note = f"the clock skips its time in {schedule.zone.name}: the run is at {local} instead"
                    notes.setdefault("gap", note)
                case "overlap":
                    note = f"the clock shows {local} twice in {schedule.zone.name}: it runs the first time only"
                    notes.setdefault("overlap", note)
    return "; ".join(notes.values())


def _seconds(entry: Entry, now_ms: int) -> Iterable[int]:
    runs = islice(_runs(timeline(entry, now_ms), now_ms, now_ms + _DAY_MS), _RUNS_LOOKED_AT)
    blackout = entry.policies.blackout
    return {due_ms // 1000 for due_ms in runs if blackout is None or not blackout.covers_ms(due_ms)}


def _runs(schedule: Schedule, after_ms: int, until_ms: float = float("inf")) -> Iterator[int]:
    due_ms = schedule.next_after_ms(after_ms)
    while due_ms is not None and due_ms <= until_ms:
        yield due_ms
        due_ms = schedule.next_after_ms(due_ms)


def _noted(
    entries: Iterable[Entry], notes_of: Callable[[Cron], Iterable[str]], at_most: int | None = None
) -> Iterator[Fault]:
    """Notes on the cron schedules of entries, computed once for each schedule; ``at_most`` so many for an entry."""
    notes: dict[int, list[str]] = {}
    for entry in entries:
        schedule = entry.schedule
        known = notes.get(id(schedule))
        if known is None:
            every = (note for part in _crons(schedule) for note in notes_of(part))
            known = notes[id(schedule)] = list(islice(every, at_most))
        for note in known:
            yield entry_warning(entry, "schedule", note)


def _crons(schedule: Schedule) -> list[Cron]:
    if isinstance(schedule, Cron):
        return [schedule]
    return [part for part in schedule.parts if isinstance(part, Cron)] if isinstance(schedule, Union) else []


def _place(entry: Entry) -> tuple[str, int | None]:
    """The file that an entry is written in, and its line, which the registration of an app does not have."""
    file, _, line = entry.source.rpartition(":")
    return (file, int(line)) if file and line.isdigit() else (entry.source, None)


def entry_warning(entry: Entry, key: str, message: str) -> Fault:
    """A warning about one setting of an entry."""
    return Fault(*_place(entry), dotted((SCHEDULE, entry.name, key)), message)
