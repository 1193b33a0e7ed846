"""The installation that a file names, for the commands that operate it: they act through its state store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from beatd import config, sources
from beatd.client.entries import waiting_runs
from beatd.clock import SystemClock
from beatd.config.loader import LoadedSettings, load_settings
from beatd.model import Entry, EntryState
from beatd.sources import MergedSchedule
from beatd.sources.calendars import Calendars
from beatd.state_store import running_store
from beatd.store.audit import Audit, audit_record, whoami
from beatd.store.client import connect
from beatd.store.daemon_registry import FleetView, Registry
from beatd.store.entry_state import EntryStates
from beatd.store.held_back import HeldBack, HeldBackEntry
from beatd.store.keys import Keys
from beatd.store.runtime_entries import Pause, read_pause
from beatd.store.runtime_replica import RuntimeReplica
from beatd.store.server_check import readable_keys
from beatd.url_keyprefix import result_prefix

if TYPE_CHECKING:
    import redis


class Installation(NamedTuple):
    """``path`` is the file, of which only the head has been read: an entry that is wrong hinders nobody."""

    path: Path
    head: LoadedSettings
    client: redis.Redis
    keys: Keys

    def fleet(self) -> FleetView:
        """The daemons, and who leads; of all shards, whatever number the file has."""
        registry = Registry(self.client, self.keys)
        fleet = registry.look(shards=self.head.settings.leader.shards)
        shards = self.shards(fleet)
        return registry.look(shards=shards) if shards > self.head.settings.leader.shards else fleet

    def shards(self, fleet: FleetView) -> int:
        """The number of shards of the daemons that are alive; without any, that of the file."""
        return max([member.shards for member in fleet.alive.values()], default=self.head.settings.leader.shards)

    def schedule(self, loaded: config.Config, *, as_if_resumed: bool = False) -> EffectiveSchedule:
        """Merge what files and app say with the runtime entries and pauses of the store, as a daemon does.

        ``as_if_resumed``: entries are what they would be without their pauses.
        """
        replica = RuntimeReplica(self.client, self.keys)
        replica.refresh()
        merged = MergedSchedule(loaded)
        merged.change(replica.tables)
        Calendars.of(loaded.settings).look(unread=True)
        if not as_if_resumed:
            merged.pause(replica.pauses)
        return EffectiveSchedule(merged, replica.pauses)

    def states(self, entries: Sequence[Entry], now_ms: int) -> list[EntryState | None]:
        """The states of entries, in their order, as a leader reads them; None: it was never seen."""
        return EntryStates(self.client, self.keys).read(entries, now_ms=now_ms)

    def waiting(
        self, entries: Sequence[Entry], states: Sequence[EntryState | None], fleet: FleetView, now_ms: int
    ) -> dict[str, int]:
        """Due times (ms) of the runs that wait for the run before, by entry."""
        return waiting_runs(
            self.client, self.keys, entries, states, shards=self.shards(fleet), led=fleet.leases, now_ms=now_ms
        )

    def held_back(self, names: Sequence[str], fleet: FleetView) -> dict[str, HeldBackEntry]:
        """The entries among ``names`` that are held back."""
        return HeldBack(self.client, self.keys, shards=self.shards(fleet)).read(names)

    def audit(self, action: str, subjects: Sequence[str], *, by: str | None = None, **values: Any) -> None:
        """Record a change that a command has made; ``values`` are those of :func:`~beatd.store.audit.audit_record`."""
        author = whoami() if by is None else by
        record = audit_record(SystemClock().now_ms(), action, subjects, by=author, via="command", **values)
        if not Audit(self.client, self.keys).note(record):
            click.echo("The change is made, but could not be recorded in the audit.", err=True)

    def warn_if_no_daemon(self) -> None:
        """Say so when a change will be in force only later."""
        if not self.fleet().alive:
            click.echo("No daemon is alive: this is in force when one is.", err=True)


@contextmanager
def installation(
    config_file: str | None, app: str | None = None, *, timeout_ms: int | None = None
) -> Iterator[Installation]:
    """Connect to the state store of a file, or without one of an app; ``timeout_ms`` shortens that of the file.

    Raises ConfigError, or a :class:`~beatd.exceptions.StoreError`.
    """
    path = sources.find(config_file, app).path
    top = load_settings(path)
    settings = top.settings
    patience_ms = min(settings.redis.timeout_ms, timeout_ms or settings.redis.timeout_ms)
    with connect(running_store(settings), timeout_ms=patience_ms, name="beatd-command") as client:
        keys = readable_keys(client, settings.redis.prefix, result_prefix(settings.results.url))
        yield Installation(path, top, client, keys)


class EffectiveSchedule(NamedTuple):
    """The schedule of files, app and state store, merged as in a daemon; ``pauses`` by entry name, as stored."""

    merged: MergedSchedule
    pauses: Mapping[str, bytes]

    @property
    def entries(self) -> Sequence[Entry]:
        """The entries in force."""
        return self.merged.in_force().entries

    def entry(self, name: str) -> Entry:
        """The entry of that name; raises click.UsageError that names the near ones."""
        entry = self.merged.of(name)
        if entry is None:
            raise no_entry(name, [known.name for known in self.entries])
        return entry

    def pause_of(self, name: str) -> Pause | None:
        """The pause of an entry, if it is paused."""
        raw = self.pauses.get(name)
        return None if raw is None else read_pause(raw)


def matching_names(patterns: Sequence[str], names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the names that match one of the patterns, sorted; and the patterns that match none."""
    known = set(names)
    found: set[str] = set()
    without = []
    for pattern in patterns:
        matching = {pattern} if pattern in known else {name for name in known if fnmatchcase(name, pattern)}
        found |= matching
        if not matching:
            without.append(pattern)
    return sorted(found), without


def is_glob(pattern: str) -> bool:
    """True if a pattern may stand for several names."""
    return any(char in pattern for char in "*?[")


def no_entry(name: str, known: Iterable[str]) -> click.UsageError:
    """The error of a command that names an entry which does not exist."""
    return click.UsageError(f'there is no entry "{name}"{hint(name, known)}')


def hint(name: str, names: Iterable[str]) -> str:
    """``; did you mean …?`` or nothing: the end of a message about a name that is not known."""
    near = get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""
