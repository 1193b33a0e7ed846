"""Tables of entries that come from elsewhere than a file: read many at a time, and made fit to be stored as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from beatd.config.entries import EntryReader, without_none
from beatd.config.faults import Report
from beatd.exceptions import Fault
from beatd.model import Entry
from beatd.schedules import Schedule
from beatd.schedules.cron import Cron
from beatd.schedules.interval import Relative

_PLAIN = (str, int, float, list, tuple, dict)
"""Asked about first: whether a value is a Schedule takes long to find out."""


def read_tables(
    tables: Mapping[str, Any], *, timezone: str, defaults: Mapping[str, Any], source_of: Callable[[str], str]
) -> tuple[dict[str, Entry], list[Fault]]:
    """The entries in ``tables``, by name, and everything that is wrong with the others.

    ``timezone`` and ``defaults`` stand in for what a table does not say, as in a file; ``source_of`` tells the place of
    an entry from its name. Entries that are alike share what they have in common.
    """
    reader = EntryReader(timezone, defaults)
    entries: dict[str, Entry] = {}
    faults: list[Fault] = []
    for name, table in tables.items():
        report = Report()
        entry = reader.read(name, without_none(table) if isinstance(table, Mapping) else table, report, source_of(name))
        if entry is None or report:
            faults += report.faults(source_of(name), lambda _path: None)
        else:
            entries[name] = entry
    return entries, faults


def plain_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table without Python's own values: schedules in their notation with their zone, timedeltas in seconds."""
    fields = {key: _plain(value) for key, value in table.items()}
    if isinstance(options := table.get("options"), Mapping):
        fields["options"] = {key: _plain(value) for key, value in options.items()}
    schedule = table.get("schedule")
    if isinstance(schedule, Cron | Relative) and not schedule.zone.is_open:
        fields.setdefault("timezone", schedule.zone.name)
    if isinstance(schedule, Cron) and schedule.skip:
        fields.setdefault("dst", "skip")
    return fields


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, _PLAIN) and isinstance(value, Schedule):
        return value.notation
    return value
