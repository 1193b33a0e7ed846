"""Calendars of blackouts: iCalendar files and URLs are read, and again when they may have changed.

The last good one stays in force; of a URL also over a restart, as the daemon keeps a copy in its state directory. A
calendar that cannot be read is a problem in the log and in the daemon's status.
"""

from __future__ import annotations

import logging
import os
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from beatd.clock import SystemClock, monotonic
from beatd.exceptions import Fault, ScheduleError
from beatd.http_deadline import BoundedHandler, Deadline
from beatd.model import Settings
from beatd.redaction import HIDDEN, address_shown, redacted_text
from beatd.schedules.calendars import EventCalendar, Expand, Stretch, calendars_in_use
from beatd.schedules.duration import wall_ms
from beatd.schedules.timezone import Zone
from beatd.schedules.timezone import zone as find_zone
from beatd.timestamps import from_ms, to_ms

log = logging.getLogger("beatd.sources.calendars")

SIZE_MAX = 8 << 20
URL_TIMEOUT_S = 10.0
"""Seconds that a server has for its whole answer."""
LOOK_S = 10.0
"""Seconds between two looks at files."""
URL_EVERY_S, URL_AGAIN_S = 900.0, 60.0
"""Seconds until a URL is fetched again, and after an error."""
COPIES_MAX = 50
"""Copies that are kept; those that were written longest ago go first."""
_MISSING = 'reading it needs an extra: pip install "beatd[calendars]"'

Mark = tuple[int, int] | None
"""How a file looked when it was read: time of change and size."""


class Calendars:
    """Reads the calendars in use. Relative paths begin at ``folder``; copies of calendars from URLs are in ``copies``.
    Only a daemon ``writes`` copies: it owns the directory."""

    def __init__(self, folder: str, copies: Path | None = None, *, writes: bool = False) -> None:
        self._folder, self._copies, self._writes = Path(folder), copies, writes
        self._clock = SystemClock()
        self._marks: dict[str, Mark] = {}
        self._fetched: set[str] = set()
        self._said: dict[str, str] = {}
        self._stopping = threading.Event()
        self._on_look: Callable[[Sequence[str]], None] = lambda _faults: None
        self._thread = threading.Thread(target=self._run, name="calendars", daemon=True)

    @classmethod
    def of(cls, settings: Settings, *, writes: bool = False) -> Self:
        """The calendars of a file's entries."""
        copies = Path(settings.state_dir, "calendars") if settings.state_dir else None
        return cls(str(Path(settings.file).parent), copies, writes=writes)

    def start(self, on_look: Callable[[Sequence[str]], None]) -> None:
        """Read them from now on, in a thread of its own; ``on_look`` is told what cannot be read."""
        self._on_look = on_look
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has ended, or after a second."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(1)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
                faults = {one.place: _fault_text(one) for one in calendars_in_use() if one.error}
                self._log_changes(faults)
                self._on_look([*faults.values()])
            except Exception:
                log.exception("Reading calendars failed in an unexpected way", extra={"event": "calendars_error"})
            self._stopping.wait(LOOK_S)

    def _log_changes(self, faults: dict[str, str]) -> None:
        for place in faults.keys() - self._said.keys():
            log.warning("%s", faults[place], extra={"event": "calendar_unreadable"})
        for place in self._said.keys() - faults.keys():
            log.info("The calendar %s is read again", _shown(place), extra={"event": "calendar_read"})
        self._said = faults

    def look(self, *, unread: bool = False) -> list[Fault]:
        """Read those that may have changed (or that nobody has read); returns what is wrong with each that cannot be
        read."""
        for calendar in calendars_in_use():
            if not unread or calendar.read_ms is None:
                self._look_at(calendar)
            calendar.make_ready(self._clock.now_ms())
        return calendar_faults(calendars_in_use())

    def _look_at(self, calendar: EventCalendar) -> None:
        place, now_ms = calendar.place, self._clock.now_ms()
        mark: Mark = None
        if is_url(place):
            if not self._is_due(calendar):
                return
            calendar.tried_s = monotonic()
            self._fetched.add(place)
        else:
            mark = self._mark(place)
            if place in self._marks and self._marks[place] == mark and not calendar.error:
                return
        try:
            raw = self._read(place)
            expand = expander(raw)
        except Exception as error:  # noqa: BLE001 - somebody else's file may break the library in any way
            if calendar.read_ms is None:
                self._fill_from_copy(calendar)
            calendar.error = _error_text(place, error)
            return
        calendar.fill(expand, now_ms)
        self._marks[place] = mark
        if is_url(place) and self._writes:
            self._keep(place, raw)

    def _is_due(self, calendar: EventCalendar) -> bool:
        """True if a URL is to be fetched: nobody in this process has done so lately, or it is the first one to keep."""
        if calendar.tried_s is None or (self._writes and calendar.place not in self._fetched):
            return True
        return monotonic() - calendar.tried_s >= (URL_AGAIN_S if calendar.error else URL_EVERY_S)

    def _copy_of(self, place: str) -> Path | None:
        """The copy of a calendar of a URL. The URL may be secret, and is not in its name."""
        if self._copies is None or not is_url(place):
            return None
        return self._copies / f"{sha256(place.encode()).hexdigest()[:32]}.ics"

    def _fill_from_copy(self, calendar: EventCalendar) -> None:
        copy = self._copy_of(calendar.place)
        if copy is None:
            return
        with suppress(Exception):  # one that is missing, or broken: as if there were none
            with copy.open("rb") as file:
                raw, written = file.read(SIZE_MAX + 1), os.fstat(file.fileno()).st_mtime
            calendar.fill(expander(raw), int(written * 1000))

    def _keep(self, place: str, raw: bytes) -> None:
        """Write a copy, whole or not at all; what cannot be written is only logged."""
        copy = self._copy_of(place)
        if copy is None:
            return
        try:
            copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            half = copy.with_suffix(".part")
            with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(raw)
            half.replace(copy)
            newest = sorted(copy.parent.glob("*.ics"), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in newest[COPIES_MAX:]:
                old.unlink(missing_ok=True)
        except OSError as error:
            log.warning("No copy of a calendar can be kept: %s", error, extra={"event": "calendar_not_kept"})

    def _mark(self, place: str) -> Mark:
        try:
            found = (self._folder / place).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    def _read(self, place: str) -> bytes:
        if is_url(place):
            raw = _fetched(place)
        else:
            path = self._folder / place
            if path.exists() and not path.is_file():
                raise ValueError("it is not a regular file")
            with path.open("rb") as file:
                raw = file.read(SIZE_MAX + 1)
        if len(raw) > SIZE_MAX:
            raise ValueError(f"it is larger than {SIZE_MAX >> 20} MiB")
        return raw


def _fetched(place: str) -> bytes:
    """The first bytes behind a URL, enough to see if they are too many. Raises OSError, or what http.client raises."""
    request = urllib.request.Request(place, headers={"User-Agent": "beatd"})  # noqa: S310 - http and https only
    with Deadline(URL_TIMEOUT_S) as deadline:
        try:
            with urllib.request.build_opener(BoundedHandler(deadline)).open(request) as answer:
                raw: bytes = answer.read(SIZE_MAX + 1)
        finally:
            if deadline.expired:  # what was read may be a part, and an error the consequence
                raise TimeoutError(f"no whole answer within {URL_TIMEOUT_S:g} s")
    return raw


def is_url(place: str) -> bool:
    """True for a calendar that is fetched, not a file."""
    return "://" in place


def calendar_faults(calendars: Sequence[EventCalendar]) -> list[Fault]:
    """The calendars that cannot be read."""
    return [Fault(_shown(one.place), None, "", _fault_text(one)) for one in calendars if one.error]


def _fault_text(calendar: EventCalendar) -> str:
    text = f"the calendar {_shown(calendar.place)} cannot be read: {calendar.error}"
    if calendar.read_ms is None:
        return f"{text}; it covers nothing"
    return f"{text}; the one of {from_ms(calendar.read_ms):%Y-%m-%d %H:%M:%S} UTC is used"


def _shown(place: str) -> str:
    """The place; of a URL only the server, as path and query are the secret of a private calendar."""
    return address_shown(place) if is_url(place) else place


def _error_text(place: str, error: Exception) -> str:
    """The text of an error without the path and query of the place, which http.client repeats."""
    text = " ".join(str(error).split()) or type(error).__name__
    if is_url(place):
        path = place.partition("://")[2].partition("/")[2]
        text = text.replace(f"/{' '.join(path.split())}", f"/{HIDDEN}") if path.strip() else text
    return redacted_text(text, at_most=300)


def expander(raw: bytes) -> Expand:
    """Return the function that gives the events of a year. Raises ValueError, or ScheduleError without the extra."""
    try:
        import icalendar  # noqa: PLC0415 - an optional dependency
        import recurring_ical_events  # noqa: PLC0415
    except ImportError:
        raise ScheduleError(_MISSING) from None
    calendar = icalendar.Calendar.from_ical(raw)
    query = recurring_ical_events.of(calendar)
    lock = threading.Lock()

    def expand(year: int, zone: Zone) -> list[Stretch]:
        start, end = date(year, 1, 1) - timedelta(days=1), date(year + 1, 1, 1) + timedelta(days=1)
        with lock:
            events = query.between(start, end)
        return list(_stretches(events, zone))

    expand(2026, find_zone("UTC"))  # says at once what is wrong with a rule
    return expand


def _stretches(events: Sequence[Any], zone: Zone) -> Iterator[Stretch]:
    for event in events:
        if str(event.get("STATUS", "")).upper() != "CANCELLED":
            yield _instant(event.start, zone), _instant(event.end, zone)


def _instant(moment: date | datetime, zone: Zone) -> int:
    """The instant in ms; dates and times without a zone are those of the entry's zone."""
    if not isinstance(moment, datetime):
        return wall_ms(datetime.combine(moment, time()), zone)
    return wall_ms(moment, zone) if moment.tzinfo is None else to_ms(moment)
