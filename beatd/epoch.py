"""Instants as whole milliseconds since the epoch: exact, comparable, what the store and messages carry. No clock."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

LAST_MS = (datetime(9999, 1, 1, tzinfo=UTC) - EPOCH) // MILLISECOND - 1
"""The last instant: the end of the year 9998."""


def to_ms(moment: datetime) -> int:
    """An aware datetime as whole milliseconds since the epoch, rounded down; exact, as no float is involved.

    Raises TypeError for a naive one.
    """
    if moment.tzinfo is None:
        raise TypeError(f"an aware datetime is needed, got the naive {moment!r}")
    return (moment - EPOCH) // MILLISECOND


def from_ms(ms: int) -> datetime:
    """Milliseconds since the epoch as an aware UTC datetime, exactly. Raises OverflowError beyond the year 9999."""
    return EPOCH + timedelta(milliseconds=ms)


@functools.lru_cache(maxsize=1024)
def iso_ms(ms: int) -> str:
    """ISO 8601 in UTC with milliseconds, ``2026-01-01T00:00:00.000+00:00``: how instants travel in messages.

    The runs of a herd share their instants, hence the cache.
    """
    return from_ms(ms).isoformat(timespec="milliseconds")
