"""Entries and notes as an importer collects them, and what importers of commands have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from beatd.exceptions import ScheduleError
from beatd.importers.report import FoundSchedule, Note
from beatd.schedules import Schedule, parse
from beatd.schedules.cron import Cron
from beatd.schedules.schedule import Union
from beatd.timestamps import in_range, to_ms

_NO_NAME = re.compile(r"[^\w.:@/ -]+")
_LONGEST_NAME = 200
OVERLAPS = {"allow": "allow", "forbid": "skip", "replace": "skip"}
ANY_AGE = "366d"
"""Catch-up window of what is made up however long ago it was missed."""
OTHER_USER = "only a worker that is root runs programs as another user"


class Collected:
    """Entries and notes found so far, in a file or place that is ``shown``."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.entries: dict[str, dict[str, Any]] = {}
        self.notes: list[Note] = []
        self.last_runs: dict[str, int] = {}
        self._places: dict[str, str] = {}
        self._place = ""

    @contextmanager
    def reading(self, place: str) -> Iterator[None]:
        """Guard the reading of one definition: an error in it becomes a note, and the others are read."""
        self._place = place
        try:
            yield
        except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
            why = error.args[0] if error.args and isinstance(error.args[0], str) else type(error).__name__
            self.notes.append(Note(place, "", " ".join(str(why).split())[:300]))

    def place(self, line: int) -> str:
        """``file:12``, or the file alone for a line that is not known."""
        return f"{self.shown}:{line}" if line else self.shown

    def add(self, name: str, fields: dict[str, Any]) -> str:
        """Add an entry under its name, or with a number if that is taken; returns the name."""
        base = _NO_NAME.sub("-", name).strip("- ")[:_LONGEST_NAME] or "entry"
        unique, count = base, 1
        while unique in self.entries:
            count += 1
            unique = f"{base}-{count}"
        self.entries[unique] = fields
        if self._place not in ("", unique):
            self._places[unique] = self._place
        return unique

    def note(self, name: str, about: str, why: str) -> None:
        """Something of an entry that is not carried over, or means something else."""
        self.notes.append(Note(name, about, why))

    def ran(self, name: str, moment: datetime | None) -> None:
        """Remember when an entry last ran."""
        if moment is not None:
            ms = to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
            if in_range(ms):
                self.last_runs[name] = ms

    def note_gaps(self, scheduler: str, timezone: str | None) -> None:
        """Note, once, the entries with a time that a clock change skips, if the ``scheduler`` makes no such run."""
        names = [name for name, fields in self.entries.items() if _falls_into_gap(fields, timezone or "UTC")]
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            why = f"{', '.join(names[:5])}{more}: a time that a clock change skips runs right after it; {scheduler} "
            self.note(self.shown, "dst", why + 'leaves it out, and so does beatd with dst = "skip"')

    def found(self, timezone: str | None) -> FoundSchedule:
        """The result; without a ``timezone`` entries that have none of their own are in UTC."""
        return FoundSchedule(self.entries, tuple(self.notes), timezone or "UTC", self.last_runs, self._places)


_CYCLE_BEGIN_S, _CYCLE_END_S = 1_767_225_600, 1_767_225_600 + 28 * 1_461 * 86_400 // 4
"""28 years from 2026 on (s): after them dates fall on the same weekdays again."""


def _falls_into_gap(fields: Mapping[str, Any], timezone: str) -> bool:
    """True if a clock change ever skips a time of an entry, which then runs after it."""
    try:
        schedule = parse(fields.get("schedule"), timezone=str(fields.get("timezone", timezone)))
    except ScheduleError:
        return False  # reported where the entry is read
    return fields.get("dst") != "skip" and any(_is_skipped(part) for part in _parts(schedule))


def _parts(schedule: Schedule) -> tuple[Schedule, ...]:
    return schedule.parts if isinstance(schedule, Union) else (schedule,)


def _is_skipped(schedule: Schedule) -> bool:
    if not isinstance(schedule, Cron) or not schedule.fixed or schedule.zone.is_utc:
        return False
    span = schedule.zone.span(_CYCLE_BEGIN_S)
    while span.end < _CYCLE_END_S:
        before, span = span, schedule.zone.span(span.end)
        wall = schedule.wall_after(span.start + before.offset - 1)
        if wall is not None and wall < span.start + span.offset:
            return True
    return False


_ZONES = ("TZ=", "CRON_TZ=")


def without_zone(schedule: str) -> tuple[str, str]:
    """A cron string without a time zone before it, and that zone; empty for none."""
    if not schedule.startswith(_ZONES):
        return schedule, ""
    prefix, _, rest = schedule.partition(" ")
    return rest.strip(), prefix.partition("=")[2]


def robfig_times(schedule: str) -> str:
    """A cron string of robfig/cron, which Kubernetes and dkron use, as beatd reads it.

    There ``*/2`` restricts the days like a list of them: a day of the month *or* a weekday suffices beside it.
    """
    parts = schedule.split()
    if len(parts) not in (5, 6) or any({"*", "?", "*/1"} & set(parts[place].split(",")) for place in (-3, -1)):
        return schedule
    for place, whole in ((-3, "1-31"), (-1, "0-6")):
        parts[place] = re.sub(r"(?<![^,])[*?]/", f"{whole}/", parts[place])
    return " ".join(parts)


def instant(value: Any) -> datetime | None:
    """A moment in ISO 8601, or one that the reader has made; None for anything else."""
    if isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def command(args: list[str], **kwargs: Any) -> dict[str, Any]:
    """The fields of an entry that runs a program; empty ones are left out."""
    given = {key: value for key, value in kwargs.items() if value not in (None, "", {}, [])}
    return {"task": "beatd.command", "args": args, **({"kwargs": given} if given else {})}


def seconds(text: str, what: str) -> int:
    """A whole number of seconds. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{what}: expected seconds, not {text[:40]!r}")
    return int(text)


def leftovers(given: Mapping[str, Any], known: set[str], say: Callable[[str], object]) -> None:
    """Say which keys are not carried over, in one sentence."""
    names = sorted(str(key) for key, value in given.items() if key not in known and value not in (None, {}, [], ""))
    if names:
        say(f"not carried over: {', '.join(names)[:300]}")
