"""What is in force: the entries of files and app, beside them those of the store, and over all of it the pauses.

An entry's name counts once: the file's before the app's (see :mod:`beatd.sources.merge`), and both before the store's.
A paused entry is in force as one that is not enabled. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from msgspec import structs

from beatd.config import Config
from beatd.config.tables import read_tables
from beatd.exceptions import Fault, MessageError
from beatd.model import Entry
from beatd.store.runtime import name_at, place, read_table


class InForce(NamedTuple):
    """All sources as one schedule. ``entries`` are those of ``config`` (files and app) and ``runtime`` more."""

    config: Config
    entries: Sequence[Entry]
    runtime: int
    paused: int
    """How many entries are paused, among those in force."""


class Amended(NamedTuple):
    """What has changed of a schedule: entries that were put, with those to be looked at anew, and names that are gone.

    ``runtime`` and ``paused`` as in :class:`InForce`.
    """

    put: Mapping[str, Entry]
    gone: frozenset[str]
    runtime: int
    paused: int


class Overlay:
    """The base, the runtime entries and the pauses, each changed on its own; not for several threads at once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._tables: dict[str, bytes] = {}
        self._runtime: dict[str, Entry] = {}
        self._pauses: frozenset[str] = frozenset()
        self._off: dict[str, tuple[Entry, Entry]] = {}
        self._base: dict[str, Entry] | None = None
        self.faults: dict[str, list[Fault]] = {}
        """What is wrong with runtime entries that are not in force, by name."""

    def rebase(self, config: Config) -> None:
        """Other files, or another app. Their time zone and defaults hold for runtime entries, too."""
        before, self._config, self._base = self._config, config, None
        if (before.settings.timezone, before.defaults) != (config.settings.timezone, config.defaults):
            self.change(self._tables)

    def change(self, tables: Mapping[str, bytes | None]) -> None:
        """Runtime entries were put, or removed (None)."""
        read: dict[str, Any] = {}
        for name, raw in dict(tables).items():
            self._runtime.pop(name, None)
            self.faults.pop(name, None)
            if raw is None:
                self._tables.pop(name, None)
                continue
            self._tables[name] = raw
            try:
                read[name] = read_table(raw)
            except MessageError as error:
                self.faults[name] = [Fault(place(name), None, "", str(error))]
        entries, faults = read_tables(
            read, timezone=self._config.settings.timezone, defaults=self._config.defaults, source_of=place
        )
        self._runtime |= entries
        for fault in faults:
            self.faults.setdefault(name_at(fault.file), []).append(fault)

    def pause(self, names: Collection[str]) -> None:
        """The names that are paused now, whether there is such an entry or not."""
        self._pauses = frozenset(names)
        self._off = {name: pair for name, pair in self._off.items() if name in self._pauses}

    def of(self, name: str) -> Entry | None:
        """What is in force under a name."""
        entry = self._by_name().get(name) or self._runtime.get(name)
        return entry and self._overlaid(entry)

    def conflicts(self) -> list[Entry]:
        """The entries of files and app that count instead of runtime entries of their names."""
        base = self._by_name() if self._tables else {}
        return [base[name] for name in self._tables if name in base]

    def in_force(self) -> InForce:
        """All of it."""
        config = self._config
        if not self._runtime and not self._pauses:
            return InForce(config, config.entries, 0, 0)
        base = self._by_name()
        runtime = (entry for name, entry in self._runtime.items() if name not in base)
        entries = [self._overlaid(entry) for entry in chain(config.entries, runtime)]
        return InForce(config, entries, *self.counts())

    def counts(self) -> tuple[int, int]:
        """How many runtime entries are in force, and how many of all entries are paused."""
        base = self._by_name() if self._runtime or self._pauses else {}
        paused = sum(name in base or name in self._runtime for name in self._pauses)
        return sum(name not in base for name in self._runtime), paused

    def _by_name(self) -> Mapping[str, Entry]:
        """The entries of files and app, by name: made when somebody asks, for most schedules have no others."""
        if self._base is None:
            self._base = {entry.name: entry for entry in self._config.entries}
        return self._base

    def _overlaid(self, entry: Entry) -> Entry:
        """The entry as its pause lets it be; the same object as before if nothing has changed."""
        if entry.name not in self._pauses:
            return entry
        before, off = self._off.get(entry.name, (None, entry))
        if before is not entry:
            off = _disabled(entry)
            self._off[entry.name] = entry, off
        return off


def _disabled(entry: Entry) -> Entry:
    return structs.replace(entry, policies=structs.replace(entry.policies, enabled=False))
