"""Daemon registry: heartbeats of all daemons, and the fleet as each of them sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec
import redis

from beatd.store.client import server_of, slowest_place, store_error, translate_errors
from beatd.store.keys import Keys
from beatd.store.script import Script

FORGET_MS = 120_000
"""Time (ms) after the last heartbeat for which a daemon is still listed."""

LATE_MS = 5_000
"""Health means that runs leave: a daemon whose runs are later than that, or whose turns have failed for longer, is not
healthy."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Status of a daemon. Instants are ms since the epoch by the clock of its host.

    Daemons of several versions read each other's: fields may be added, each with a default, and none changes its
    meaning.
    """

    id: str
    host: str = ""
    pid: int = 0
    version: str = ""
    started_ms: int = 0
    lapse_ms: int = 6_000
    """Liveness timeout: without a heartbeat for so long it counts as gone."""
    shards: int = 1
    """Number of shards."""
    entries: int = 0
    digest: str = ""
    """Digest of the schedule of its files: equal schedules have equal digests."""
    config: Literal["ok", "broken"] = "ok"
    """``broken``: its files have faults, and the last good schedule is in force."""
    file_faults: list[str] = []
    """The first errors of its files, each as one line: place, key and what is wrong."""
    more_file_faults: int = 0
    """How many errors of its files are not in ``file_faults``."""
    task_faults: list[str] = []
    """The first of the entries whose tasks the app does not have, or does not call like that: each as one line."""
    more_task_faults: int = 0
    """How many such entries are not in ``task_faults``."""
    calendar_faults: list[str] = []
    """The first of the calendars that cannot be read: each as one line."""
    clock_offset_ms: int | None = None
    """How far its host's clock is ahead of the state store's; ``None`` when not measured yet."""
    turned_ms_ago: int | None = None
    """How long ago the loop has turned, at the time of writing."""
    present: bool = False
    """True if it listens on a channel of its own while it lives: without a listener there it is gone."""
    resting_ms: int = 0
    """Time left (ms) of a step-down, in which it leads only if there is nobody else."""
    revision: int = 0
    """Which of the changes of runtime entries and pauses was the last that it took over."""
    runtime: int = 0
    """Runtime entries in force, which are not among ``entries``: these are what its files and its app say."""
    paused: int = 0
    """Entries that are paused."""
    faults: int = 0
    """Runtime entries that are wrong, and not in force."""
    faulty: list[str] = []
    """The names of the first of these."""
    read_ms_ago: int | None = None
    """How long ago it has read runtime entries, at the time of writing; ``None`` when it never has."""
    late_ms: int = 0
    """How late the oldest run is that should have left, of the shards that it leads; 0 when none is."""
    held: int = 0
    """Entries that are held back."""
    slow: str = ""
    """The server of the state store that answers slowly, if one does, and how long its answer took."""
    problem: str = ""
    """Why its turns fail, so that no run leaves; empty when they do not."""
    problem_ms: int = 0
    """For how long they have failed, at the time of writing."""
    unreplicated: str = ""
    """The servers whose replicas do not confirm claims, as one line; empty when they do, or need not."""
    lasting_ms: dict[str, int] = {}
    """For how long this daemon's problems, and those of the fleet, have lasted at the time of writing: by their kind
    and subject."""


class Member(NamedTuple):
    """A daemon of the fleet."""

    status: Status
    age_ms: int
    """Age of its last heartbeat, by the store's clock."""

    @property
    def alive(self) -> bool:
        return self.age_ms <= self.status.lapse_ms


class LeaseOwner(NamedTuple):
    """Owner of a shard's lease, its term, and the time left if it is not renewed."""

    daemon_id: str
    token: int
    left_ms: int

    @property
    def is_foreign(self) -> bool:
        """True if it cannot be a daemon's: it names none, or never expires. It keeps the shard without a leader."""
        return not self.daemon_id or self.token <= 0 or self.left_ms < 0


class FleetView(NamedTuple):
    """The installation at one instant of the store's clock: daemons by id, leases by shard. A free one is absent."""

    now_ms: int
    daemons: dict[str, Member]
    leases: dict[int, LeaseOwner]
    away: Mapping[int, str] = MappingProxyType({})
    """Shards of which nothing is known, as their node of a cluster does not answer, and why."""
    slowest: str = ""
    """The server that took longest to answer."""

    @property
    def alive(self) -> dict[str, Status]:
        """Return the live daemons."""
        return {name: one.status for name, one in self.daemons.items() if one.alive}


class Sizes(NamedTuple):
    """Number of messages in the outbox of each shard, of dead letters, and of notifications that wait."""

    outboxes: list[int]
    dead_letters: int
    notices: int


class Registry:
    """The list of daemons. Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`StoreRefused`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._heartbeat = Script(client, "heartbeat")

    def heartbeat(self, status: Status, *, shards: int) -> FleetView:
        """Heartbeat: store the status of a daemon, and return the fleet. One round trip."""
        return self._call(status.id, msgspec.json.encode(status), shards)

    def look(self, *, shards: int) -> FleetView:
        """Return the fleet and write nothing."""
        return self._call("", b"", shards)

    def leave(self, daemon_id: str) -> None:
        """Remove a daemon that shuts down in order."""
        with translate_errors(self._client):
            self._client.hdel(self._keys.daemons, daemon_id)

    def sizes(self, *, shards: int) -> Sizes:
        """Return the sizes of everything that waits in the state store; 0 for a key of another type."""
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for shard in range(shards):
                pipeline.llen(self._keys.shard(shard).outbox)
            pipeline.llen(self._keys.workers().dead_letters)
            pipeline.zcard(self._keys.notices_due)
            answers = pipeline.execute(raise_on_error=False)
        *outboxes, dead_letters, notices = [length if isinstance(length, int) else 0 for length in answers]
        return Sizes(outboxes, dead_letters, notices)

    def _call(self, daemon_id: str, status: bytes, shards: int) -> FleetView:
        if self._keys.parts > 1:
            return self._call_cluster(daemon_id, status, shards)
        keys = [self._keys.daemons, *(self._keys.shard(shard).lease for shard in range(shards))]
        now_ms, daemons, leases = self._heartbeat(keys, [daemon_id, status, FORGET_MS])
        found = dict(_presences(daemons, int(now_ms)))
        return FleetView(int(now_ms), found, dict(_holders(leases)), slowest=slowest_place(self._client))

    def _call_cluster(self, daemon_id: str, status: bytes, shards: int) -> FleetView:
        """Do the same in a cluster: the list of daemons, and each lease from its own node."""
        shards = min(shards, self._keys.parts)
        now_ms, daemons, _ = self._heartbeat([self._keys.daemons], [daemon_id, status, FORGET_MS])
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for shard in range(shards):
                pipeline.get(self._keys.shard(shard).lease)
                pipeline.pttl(self._keys.shard(shard).lease)
            answers = pipeline.execute(raise_on_error=False)
        server, raw, away = server_of(self._client), list[Any](), dict[int, str]()
        for shard, (value, left_ms) in enumerate(zip(answers[::2], answers[1::2], strict=True)):
            error = next((one for one in (value, left_ms) if isinstance(one, redis.RedisError)), None)
            if error is not None:
                away[shard] = str(store_error(error, server))
            raw += (b"" if error is not None or left_ms == _ENDED else value, left_ms)
        found = dict(_presences(daemons, int(now_ms)))
        return FleetView(int(now_ms), found, dict(_holders(raw)), away, slowest_place(self._client))


_DIGITS = 16
"""Most digits of a token or an instant."""

_ENDED = -2
"""Time left of a key that is not there: it ended between the two questions."""


def _presences(raw: Sequence[bytes], now_ms: int) -> Iterator[tuple[str, Member]]:
    """The daemons in what the hash has; what cannot be read is no daemon of ours, and left alone."""
    for name, value in zip(raw[::2], raw[1::2], strict=True):
        seen, _, text = value.partition(b" ")
        try:
            status = msgspec.json.decode(text, type=Status)
        except msgspec.MsgspecError:
            continue
        if seen.isdigit() and len(seen) <= _DIGITS and status.id.encode() == name:
            yield status.id, Member(status, max(now_ms - int(seen), 0))


def _holders(raw: Sequence[Any]) -> Iterator[tuple[int, LeaseOwner]]:
    for shard, (value, left_ms) in enumerate(zip(raw[::2], raw[1::2], strict=True)):
        if value:
            daemon_id, _, token = value.decode(errors="replace").rpartition(":")
            is_number = token.isascii() and token.isdigit() and len(token) <= _DIGITS
            yield shard, LeaseOwner(daemon_id, int(token) if is_number else 0, int(left_ms))
