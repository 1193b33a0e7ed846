"""Every key that beatd keeps in the state store, with its type and its lifetime. No key name is written anywhere else.

All keys of one installation share the hash tag ``{<prefix>}``. In a Redis Cluster those of each shard but the first
have a tag of their own, ``{<prefix>:<shard>}``, so that each shard is in one slot, and the shards on many nodes.
Queues, results and remote control live under Celery's own names (see ``broker/`` and ``store/results.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from typing import NamedTuple

from beatd.store.topology import SLOTS, slot_of

SHARDS_MAX = 1024
"""Into how many shards a schedule can be parted."""


def shard_of(name: str, shards: int) -> int:
    """The shard that an entry belongs to: the same on every host and in every version."""
    if shards == 1:
        return 0
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) % shards


STRETCHES_MAX = 64
"""Into how many stretches of equal length the slots of a cluster are divided, to spread the shards over them."""


@lru_cache(maxsize=64)
def _tags(prefix: str, parts: int) -> tuple[str, ...]:
    """The hash tags of the shards of a cluster. Nodes have stretches of slots: one shard goes into each."""
    stretches = min(parts, STRETCHES_MAX)
    first = slot_of(prefix) * stretches // SLOTS
    tags = [f"{{{prefix}}}"]
    for shard in range(1, parts):
        wanted = (first + shard) % stretches
        names = (f"{{{prefix}:{shard}{f'.{n}' if n else ''}}}" for n in count())
        tags.append(next(tag for tag in names if slot_of(tag) * stretches // SLOTS == wanted))
    return tuple(tags)


class ShardKeys(NamedTuple):
    """The keys that the leader of one shard uses. With the default of one shard there is one, number 0.

    Leadership is the shard's own: ``lease``, ``term``, ``terms``, ``outbox``, ``claims`` and ``held``. What is
    remembered of an entry is not, so that another number of shards moves nothing: the entry goes on where it was, under
    the lease of another shard. Should two leaders ever drive the same entry meanwhile, each run is still claimed once.
    In a cluster it is, as all keys of a claim must be in one slot; there the number of shards does not change.
    """

    lease: str
    """string, expires after the lease's TTL: ``<daemon id>:<term token>`` of the leader."""
    term: str
    """string, for ever: the last term token given out."""
    terms: str
    """list, for ever, the last 200: ``<token> <ms of its beginning> <daemon id>`` of each term, the newest first."""
    last_due: str
    """hash, for ever: entry name → last due (ms). What the claim moves forward."""
    fingerprints: str
    """hash, for ever: entry name → ``<first seen ms> <fingerprint>``. Written when an entry appears or changes."""
    limits: str
    """hash, for ever: entry with a start, an end or a ``max_runs`` → these as it was last loaded, see
    :func:`beatd.store.entry_state.limits_text`."""
    runs: str
    """hash, for ever: entry name → number of runs that were sent."""
    running: str
    """hash, until the run is over: entry that minds overlaps → ``<run id> <ms until which it may run>``."""
    gaps: str
    """hash, 7 days after the last change: entry name → ``<after ms> <before ms> …``, stretches of time whose runs were
    missed and not caught up. They are still to come should the clock turn out to have been ahead."""
    missed: str
    """hash, 2 hours after the last change: entry name → ``<after ms> <before ms>``, the newest of its gaps that
    catch-up left. Others are of times at which it was not in force."""
    tally: str
    """hash, for ever: entry name → ``late 3 overlap 1 …``, how many of its runs were late, skipped, made by hand."""
    gone: str
    """zset, 30 days: name of an entry that left the schedule → since when (ms). Then its state is forgotten."""
    outbox: str
    """list, until confirmed: envelopes that were claimed and are not in the broker yet, the oldest last."""
    claims: str
    """string, for ever: how many runs were claimed, and entries begun. A leader that was told of more knows that writes
    were lost."""
    last_outcome: str
    """hash, 30 days after the entry left: entry name → ``<end ms> <failing since ms> <last success ms> <failures in a
    row> <mark> <counts …>``, see :mod:`beatd.store.outcomes`."""
    ended: str
    """hash, 30 days after the entry left: entry name → ``<after ms> <due ms> …``, stretches of time whose runs have
    ended, at most 100; see :mod:`beatd.store.ended_runs`."""
    overdue: str
    """hash, 5 minutes after the last write: entry name → since when (ms) a run of it is overdue."""
    too_long: str
    """hash, 5 minutes after the last write: entry name → since when (ms) a run of it takes too long."""
    held: str
    """hash, 5 minutes after the last write: entry that is held back → why, since when, when it is tried again, JSON."""
    requests: str
    """hash, until done with, expires with the last: request id → ``<good until ms> <request, JSON>``, what a leader is
    to send by hand."""
    recovered: str
    """zset, an hour after the last, the newest 10,000: ``<failing since ms> <end ms> <failures> <entry>`` → when it was
    noted (ms), see :mod:`beatd.store.recoveries`."""
    history: str
    """string, for ever: the key of this name and an entry's has the entry's last runs, see
    :mod:`beatd.store.history`."""
    outcomes: str
    """list, 30 days after the entry left, the newest 60 and 64 KiB: the key of this name and an entry's has its
    attempts that ended, the newest first; see :mod:`beatd.store.outcomes`."""
    answered: str
    """string, expires after a day: the key of this name and a request's id has what became of the request, JSON."""
    sent: str
    """string, expires after a day: the key of this name and a run's id has the id of the request that sent the run."""
    finished: str
    """string, expires after a day: the key of this name and a run's id has ``<state> <runtime ms>`` of a run that was
    asked for by hand and has ended in a bundled worker."""
    refused: str
    """string, expires after a day: the key of this name and a run's id has why the broker refused the run, which was
    asked for by hand."""


_OWN = ("lease", "term", "terms", "outbox", "claims", "held")
_BY_ID = ("history", "outcomes", "answered", "sent", "finished", "refused")
_RENAMED = {"fingerprints": "known", **{name: f"{name}:" for name in _BY_ID}}
"""Fields whose key bears another name in the store, where it stays."""
_TYPES = {
    "lease": "string",
    "term": "string",
    "terms": "list",
    "last_due": "hash",
    "known": "hash",
    "limits": "hash",
    "runs": "hash",
    "running": "hash",
    "gaps": "hash",
    "missed": "hash",
    "tally": "hash",
    "last_outcome": "hash",
    "recovered": "zset",
    "ended": "hash",
    "overdue": "hash",
    "too_long": "hash",
    "gone": "zset",
    "outbox": "list",
    "claims": "string",
    "held": "hash",
    "daemons": "hash",
    "schedules": "hash",
    "paused": "hash",
    "revision": "hash",
    "changes": "zset",
    "orders": "hash",
    "audit": "list",
    "audited_digest": "string",
    "format": "string",
    "requests": "hash",
    "notices": "hash",
    "notices_due": "zset",
    "pinged": "hash",
    "undelivered": "hash",
    "led": "string",
    "shards": "string",
}


_TYPES_BY_ENTRY = {"history": "string", "outcomes": "list"}
"""The same of keys that end with the name of an entry."""
_PARTS = re.compile(r"\{.*?\}:(?:\d+:)?(\w+)(:?)")


def type_of(key: str) -> str | None:
    """The type that a key of this module must have; ``None`` for any other."""
    parts = _PARTS.match(key)
    if parts is None:
        return None
    name, more = parts.groups()
    return _TYPES_BY_ENTRY.get(name) if more else _TYPES.get(name)


class RuntimeKeys(NamedTuple):
    """The keys of what is changed while daemons run: entries in the store, and pauses of any entry."""

    schedules: str
    """hash, for ever: entry name → its table as in ``beat.toml``, JSON."""
    paused: str
    """hash, until resumed: entry name → ``{"since": ms, "by": …, "reason": …}``."""
    revision: str
    """hash, for ever: ``number`` of changes of the two above so far, and ``began``: when the first was made (µs)."""
    changes: str
    """zset, for ever, the latest 1,000: entry name → the revision that its last change made."""


class WorkerKeys(NamedTuple):
    """The keys that the bundled workers share. They are on the broker's Redis, beside the queues."""

    workers: str
    """set, for ever: ids of workers; the dead are removed by whoever rescues their messages."""
    tag: str
    """string, for ever: the last tag given to a message that was taken (``INCR``)."""
    parked: str
    """zset, gone when empty: ``<tag>\\0<queue key>\\0<message>`` → when to put it back into its queue (ms)."""
    revoked: str
    """zset, a day, the newest 50,000: id of a task that is not to be run → when it was revoked (ms)."""
    dead_letters: str
    """list, the newest 10,000 and 64 MiB: messages that could not be run, JSON with the reason, the newest first."""
    dead_letters_size: str
    """string, a day, then counted again: bytes of all letters in ``dead_letters``."""
    requeueing: str
    """string, expires after 30 s: there while somebody sends dead letters again to a broker that is another server."""
    waiting: str
    """zset, gone when empty: ``<queue>\\0<message>`` of another broker than this server → when it is due (ms)."""
    lent: str
    """zset, gone when empty: ``<queue>\\0<message>`` that a worker is publishing → when another one shall (ms)."""


class Keys:
    """The names under one prefix. ``parts``: the number of shards in a cluster; elsewhere what is remembered of entries
    is in one part, whatever the number of shards."""

    def __init__(self, prefix: str = "beatd", *, parts: int = 1, results: str = "") -> None:
        self.prefix = prefix
        self.parts = parts
        self.results = results
        """Prefix of the results of Celery's workers, see :func:`beatd.url_keyprefix.result_prefix`."""
        self._tag = f"{{{prefix}}}"
        self._tags = _tags(prefix, parts)
        self._parts: list[ShardKeys] | None = None
        self.away: Mapping[int, str] = {}
        """Parts that are left out, as their node of a cluster does not answer, and why. Only who looks again and again
        has names whose parts come and go, see :class:`~beatd.store.server_check.NodeCheck`."""
        self.shards = f"{self._tag}:shards"
        """string, for ever, in a cluster: number of its shards."""
        self.wake = f"{self._tag}:wake"
        """pub/sub channel: something that daemons should look at now. ``released``: leases; ``changed``: runtime
        entries or pauses; ``ordered``: an order."""
        self.daemons = f"{self._tag}:daemons"
        """hash: daemon id → ``<seen ms> <status, JSON>``; old ones are swept at every heartbeat."""
        self.audit = f"{self._tag}:audit"
        """list, for ever, the newest 5,000: changes by people and programs, JSON, see :mod:`beatd.store.audit`."""
        self.audited_digest = f"{self._tag}:audited_digest"
        """string, for ever: digest of the files' schedule that the audit has recorded last."""
        self.format = f"{self._tag}:format"
        """string, for ever: version of the format of all keys, see :mod:`beatd.store.server_check`."""
        self.orders = f"{self._tag}:orders"
        """hash, a minute after the last one: order id → what daemons are to do, JSON."""

        self.notices = f"{self._tag}:notices"
        """hash, 7 days after the last write, at most 5,000: ``<destination>|<order>`` → a notification or ping that is
        to be sent, JSON, see :mod:`beatd.store.notices`."""
        self.notices_due = f"{self._tag}:notices_due"
        """zset, 7 days after the last write: id of a notice → when it is to be sent (ms)."""
        self.pinged = f"{self._tag}:pinged"
        """hash, 7 days after the last write: entry → its runs whose start or end was reported to its monitor."""
        self.undelivered = f"{self._tag}:undelivered"
        """hash, 7 days after the last write: destination of notifications → since when it has got none, and why, see
        :mod:`beatd.store.undelivered`."""
        self.led = f"{self._tag}:led"
        """string, 7 days after the last write: its age says when shard 0 last had a leader."""

    def alerts(self, target: str) -> str:
        """hash, 7 days after the last write: ``<kind> <entry>`` → ``<since ms> <told ms>``, as it was reported."""
        return f"{self._tag}:alerts:{target}"

    def present(self, daemon_id: str) -> str:
        """pub/sub channel that a daemon listens on while it lives; nothing is published there."""
        return f"{self._tag}:present:{daemon_id}"

    def runtime(self) -> RuntimeKeys:
        """The keys of runtime entries."""
        return RuntimeKeys(*(f"{self._tag}:{name}" for name in RuntimeKeys._fields))

    def answers(self, order_id: str) -> str:
        """hash, a minute: daemon id → what became of an order there, JSON."""
        return f"{self._tag}:answers:{order_id}"

    def shard(self, number: int = 0) -> ShardKeys:
        """The keys of shard ``number``."""
        tag = self._tags[number % self.parts]
        own = f"{tag}:{number}"
        names = (_RENAMED.get(field, field) for field in ShardKeys._fields)
        return ShardKeys(*(f"{own if name in _OWN else tag}:{name}" for name in names))

    def of(self, entry: str) -> ShardKeys:
        """The keys of what is remembered of an entry."""
        return self._all()[shard_of(entry, self.parts)]

    def without(self, away: Mapping[int, str]) -> Keys:
        """The same names, without parts that cannot be read now."""
        keys = Keys(self.prefix, parts=self.parts, results=self.results)
        keys.away = away
        return keys

    def all_parts(self) -> list[ShardKeys]:
        """The keys of what is remembered of entries: of each part that is not away, or of the only one."""
        return [part for number, part in enumerate(self._all()) if number not in self.away]

    def is_away(self, entry: str) -> bool:
        """True if an entry is in a part that is left out."""
        return bool(self.away) and shard_of(entry, self.parts) in self.away

    def _all(self) -> list[ShardKeys]:
        if self._parts is None:
            self._parts = [self.shard(number) for number in range(self.parts)]
        return self._parts

    def by_part(self, names: Sequence[str]) -> Iterator[tuple[ShardKeys, list[str]]]:
        """The parts in which entries are, each with its own; those that are away are left out."""
        if self.parts == 1:
            yield self._all()[0], list(names)
            return
        found: dict[int, list[str]] = {}
        for name in names:
            found.setdefault(shard_of(name, self.parts), []).append(name)
        for number, own in found.items():
            if number not in self.away:
                yield self._all()[number], own

    def worker(self, name: str, what: str) -> str:
        """A worker's own key.

        ``unacked``: hash, gone when empty: tag → ``<queue key>\\0<message>``, what it has taken and not settled.
        ``alive``: string, expires after 9 s: its heartbeat.
        """
        return f"{self._tag}:worker:{name}:{what}"

    def workers(self) -> WorkerKeys:
        """The keys that all workers share."""
        return WorkerKeys(*(f"{self._tag}:{name}" for name in WorkerKeys._fields))

    def deaths(self, message: str) -> str:
        """string, expires after a day: how often ``<task id>:<retries>`` was running when its worker died."""
        return f"{self._tag}:deaths:{message}"

    def history(self, entry: str) -> str:
        """The key of an entry's last runs."""
        return f"{self.of(entry).history}{entry}"

    def outcomes(self, entry: str) -> str:
        """The key of an entry's attempts that ended."""
        return f"{self.of(entry).outcomes}{entry}"

    def started(self, run_id: str) -> str:
        """string, until it has ended, a day at most: ``<start ms> <seen ms> <attempt> <worker>`` of a run that takes a
        while."""
        return f"{self._tag}:started:{run_id}"

    def named(self, what: str) -> str:
        """A key of the whole installation that needs no shard."""
        return f"{self._tag}:{what}"
