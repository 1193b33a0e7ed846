"""Runtime entries and pauses: what is changed in the store while daemons run.

A table is stored as it would stand in ``beat.toml``; what it means is not looked at here. Every write raises the
revision and wakes the daemons, in one step with the change itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
import redis

from beatd.exceptions import MessageError
from beatd.store.client import Script, naming
from beatd.store.keys import Keys
from beatd.wire import dumps, loads

KEPT = 1_000
"""Changes of which the store knows the names: who is further behind reads everything."""

BATCH = 1_000
"""Names in one call: it keeps the server busy for about a millisecond."""

_PLACE = "runtime:"

Put = Literal["unchanged", "changed", "added"]
_PUT: tuple[Put, ...] = ("unchanged", "changed", "added")


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """That an entry is paused: since when (ms since the epoch), by whom and why, as far as they said."""

    since_ms: int = msgspec.field(default=0, name="since")
    by: str = ""
    reason: str = ""


class Runtime:
    """Writes runtime entries and pauses. Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`StoreRefused`.

    Every method may be called again after an error: it does nothing the second time.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys.runtime()
        self._known, self._gone = keys.shard().known, keys.shard().gone
        self._first = (keys.wake, KEPT)
        self._put = Script(client, "runtime_put")
        self._remove = Script(client, "runtime_remove")
        self._pause = Script(client, "pause")
        self._resume = Script(client, "resume")

    def put(self, name: str, table: Mapping[str, Any]) -> Put:
        """Store an entry's table, as JSON in Celery's dialect; tells what that changed.

        Raises :class:`~beatd.exceptions.MessageError` for a table that JSON cannot carry.
        """
        keys = self._keys
        what: int = self._put([keys.schedules, keys.revision, keys.changes], [*self._first, name, dumps(dict(table))])
        return _PUT[what]

    def remove(self, name: str) -> bool:
        """Take an entry out of the store; tells whether it was there. A pause of that name stays."""
        keys = self._keys
        return bool(self._remove([keys.schedules, keys.revision, keys.changes], [*self._first, name]))

    def pause(self, names: Sequence[str], pause: Pause) -> list[str]:
        """Pause entries, wherever they come from; returns those that were not paused before."""
        note = msgspec.json.encode(pause)
        return list(_chosen(self._pause, self._changing, [*self._first, note], names))

    def resume(self, names: Sequence[str]) -> list[str]:
        """Let paused entries go on from now; returns those that were paused."""
        return list(_chosen(self._resume, [*self._changing, self._known], self._first, names))

    def get(self, name: str) -> tuple[bytes | None, bytes | None]:
        """An entry's table and its pause, as stored."""
        with naming(self._client, [*self._keys]), self._client.pipeline() as pipeline:
            pipeline.hget(self._keys.schedules, name)
            pipeline.hget(self._keys.paused, name)
            table, pause = pipeline.execute()
        return table, pause

    def tables(self) -> Iterator[tuple[str, bytes]]:
        """The names and tables of all entries, as stored; read some at a time."""
        return self._scan(self._keys.schedules)

    def pauses(self) -> Iterator[tuple[str, Pause]]:
        """The names of all paused entries, and what was noted."""
        return ((name, read_pause(value)) for name, value in self._scan(self._keys.paused))

    def counts(self) -> tuple[int, int, int]:
        """The revision, and how many entries and how many pauses there are."""
        with naming(self._client, [*self._keys]), self._client.pipeline() as pipeline:
            pipeline.hget(self._keys.revision, "number")
            pipeline.hlen(self._keys.schedules)
            pipeline.hlen(self._keys.paused)
            revision, entries, pauses = pipeline.execute()
        return int(revision) if revision and revision.isdigit() else 0, entries, pauses

    def known(self) -> set[str]:
        """The names of the entries that leaders have seen, wherever they come from, but for those that left since."""
        with naming(self._client, [*self._keys]):
            gone: Any = self._client.zrange(self._gone, 0, -1)
        return {name for name, _ in self._scan(self._known)} - {name.decode(errors="backslashreplace") for name in gone}

    @property
    def _changing(self) -> list[str]:
        return [self._keys.paused, self._keys.revision, self._keys.changes]

    def _scan(self, key: str) -> Iterator[tuple[str, bytes]]:
        with naming(self._client, [key]):
            for name, value in self._client.hscan_iter(key, count=BATCH):
                yield name.decode(errors="backslashreplace"), value


def _chosen(script: Script, keys: Sequence[str], first: Sequence[Any], names: Sequence[str]) -> Iterator[str]:
    """The names whose numbers the script returns."""
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        yield from (batch[number] for number in script(keys, [*first, *batch]))


def place(name: str) -> str:
    """Where a runtime entry is written, as faults and listings name it."""
    return f"{_PLACE}{name}"


def name_at(source: str) -> str:
    """The name of the runtime entry at a place."""
    return source.removeprefix(_PLACE)


def read_table(raw: bytes) -> dict[str, Any]:
    """A stored table; raises :class:`~beatd.exceptions.MessageError` for what is none."""
    table = loads(raw)
    if not isinstance(table, dict):
        raise MessageError("not a JSON object")
    return table


def read_pause(raw: bytes) -> Pause:
    """A stored pause; one that cannot be read pauses as well, and says nothing."""
    try:
        return msgspec.json.decode(raw, type=Pause)
    except msgspec.MsgspecError:
        return Pause()
