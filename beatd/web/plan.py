"""The entries that the page shows: those of the files, read again whenever they change."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from beatd.clock import Clock
from beatd.config import Config
from beatd.exceptions import ConfigError, Fault
from beatd.model import Entry
from beatd.sources import FileSource

log = logging.getLogger("beatd.web")


class Listing(NamedTuple):
    """The entries in the order of their names, each with the text in which it is searched."""

    entries: tuple[Entry, ...]
    texts: tuple[str, ...]
    digest: str
    since: float
    """When it was read (monotonic seconds)."""

    def search(self, query: str) -> tuple[Entry, ...]:
        """The entries whose name, task and zone have every word of ``query`` in them, in whatever case."""
        words = query.casefold().split()
        if not words:
            return self.entries
        found = zip(self.entries, self.texts, strict=True)
        return tuple(entry for entry, text in found if all(word in text for word in words))


class Plan:
    """What the files say, and what is wrong with them. ``load`` reads everything and raises ConfigError."""

    def __init__(self, path: Path, load: Callable[[], Config], clock: Clock) -> None:
        self.path = path
        self.faults: tuple[Fault, ...] = ()
        """Faults of the files as they are now; the last good listing is shown."""
        self._load = load
        self._clock = clock
        self._source = FileSource(path, self._read, on_change=self._take, on_broken=self._on_broken)
        self.listing = Listing((), (), "", clock.monotonic())

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
        self.faults = ()
        return config

    def _take(self, config: Config) -> None:
        entries = tuple(sorted(config.entries, key=lambda entry: (entry.name.casefold(), entry.name)))
        texts = tuple(f"{entry.name}\n{entry.task}\n{entry.timezone}".casefold() for entry in entries)
        self.listing = Listing(entries, texts, config.digest, self._clock.monotonic())

    def _on_broken(self, error: ConfigError) -> None:
        self.faults = error.faults
        count = len(error.faults)
        log.warning(
            "%s has %d fault%s; the page shows the last good schedule",
            self.path,
            count,
            "" if count == 1 else "s",
            extra={"event": "config_broken", "faults": count},
        )
