"""The daemon's loop: it turns the beat of each shard, one after the other, and sleeps until the first has work."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

from beatd.beat.service import Beat
from beatd.clock import Clock
from beatd.model import Entry
from beatd.store.keys import shard_of


class Loop:
    """Turns in the thread that calls :meth:`run`; whoever sets ``wake`` cuts its sleep short."""

    def __init__(self, beats: Sequence[Beat], clock: Clock, wake: threading.Event) -> None:
        self._beats = beats
        self._clock = clock
        self._wake = wake
        self.stopping = False
        """Whether :meth:`stop` was called."""

    def replace(self, entries: Iterable[Entry]) -> None:
        """Put another schedule in force at the next turn: to each shard its own. May be called from any thread."""
        parts: list[list[Entry]] = [[] for _ in self._beats]
        for entry in entries:
            parts[shard_of(entry.name, len(parts))].append(entry)
        for beat, part in zip(self._beats, parts, strict=True):
            beat.replace(part)

    def amend(self, put: Mapping[str, Entry], gone: Iterable[str]) -> None:
        """Change some entries of the schedule at the next turn. May be called from any thread."""
        changes: list[tuple[dict[str, Entry], set[str]]] = [({}, set()) for _ in self._beats]
        for name, entry in put.items():
            changes[shard_of(name, len(changes))][0][name] = entry
        for name in gone:
            changes[shard_of(name, len(changes))][1].add(name)
        for beat, (own, lost) in zip(self._beats, changes, strict=True):
            if own or lost:
                beat.amend(own, lost)

    def ring(self) -> None:
        """Somebody asks for runs. May be called from any thread."""
        for beat in self._beats:
            beat.ring()

    def run(self) -> None:
        """Turn until :meth:`stop`."""
        while not self.stopping:
            self._wake.clear()
            seconds = min([beat.turn() for beat in self._beats])
            if not self.stopping:
                self._clock.wait(self._wake, seconds)

    def stop(self) -> None:
        """End :meth:`run` after the current turn. May be called from a signal handler."""
        self.stopping = True
        self._wake.set()
