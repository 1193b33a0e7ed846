"""Instants as whole milliseconds since the epoch: exact, comparable, what the store and messages carry. No clock.

Moments that people write lie within the years 1970 to 9998, and no schedule runs later: so an instant can be shown in
any time zone, which may shift it by a day, and ``datetime`` still holds it.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

LAST_MS = (datetime(9999, 1, 1, tzinfo=UTC) - EPOCH) // MILLISECOND - 1
"""The last instant: the end of the year 9998."""
FIRST_MS = -86_400_000
"""The earliest moment that can be written: the year 1970 has begun by then in no zone, and a day later in all."""
EARLIEST_MS = (datetime(2, 1, 1, tzinfo=UTC) - EPOCH) // MILLISECOND
"""Schedules are not walked before this instant, the start of the year 2."""
LONGEST_MS = 36_525 * 86_400_000
"""The longest duration that can be written: 100 years."""


def to_ms(moment: datetime) -> int:
    """An aware datetime as whole milliseconds since the epoch, rounded down; exact, as no float is involved.

    Raises TypeError for a naive one.
    """
    if moment.tzinfo is None:
        raise TypeError(f"an aware datetime is needed, got the naive {moment!r}")
    return (moment - EPOCH) // MILLISECOND


def from_ms(ms: int) -> datetime:
    """Milliseconds since the epoch as an aware UTC datetime, exactly; an instant out of range becomes the nearest one.

    A duration added to a moment, or a number in the store, may lie beyond the end of time: nobody who shows or sends it
    has to handle that.
    """
    return EPOCH + timedelta(milliseconds=min(max(ms, EARLIEST_MS), LAST_MS))


_UNITS = ((86_400_000, "days"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


def span_text(ms: int) -> str:
    """A measured duration for people: ``15 ms``, ``1.2 s``, ``17 s``, ``1 min 17 s``, ``3 h 10 min``, ``5 days 2 h``.

    Rounded down, and not below 0. :func:`beatd.schedules.duration_text` writes a duration exactly, as a file has it.
    """
    if ms < 1_000:
        return f"{max(ms, 0)} ms"
    if ms < 10_000:
        return f"{ms // 100 / 10:g} s"
    if ms < 60_000:
        return f"{ms // 1_000} s"
    number = 0 if ms >= 2 * _UNITS[0][0] else 1 if ms >= _UNITS[1][0] else 2
    (size, unit), (part_size, part_unit) = _UNITS[number : number + 2]
    whole, rest = divmod(ms, size)
    part = rest // part_size
    return f"{whole:,} {unit}" + (f" {part} {part_unit}" if part else "")


def in_range(ms: int) -> bool:
    """True if a moment lies in the years 1970 to 9998, the range that every notation can carry."""
    return FIRST_MS <= ms <= LAST_MS


def iso_ms(ms: int) -> str:
    """ISO 8601 in UTC with milliseconds, ``2026-01-01T00:00:00.000+00:00``: how instants travel in messages."""
    if not EARLIEST_MS <= ms <= LAST_MS:
        ms = min(max(ms, EARLIEST_MS), LAST_MS)
    return f"{_iso_second(ms // 1000)}.{ms % 1000:03}+00:00"


def utc_text(ms: int) -> str:
    """``2026-11-27 12:00:00 UTC``: how texts name a moment that are written before it is known who reads them.

    Those are errors, problems, log lines and notifications. :func:`beatd.client.moments.local_text` shows such a text
    on the clocks of a zone.
    """
    return f"{from_ms(ms):%Y-%m-%d %H:%M:%S} UTC"


@functools.lru_cache(maxsize=1024)
def _iso_second(seconds: int) -> str:
    """A second, without its zone. The runs of a herd, and of a busy second, share it: hence the cache."""
    return (EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
