"""The report of an import: each definition that was found is read as the file would be; what does not pass is noted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from beatd.config.entries import EntryReader
from beatd.config.errors import ErrorReport, dotted
from beatd.config.fields import OPTIONS, POLICIES, is_off
from beatd.config.writer import Unwritable, entry_table, to_toml
from beatd.model import Entry


class Note(NamedTuple):
    """Something that was not carried over, or means something else now."""

    entry: str
    """Its name, or where it stands (``crontab:12``)."""
    about: str
    """The part that is meant (``options.compression``); empty for the whole entry."""
    why: str

    def __str__(self) -> str:
        return f"{self.entry}: {self.about}: {self.why}" if self.about else f"{self.entry}: {self.why}"


class FoundSchedule(NamedTuple):
    """The fields of each entry as ``beat.toml`` has them, checked by nobody yet; and what had to be left behind."""

    entries: Mapping[str, Mapping[str, Any]]
    notes: tuple[Note, ...] = ()
    timezone: str = "UTC"
    """The time zone of entries that have none of their own."""
    last_runs: Mapping[str, int] = MappingProxyType({})
    """When entries last ran (ms), as far as the source knows it."""
    places: Mapping[str, str] = MappingProxyType({})
    """Where entries stand (``crontab:12``), as far as the source has lines."""


_SPARE = {"options", "relative", "dst", *OPTIONS, *POLICIES}
"""Fields without which an entry still is the entry: they are left out when they cannot be read."""


_LONGEST_LINE = 400


class ImportResult(NamedTuple):
    """Result of an import: the entries, the file with them, and all notes."""

    entries: tuple[Entry, ...]
    tables: Mapping[str, Mapping[str, Any]]
    toml: str
    notes: tuple[Note, ...]
    lost: int
    """Entries, or lines, that were not carried over."""


def carry_over(
    found: FoundSchedule,
    *,
    header: tuple[str, ...] = (),
    timezone: str | None = None,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> ImportResult:
    """Make entries, and the text of a file, of what was found. Its header lists what was left behind.

    ``timezone`` and ``defaults`` are those of the file: by default the time zone of what was found, and none.
    """
    of_file = str(defaults.get("timezone", timezone or found.timezone))
    reader = EntryReader(found.timezone, {})
    entries, tables, notes = [], {}, list(found.notes)
    lost = [note for note in notes if not note.about]
    for name, fields in found.entries.items():
        entry, said = _entry(reader, name, fields)
        if entry is not None:
            try:
                tables[name] = _overriding(defaults, fields, entry) | entry_table(entry, of_file)
                entries.append(entry)
            except Unwritable as error:
                said.append(Note(name, dotted(error.path), error.reason))
                entry = None
        if entry is None and name in found.places:
            said[-1] = said[-1]._replace(entry=f"{name} ({found.places[name]})")
        notes += said
        lost += said[-1:] if entry is None else ()
    left_behind = (f"Left behind: {' '.join(str(note).split())}" for note in lost)
    toml = to_toml(tables, timezone=of_file, header=(*header, *map(printable, left_behind)))
    return ImportResult(tuple(entries), tables, toml, tuple(notes), len(lost))


def _overriding(defaults: Mapping[str, Any], fields: Mapping[str, Any], entry: Entry) -> dict[str, Any]:
    """Return the fields that override the defaults of the file: policies that the source names, although they are the
    usual ones, and what it turns off."""
    named = (key for key in ("catch_up", "overlap", "enabled") if key in fields and key in defaults)
    options = fields.get("options")
    own = {**(options if isinstance(options, Mapping) else {}), **fields}
    off = {key: False for key, value in own.items() if key in defaults and is_off(key, value)}
    return off | {key: getattr(entry.policies, key) for key in named if key not in off}


def printable(text: str) -> str:
    """The text for one line of a file or a terminal: without control characters, and at most so long."""
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text)
    return shown if len(shown) <= _LONGEST_LINE else f"{shown[: _LONGEST_LINE - 1]}…"


def _entry(reader: EntryReader, name: str, fields: Mapping[str, Any]) -> tuple[Entry | None, list[Note]]:
    """The entry, without those of its fields that cannot be read; what is wrong with the others is its end."""
    notes: list[Note] = []
    left = _without_none(fields)
    while True:
        report = ErrorReport()
        entry = reader.read(name, left, report, "import")
        if not report:
            return entry, notes
        faults = [(path[2:], why) for path, why in report]
        notes += [Note(name, dotted(path), why) for path, why in faults]
        fatal = [path for path, _ in faults if not path or path[0] not in _SPARE]
        if fatal or not _drop(left, [path for path, _ in faults]):
            return None, notes


def _drop(fields: dict[str, Any], paths: list[tuple[Any, ...]]) -> bool:
    """Leave out what is at the paths; tells whether there was anything."""
    dropped = False
    for path in paths:
        options = fields.get("options")
        if path[0] == "options" and len(path) > 1 and isinstance(options, dict):
            dropped |= options.pop(path[1], None) is not None
        else:
            dropped |= fields.pop(path[0], None) is not None
    return dropped


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    def given(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        return ((key, value) for key, value in table.items() if value is not None)

    left = dict(given(fields))
    if isinstance(options := left.get("options"), Mapping):
        left["options"] = dict(given(options))
    return left
