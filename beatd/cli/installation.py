"""The installation that a file names, for the commands that operate it: they act through its state store."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from beatd import config
from beatd.config.loader import LoadedSettings, load_settings
from beatd.state_store import running_store
from beatd.store.client import connect
from beatd.store.daemon_registry import FleetView, Registry
from beatd.store.keys import Keys

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
        shards = max([each.shards for each in fleet.alive.values()], default=1)
        return registry.look(shards=shards) if shards > self.head.settings.leader.shards else fleet

    def warn_if_nobody_is_there(self) -> None:
        """Say so when a change will be in force only later."""
        if not self.fleet().alive:
            click.echo("No daemon is alive: this is in force when one is.", err=True)


@contextmanager
def installation(config_file: str | None) -> Iterator[Installation]:
    """Connect to the state store of a file. Raises ConfigError, or a :class:`~beatd.exceptions.StoreError`."""
    path = config.find(config_file)
    top = load_settings(path)
    settings = top.settings
    with connect(running_store(settings), timeout_ms=settings.redis.timeout_ms, name="beatd-command") as client:
        yield Installation(path, top, client, Keys(settings.redis.prefix))


def chosen(patterns: Sequence[str], names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names that are meant by names and globs, sorted, and those of the patterns by which none is."""
    known = set(names)
    found: set[str] = set()
    without = []
    for pattern in patterns:
        matching = {pattern} if pattern in known else {name for name in known if fnmatchcase(name, pattern)}
        found |= matching
        if not matching:
            without.append(pattern)
    return sorted(found), without


def whoami() -> str:
    """Return the user and host that give a command, for others to see."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user without a name, as in many containers
        return socket.gethostname()


def is_glob(pattern: str) -> bool:
    """True if a pattern may stand for several names."""
    return any(char in pattern for char in "*?[")


def hint(name: str, names: Iterable[str]) -> str:
    """``; did you mean …?`` or nothing: the end of a message about a name that is not known."""
    near = get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""
