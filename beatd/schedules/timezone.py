"""Time zones as spans of constant offset, so that an ordinary day is pure integer arithmetic."""

from __future__ import annotations

import difflib
import io
import os
import re
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from beatd.exceptions import ScheduleError
from beatd.schedules.literals import or_list, quoted, shown

DAY = 86_400
#: Offsets are read from zoneinfo in blocks of 2**25 seconds (388 days).
BLOCK_BITS = 25
#: How far apart offsets are sampled. The two closest changes in all of tzdata are 6.9 days apart
#: (Recife 2000, Gaza 2040), so that no pair of changes hides between two samples.
SAMPLE = 3 * DAY
#: Nothing is asked of zoneinfo outside of these instants: datetime ends there.
FIRST = -62_135_596_800 + 2 * DAY
LAST = 253_402_300_800 - 2 * DAY

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALWAYS_UTC = frozenset({"UTC", "Etc/UTC", "UCT", "Etc/UCT", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal"})


class Span(NamedTuple):
    """A stretch of time with one UTC offset. All in seconds; ``start`` and ``end`` since the epoch."""

    start: int
    end: int
    offset: int
    fresh: int
    """The wall time from which on the clock shows what it has not shown before: later than
    ``start + offset`` only after the clock was set back."""


FOREVER = Span(-(1 << 60), 1 << 60, 0, -(1 << 60))


class Zone:
    """An IANA time zone. Shared: get it with ``zone(name)``."""

    __slots__ = ("_blocks", "_info", "name")

    def __init__(self, name: str, info: ZoneInfo) -> None:
        self.name = name
        self._info = info
        self._blocks: dict[int, tuple[Span, ...]] = {}

    def __reduce__(self) -> tuple[object, tuple[str | None]]:
        return zone, (None if self.is_open else self.name,)

    @property
    def info(self) -> ZoneInfo:
        """The zone as ``datetime`` wants it."""
        return self._info

    @property
    def is_utc(self) -> bool:
        return self.name in _ALWAYS_UTC

    @property
    def is_open(self) -> bool:
        """True if no zone was named: an app's ``crontab(…)`` takes that of the app."""
        return self is zone(None)

    def span(self, t: int) -> Span:
        """The span that holds instant ``t``. It may end where a block does, with no change of the offset."""
        block = t >> BLOCK_BITS
        for span in self._blocks.get(block) or self._read(block):
            if t < span.end:
                return span
        raise AssertionError("a block's last span ends where the block does")

    def instant(self, wall: int) -> tuple[int, bool]:
        """The first instant at which the wall clock shows ``wall``, or has just jumped over it (then with True)."""
        span = self.span(wall - DAY)
        while wall - span.offset >= span.end:
            span = self.span(span.end)
        due = wall - span.offset
        return (due, False) if due >= span.start else (span.start, True)

    def is_repeated(self, t: int) -> bool:
        """True if the wall clock shows the time of instant ``t`` twice, because it was or will be set back."""
        span = self.span(t)
        wall = t + span.offset
        if wall < span.fresh:
            return True
        while span.end < t + DAY:
            after = self.span(span.end)
            if wall >= after.start + after.offset:
                return True
            span = after
        return False

    def _read(self, block: int) -> tuple[Span, ...]:
        start, end = block << BLOCK_BITS, (block + 1) << BLOCK_BITS
        if self.is_utc:
            spans: tuple[Span, ...] = (FOREVER,)
        else:
            spans = tuple(self._spans(start, end))
        self._blocks[block] = spans
        return spans

    def _spans(self, start: int, end: int) -> Iterator[Span]:
        changes = self._changes(start - SAMPLE, end)  # from before the block on, so that a set-back there is seen
        before = changes[0][1]
        for (since, offset), (until, _) in pairwise([*changes, (end, 0)]):
            if until > start:
                yield Span(max(since, start), until, offset, since + max(before, offset))
            before = offset

    def _changes(self, start: int, end: int) -> list[tuple[int, int]]:
        """(instant, offset from then on) for ``start`` and for each change before ``end``."""
        changes = [(start, self._offset(start))]
        low = start
        while low < end - 1:
            high = min(low + SAMPLE, end - 1)
            if self._offset(high) != changes[-1][1]:
                changes.append(self._change_between(low, high))
            low = high
        return changes

    def _change_between(self, low: int, high: int) -> tuple[int, int]:
        old, new = self._offset(low), self._offset(high)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == old:
                low = middle
            else:
                high = middle
        return high, new

    def _offset(self, t: int) -> int:
        moment = _EPOCH + timedelta(0, min(max(t, FIRST), LAST))
        offset = cast(timedelta, moment.astimezone(self._info).utcoffset())
        return offset.days * DAY + offset.seconds


def zone(place: str | tzinfo | None) -> Zone:
    """The zone of that IANA name, or of an object with one. Raises ScheduleError that names the near ones.

    ``None`` is for a schedule whose zone is not said yet: UTC, until somebody says another (see ``Zone.is_open``).
    """
    return _named(name_of(place) if isinstance(place, tzinfo) else place)


@cache
def _named(name: str | None) -> Zone:
    if name is None:
        return Zone("UTC", _info("UTC"))
    try:
        return Zone(name, _info(name))
    except (LookupError, ValueError, OSError, TypeError):
        raise ScheduleError(_unknown(name)) from None


def _info(name: str) -> ZoneInfo:
    """The zone of that name; UTC is known also where no time zone data is installed."""
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        if name != "UTC":
            raise
        return ZoneInfo.from_file(io.BytesIO(_UTC_DATA), key=name)


_UTC_DATA = b"TZif".ljust(20, b"\0") + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + bytes(6) + b"UTC\0"
"""Data of a zone with one offset, 0, and its name: RFC 9636, version 1."""


def name_of(place: str | tzinfo) -> str:
    """The IANA name of an object of zoneinfo, pytz, dateutil or datetime. Raises ScheduleError if it has none.

    A text is returned as it is. dateutil's objects keep the path of their file; its ``tzlocal`` is the host's zone.
    """
    if isinstance(place, str):
        return place
    shown_as = repr(place)
    name = getattr(place, "key", None) or getattr(place, "zone", None)  # of zoneinfo, of pytz
    if found := re.search(r"tzfile\('([^']*)'\)", shown_as):
        name = _name_in(found[1])
    elif shown_as == "tzlocal()":
        name = _name_in(os.environ.get("TZ", "").removeprefix(":") or "/etc/localtime")
    elif name is None and place.utcoffset(None) == timedelta(0):
        name = "UTC"
    if name is None:
        text = f"timezone = {shown_as}: it has no IANA name"
        raise ScheduleError(f'{text}; write zoneinfo.ZoneInfo("Europe/Berlin"), or "Europe/Berlin"')
    return str(name)


def _name_in(path: str) -> str | None:
    """The name at the end of the path of a zone's file, such as ``/usr/share/zoneinfo/Europe/Berlin``, or of a link."""
    known = available_timezones() - {"localtime"}
    for parts in (Path(path).parts, Path(path).resolve().parts):
        if found := next((name for n in range(len(parts)) if (name := "/".join(parts[n:])) in known), None):
            return found
    return None


def _unknown(name: object) -> str:
    if not isinstance(name, str) or not name:
        return f'timezone = {shown(name)}: expected an IANA name such as "Europe/Berlin" or "UTC"'
    known = sorted(available_timezones() - {"localtime"})
    if not known:
        return f"time zone {quoted(name)}: this host has no time zone data; install it: pip install tzdata"
    folded = {each.casefold(): each for each in known}
    cities: dict[str, str] = {}
    for each in known:
        cities.setdefault(each.rpartition("/")[2].casefold(), each)
    sought = name.casefold().replace(" ", "_")
    if sought in folded:
        return f"unknown time zone {quoted(name)}; did you mean {folded[sought]}?"
    near = [folded[each] for each in difflib.get_close_matches(sought, folded, n=3, cutoff=0.75)]
    city = sought.rpartition("/")[2]
    near += [cities[each] for each in difflib.get_close_matches(city, cities, n=2, cutoff=0.8)]
    hint = f"; did you mean {or_list(dict.fromkeys(near))}?" if near else ', such as "Europe/Berlin" or "UTC"'
    return f"unknown time zone {quoted(name)}: expected an IANA name{hint}"
