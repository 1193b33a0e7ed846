"""Calendar of the runs to come, as iCalendar (RFC 5545): one entry, or all that do not run all the time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC
from itertools import islice, takewhile

from beatd.exceptions import BeatdError
from beatd.model import Entry, EntryState, run_id
from beatd.planning.catchup import ResumePoints
from beatd.planning.preview import NOTHING_WAITS, Upcoming, upcoming
from beatd.timestamps import from_ms

DAYS = 30
"""Days that a calendar covers."""
EVENTS_MAX = 2_000
OF_ONE_MAX = 200
"""Runs of one entry in the calendar of all: of what runs more often only the first."""
_LINE_MAX = 73


def calendar(title: str, runs: Iterable[Upcoming], now_ms: int) -> str:
    """The calendar of these runs."""
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//beatd//runs to come//EN",
        "METHOD:PUBLISH",
        f"X-WR-CALNAME:{_text(title)}",
        "REFRESH-INTERVAL;VALUE=DURATION:PT1H",
    ]
    for run in islice(runs, EVENTS_MAX):
        lines += _event(run, now_ms)
    return "".join(f"{folded}\r\n" for line in [*lines, "END:VCALENDAR"] for folded in _folded(line))


def first_runs(
    entries: Iterable[Entry],
    state_of: Callable[[Entry], EntryState],
    now_ms: int,
    most: int,
    waiting: Mapping[str, int] = NOTHING_WAITS,
) -> list[Upcoming]:
    """The runs of the coming days that are sent, in order; of each entry the first ``most``.

    An entry whose runs cannot be computed is left out. ``waiting`` are due times of runs that wait for the run before.
    """
    points, until_ms = ResumePoints(now_ms, waiting), now_ms + DAYS * 86_400_000
    found: list[Upcoming] = []
    for entry in entries:
        with suppress(BeatdError):
            runs = upcoming(entry, state_of(entry), points, sent_only=True)
            found += takewhile(lambda run: run.due_ms < until_ms, islice(runs, most))
    return sorted(found, key=lambda run: (run.due_ms, run.entry.name))


def _event(run: Upcoming, now_ms: int) -> Sequence[str]:
    start_ms = now_ms if run.waits else run.due_ms  # it leaves now at the earliest
    length_ms = max(run.entry.policies.max_runtime_ms or 0, 60_000)
    return (
        "BEGIN:VEVENT",
        f"UID:{run_id(run.entry.name, run.due_ms)}@beatd",
        f"DTSTAMP:{_moment(now_ms)}",
        f"DTSTART:{_moment(start_ms)}",
        f"DTEND:{_moment(start_ms + length_ms)}",
        f"SUMMARY:{_text(run.entry.name)}",
        f"DESCRIPTION:{_text(run.entry.task + (f'; {run.note}' if run.note else ''))}",
        "TRANSP:TRANSPARENT",
        "END:VEVENT",
    )


def _moment(ms: int) -> str:
    return f"{from_ms(ms).astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _text(text: str) -> str:
    """A text with what the format gives a meaning escaped, and without control characters."""
    escaped = text.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,").replace("\n", "\\n")
    return "".join(char for char in escaped if char.isprintable() or char == " ")


def _folded(line: str) -> Iterator[str]:
    """A line in parts of at most 75 bytes, as the format wants it."""
    part, first = "", True
    for char in line:
        if len((part + char).encode(errors="replace")) > _LINE_MAX:
            yield part if first else f" {part}"
            part, first = "", False
        part += char
    yield part if first else f" {part}"
