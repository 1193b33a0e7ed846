"""Planned runs of a file in a span of time, for assertions: the answer of the daemon and ``beatd next``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from beatd import config, sources
from beatd.config.values import InvalidValue, moment
from beatd.planning.preview import Upcoming, all_upcoming
from beatd.planning.simulation import window_state
from beatd.schedules import zone
from beatd.timestamps import to_ms

RUNS_MAX = 100_000
"""Runs that one call returns at most: a test that wants more has mistaken a date."""


class PlannedRun(NamedTuple):
    """One run of an entry. It prints as its entry and its local time."""

    entry: str
    due: datetime
    """When it is due, in the time zone of the entry."""
    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    queue: str | None
    """The entry's own queue; ``None`` where the broker's default is used."""
    note: str
    """What is out of the ordinary: ``moved out of the skipped hour``."""

    def __str__(self) -> str:
        return f"{self.entry} {self.due:%Y-%m-%d %H:%M:%S %Z}"


def runs_between(
    file: str | Path,
    since: str | datetime,
    until: str | datetime,
    *,
    entry: str | None = None,
    app: str | None = None,
) -> list[PlannedRun]:
    """Return the runs that are due from ``since`` on and before ``until``, in the order in which they leave.

    Runs that would not be sent, such as those in a blackout, are left out. Moments are datetimes or texts as
    ``"2026-12-24 18:00"``; without an offset they are in the time zone of the file. ``entry`` names one entry, ``app``
    (``"module:app"``) adds the entries that an app registers.

    Raises :class:`beatd.exceptions.ConfigError` for a wrong file, LookupError for an entry that is not in it,
    ValueError for a wrong moment and for more than 100,000 runs.
    """
    loaded = sources.load(config.find(str(file)), app=app)
    since_ms = _ms(since, "since", loaded.settings.timezone)
    until_ms = _ms(until, "until", loaded.settings.timezone)
    if until_ms < since_ms:
        raise ValueError(f"until ({until}) is before since ({since})")
    entries = [each for each in loaded.entries if entry in (None, each.name)]
    if entry is not None and not entries:
        names = ", ".join(sorted(each.name for each in loaded.entries)[:10])
        raise LookupError(f'there is no entry "{entry}" in {file}; it has {names or "no entry"}')
    runs: list[PlannedRun] = []
    planned = all_upcoming(
        entries, since_ms - 1, state_of=lambda each: window_state(each, since_ms), until_ms=until_ms, sent_only=True
    )
    for run in planned:
        if len(runs) == RUNS_MAX:
            raise ValueError(f"more than {RUNS_MAX:,} runs between {since} and {until}; name one entry, or less time")
        runs.append(_planned(run))
    return runs


def _ms(given: str | datetime, name: str, timezone: str) -> int:
    if isinstance(given, datetime):
        return to_ms(given if given.tzinfo else given.replace(tzinfo=zone(timezone).info))
    try:
        return to_ms(moment(given, timezone))
    except InvalidValue as error:
        raise ValueError(f"{name}: {given!r}: {error}") from None


def _planned(run: Upcoming) -> PlannedRun:
    entry = run.entry
    return PlannedRun(entry.name, run.local, entry.task, entry.args, entry.kwargs, entry.options.queue, run.note)
