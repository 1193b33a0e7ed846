"""Runtime entries and pauses: changes made in the store while daemons run.

A table is stored as it would stand in ``beat.toml``; its meaning is not looked at here. Every write raises the
revision and wakes the daemons, in one step with the change itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import redis

from beatd.exceptions import MessageError, StoreUnavailable
from beatd.message.json_codec import dumps, loads
from beatd.store.client import translate_errors
from beatd.store.keys import Keys, ShardKeys, shard_of
from beatd.store.pipeline import joint_reads
from beatd.store.script import Script, translate_script_errors
from beatd.timestamps import utc_text

KEPT = 1_000
"""Changes whose names the store keeps: a reader that is further behind reads everything."""

BATCH = 1_000
"""Names in one call: it keeps the server busy for about a millisecond."""

TABLE_MAX = 1 << 20
"""Bytes of one entry's table; a larger one is not read."""

UNREAD = b"!unread "
"""What the replica has in place of a table that is not read, before the reason. No JSON begins so."""

READ_MAX = 8 << 20
"""Bytes of tables in one call: whatever somebody has put there, reading it takes little memory of the server."""

TOTAL_MAX, SMALL = 256 << 20, 4 << 10
"""Bytes of all tables together, beyond which only small ones are read."""

_PLACE = "runtime:"

Put = Literal["unchanged", "changed", "added"]
_PUT: tuple[Put, ...] = ("unchanged", "changed", "added")


PauseField = Literal["until", "reason", "by"]


class Paused(NamedTuple):
    """The entries that were not paused before, and those whose pauses were changed."""

    paused: list[str]
    changed: list[str]


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """A pause of an entry: since when (ms since the epoch), by whom and why, as far as that was given.

    A leader or standby resumes it at ``until_ms``; ``None``: it stays paused until somebody resumes it.
    """

    since_ms: int = msgspec.field(default=0, name="since")
    by: str = ""
    reason: str = ""
    until_ms: int | None = msgspec.field(default=None, name="until")

    @property
    def note(self) -> str:
        """All that is known of it in words: ``paused until …, since … by …: reason``."""
        until = f" until {utc_text(self.until_ms)}" if self.until_ms is not None else ""
        since = f"{',' if until else ''} since {utc_text(self.since_ms)}" if self.since_ms else ""
        author, reason = f" by {self.by}" if self.by else "", f": {self.reason}" if self.reason else ""
        return f"paused{until}{since}{author}{reason}"


class Runtime:
    """Writes runtime entries and pauses. Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`StoreRefused`.

    Every method may be called again after an error: it does nothing the second time.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys.runtime()
        self._all_keys = keys
        self._first = (keys.wake, KEPT)
        self._put = Script(client, "runtime_put")
        self._remove = Script(client, "runtime_remove")
        self._pause = Script(client, "pause")
        self._resume = Script(client, "resume")
        self._reader = BoundedReader(client)

    def put(self, name: str, table: Mapping[str, Any]) -> Put:
        """Store an entry's table, as JSON in Celery's dialect; tells what that changed.

        Raises :class:`~beatd.exceptions.MessageError` for a table that JSON cannot carry.
        """
        return self.exchange(name, table)[0]

    def exchange(self, name: str, table: Mapping[str, Any]) -> tuple[Put, bytes | None]:
        """Store an entry as :meth:`put` does; returns what was done, and the table that it replaced."""
        keys = self._keys
        what, *before = self._put(
            [keys.schedules, keys.revision, keys.changes], [*self._first, name, dumps(dict(table))]
        )
        return _PUT[what], before[0] if before else None

    def remove(self, name: str) -> bool:
        """Take an entry out of the store; tells whether it was there. A pause of that name stays."""
        keys = self._keys
        return bool(self._remove([keys.schedules, keys.revision, keys.changes], [*self._first, name]))

    def pause(self, names: Sequence[str], pause: Pause) -> list[str]:
        """Pause entries, wherever they come from; returns those that were not paused before."""
        return self.put_pauses(names, pause).paused

    def put_pauses(self, names: Sequence[str], pause: Pause, changes: Sequence[PauseField] = ()) -> Paused:
        """Pause entries; of those that are paused already change these fields of the note."""
        first = [*self._first, msgspec.json.encode(pause), " ".join(changes)]
        done = Paused([], [])
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            for numbers, chosen in zip(self._pause(self._changing, [*first, *batch]), done, strict=True):
                chosen.extend(batch[number] for number in numbers)
        return done

    def resume(self, names: Sequence[str]) -> list[str]:
        """Let paused entries go on from now; returns those that were paused."""
        return list(self._resumed("all", names))

    def end_pauses(self, names: Sequence[str]) -> list[str]:
        """Resume those of ``names`` whose pauses are over by the store's clock; returns their names."""
        return list(self._resumed("ended", names))

    def _resumed(self, which: Literal["all", "ended"], names: Sequence[str]) -> Iterator[str]:
        """Resume paused entries, some at a time."""
        keys = [*self._changing, self._all_keys.shard().fingerprints]
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            if self._all_keys.parts > 1:
                self._mark_off(batch)
            yield from (batch[number] for number in self._resume(keys, [*self._first, which, *batch]))

    def _mark_off(self, names: Sequence[str]) -> None:
        """Note of paused entries that they were not in force: in a cluster this is no step of the same script."""
        with translate_errors(self._client):
            pauses: Any = self._client.hmget(self._keys.paused, list(names))
            paused = [name for name, pause in zip(names, pauses, strict=True) if pause is not None]
            away = (self._all_keys.away.get(shard_of(name, self._all_keys.parts)) for name in paused)
            if reason := next(filter(None, away), None):
                raise StoreUnavailable(reason)
            for part, own in self._all_keys.by_part(paused):
                known: Any = self._client.hmget(part.fingerprints, own)
                marked: dict[Any, Any] = {
                    name: b" off ".join(value.split(b" ", 1))
                    for name, value in zip(own, known, strict=True)
                    if _is_on(value)
                }
                if marked:
                    self._client.hset(part.fingerprints, mapping=marked)

    def get(self, name: str) -> tuple[bytes | None, bytes | None]:
        """An entry's table and its pause, as stored."""
        with translate_script_errors(self._client, [*self._keys]), self._client.pipeline(transaction=False) as pipeline:
            pipeline.hget(self._keys.schedules, name)
            pipeline.hget(self._keys.paused, name)
            table, pause = pipeline.execute()
        return table, pause

    def tables(self) -> Iterator[tuple[str, bytes]]:
        """The names and tables of all entries, as stored; read some at a time."""
        return self._reader.read(self._keys.schedules)

    def pauses(self) -> Iterator[tuple[str, Pause]]:
        """The names of all paused entries, and what was noted."""
        return ((name, read_pause(value)) for name, value in self._reader.read(self._keys.paused))

    def counts(self) -> tuple[int, int, int]:
        """The revision, and how many entries and how many pauses there are."""
        reading = self._client.pipeline(transaction=False)
        with translate_script_errors(self._client, [*self._keys]), reading as pipeline:
            pipeline.hget(self._keys.revision, "number")
            pipeline.hlen(self._keys.schedules)
            pipeline.hlen(self._keys.paused)
            revision, entries, pauses = pipeline.execute()
        return int(revision) if revision and revision.isdigit() else 0, entries, pauses

    def entry_names(self) -> set[str]:
        """The names of the entries that leaders have seen, wherever they come from, but for those that left since."""
        with joint_reads() as read:
            parts = [(read(self._known, part), read(self._gone, part)) for part in self._all_keys.all_parts()]
        return {name for known, gone in parts for name in known.result() - gone.result()}

    def _known(self, part: ShardKeys) -> set[str]:
        with translate_script_errors(self._client, [part.fingerprints]):
            return {text_of(name) for name, _ in self._client.hscan_iter(part.fingerprints, count=BATCH)}

    def _gone(self, part: ShardKeys) -> set[str]:
        with translate_script_errors(self._client, [part.gone]):
            names: Any = self._client.zrange(part.gone, 0, -1)
        return set(map(text_of, names))

    @property
    def _changing(self) -> list[str]:
        return [self._keys.paused, self._keys.revision, self._keys.changes]


def _is_on(known: bytes | None) -> bool:
    """True for the fingerprint of an entry that is in force, after the instant at which it was first seen."""
    first_seen, _, fingerprint = (known or b"").partition(b" ")
    return first_seen.isdigit() and bool(fingerprint) and not fingerprint.startswith(b"off ")


def place(name: str) -> str:
    """Return the place of a runtime entry, as faults and listings name it."""
    return f"{_PLACE}{name}"


def name_at(source: str) -> str:
    """The name of the runtime entry at a place."""
    return source.removeprefix(_PLACE)


def read_table(raw: bytes) -> dict[str, Any]:
    """A stored table; raises :class:`~beatd.exceptions.MessageError` for what is none."""
    if raw.startswith(UNREAD):
        raise MessageError(raw.removeprefix(UNREAD).decode())
    table = loads(raw)
    if not isinstance(table, dict):
        raise MessageError("not a JSON object")
    return table


def readable_table(raw: bytes | None) -> dict[str, Any] | None:
    """A stored table; None for none that can be read."""
    try:
        return None if raw is None else read_table(raw)
    except MessageError:
        return None


def read_pause(raw: bytes) -> Pause:
    """A stored pause; one that cannot be read pauses as well, and says nothing."""
    try:
        return msgspec.json.decode(raw, type=Pause)
    except (msgspec.MsgspecError, RecursionError):
        return Pause()


class BoundedReader:
    """Reads a hash of tables or pauses, some at a time, and of what is too large only that it is."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._read = Script(client, "runtime_read")

    def read(self, key: str, names: Sequence[bytes] | None = None) -> Iterator[tuple[str, bytes]]:
        """All fields: names in order, and values; ``names`` if they are known already."""
        if names is None:
            with translate_script_errors(self._client, [key]):
                found: Any = self._client.hkeys(key)
            names = found
        total = 0
        for name, value in self.values(key, sorted(names)):
            total += len(value)
            yield text_of(name), _unread("others") if total > TOTAL_MAX and len(value) > SMALL else value

    def values(self, key: str, names: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The fields that are there; an answer that was full is gone on with in the next call."""
        waiting = deque(names)
        while waiting:
            batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
            again = []
            for name, value in zip(batch, self._read([key], [READ_MAX, *batch]), strict=True):
                size = value if isinstance(value, int) else len(value or b"")
                if size > TABLE_MAX:
                    yield name, _unread(size)
                elif isinstance(value, int):
                    again.append(name)
                elif value is not None:
                    yield name, value
            waiting.extendleft(reversed(again))


def _unread(why: int | Literal["others"]) -> bytes:
    """Return the placeholder of a table that is not read."""
    if why == "others":
        text = f"not read: the entries in the state store have more than {TOTAL_MAX >> 20:,} MiB together"
    else:
        text = f"not read: it has {why >> 10:,} KiB; expected at most {TABLE_MAX >> 10:,} KiB"
    return UNREAD + text.encode()


def text_of(raw: bytes) -> str:
    """Read the name of an entry, whatever bytes it has."""
    return raw.decode(errors="backslashreplace")
