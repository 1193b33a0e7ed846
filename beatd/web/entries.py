"""Entry listing of the page: those of the files, read again whenever they change, and over them the store's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from beatd.clock import Clock
from beatd.config import Config
from beatd.exceptions import ConfigError, Fault
from beatd.model import Entry, MetricsSettings, Settings
from beatd.sources import FileSource, InForce, MergedSchedule
from beatd.store.runtime_entries import Pause, read_pause

log = logging.getLogger("beatd.web")


class Listing(NamedTuple):
    """The entries in the order of their names, each with the text in which it is searched."""

    entries: tuple[Entry, ...]
    texts: tuple[str, ...]
    digest: str
    since: float
    """When it was read (monotonic seconds)."""

    def names(self) -> list[str]:
        """The names of the entries."""
        return [entry.name for entry in self.entries]

    def entry(self, name: str) -> Entry | None:
        """The entry of that name."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def search(self, query: str) -> tuple[Entry, ...]:
        """The entries whose name, task, zone and tags have every word of ``query`` in them, in whatever case."""
        words = query.casefold().split()
        if not words:
            return self.entries
        pairs = zip(self.entries, self.texts, strict=True)
        return tuple(entry for entry, text in pairs if all(word in text for word in words))


class EntryListing:
    """Entries of the files, and their errors. ``load`` reads everything and raises ConfigError."""

    def __init__(self, path: Path, load: Callable[[], Config], clock: Clock) -> None:
        self.path = path
        self.faults: tuple[Fault, ...] = ()
        """Faults of the files as they are now; the last good listing is shown."""
        self._load = load
        self._clock = clock
        self._source = FileSource(path, self._read, on_change=self._take, on_broken=self._on_broken)
        self._merged: MergedSchedule | None = None
        self._tables: dict[str, bytes] = {}
        self._pauses: dict[str, bytes] = {}
        self._changing = threading.Lock()
        self._settings = Settings()
        self._defaults: dict[str, Any] = {}
        self.listing = Listing((), (), "", clock.monotonic())
        self.metric_entries = MetricsSettings().entries
        """The setting ``entries`` of ``[metrics]``."""

    @property
    def settings(self) -> Settings:
        """The settings of the last good file."""
        return self._settings

    @property
    def defaults(self) -> dict[str, Any]:
        """The table ``[defaults]`` of the last good file."""
        return self._defaults

    def first(self) -> Config:
        """Read for the first time; raises ConfigError."""
        config = self._source.first()
        self._take(config)
        return config

    def start(self) -> None:
        """Watch the files from now on."""
        self._source.start()

    def stop(self) -> None:
        self._source.stop()

    @property
    def age(self) -> float:
        """Seconds since the listing was read."""
        return self._clock.monotonic() - self.listing.since

    def _read(self) -> Config:
        config = self._load()
        self.faults = config.refused
        return config

    def overlay(self, tables: Mapping[str, bytes], pauses: Mapping[str, bytes]) -> None:
        """Show the runtime entries and pauses of the store, too; costs nothing while they are the same."""
        with self._changing:
            merged = self._merged
            if merged is None or (tables == self._tables and pauses == self._pauses):
                return
            names = {name for name, _ in tables.items() ^ self._tables.items()}
            merged.change({name: tables.get(name) for name in names})
            merged.pause(pauses)
            self._tables, self._pauses = dict(tables), dict(pauses)
            self.listing = self._listed(merged.in_force(), self.listing.since)

    def pause_of(self, name: str) -> Pause | None:
        """The pause of an entry, if somebody paused it."""
        raw = self._pauses.get(name)
        return None if raw is None else read_pause(raw)

    @property
    def paused(self) -> frozenset[str]:
        """The names of paused entries."""
        return frozenset(self._pauses)

    def _take(self, config: Config) -> None:
        with self._changing:
            if self._merged is None:
                self._merged = MergedSchedule(config)
            else:
                self._merged.set_base(config)
            self._settings, self._defaults = config.settings, config.defaults
            self.listing = self._listed(self._merged.in_force(), self._clock.monotonic())
            self.metric_entries = config.settings.metrics.entries

    @staticmethod
    def _listed(merged: InForce, since: float) -> Listing:
        entries = tuple(sorted(merged.entries, key=lambda entry: (entry.name.casefold(), entry.name)))
        texts = tuple(map(_text, entries))
        return Listing(entries, texts, merged.config.digest, since)

    def _on_broken(self, error: ConfigError) -> None:
        self.faults = error.faults
        count = len(error.faults)
        log.warning(
            "%s has %d error%s; showing the last valid schedule",
            self.path,
            count,
            "" if count == 1 else "s",
            extra={"event": "config_broken", "faults": count},
        )


def _text(entry: Entry) -> str:
    """The text of an entry in which it is searched."""
    return "\n".join((entry.name, entry.task, entry.timezone, *entry.policies.tags)).casefold()
