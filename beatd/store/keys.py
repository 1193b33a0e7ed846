"""Every key that beatd keeps in the state store, with its type and its lifetime. No key name is written anywhere else.

All keys of one installation share the hash tag ``{<prefix>}``, so that Redis Cluster keeps them on one node. Queues,
results and remote control live under Celery's own names (see ``broker/`` and ``store/results.py``).
"""

from __future__ import annotations

from typing import NamedTuple


class ShardKeys(NamedTuple):
    """The keys of one shard. With the default of one shard there is one set, number 0."""

    lease: str
    """string, expires after the lease's TTL: ``<daemon id>:<term token>`` of the leader."""
    term: str
    """string, for ever: the last term token given out (``INCR``)."""
    last_due: str
    """hash, for ever: entry name → last due (ms). What the claim moves forward."""
    known: str
    """hash, for ever: entry name → ``<first seen ms> <fingerprint>``. Written when an entry appears or changes."""
    runs: str
    """hash, for ever: entry name → number of runs that were sent."""
    running: str
    """hash, until the run is over: entry that minds overlaps → ``<run id> <ms until which it may run>``."""
    gone: str
    """zset, 30 days: name of an entry that left the schedule → since when (ms). Then its state is forgotten."""
    outbox: str
    """list, until confirmed: envelopes that were claimed and are not in the broker yet, the oldest last."""


class Keys:
    """The names under one prefix."""

    def __init__(self, prefix: str = "beatd") -> None:
        self.prefix = prefix
        self._tag = f"{{{prefix}}}"
        self.wake = f"{self._tag}:wake"
        """pub/sub channel: something that standbys or the leader should look at now (``released``, ``reload``)."""
        self.daemons = f"{self._tag}:daemons"
        """hash: daemon id → JSON status with ``seen_ms``; old ones are swept by whoever reads them."""

    def shard(self, number: int = 0) -> ShardKeys:
        """The keys of shard ``number``."""
        base = f"{self._tag}:{number}"
        return ShardKeys(*(f"{base}:{name}" for name in ShardKeys._fields))

    def worker(self, name: str, what: str) -> str:
        """A worker's own key, for example its ``unacked`` list."""
        return f"{self._tag}:worker:{name}:{what}"

    def named(self, what: str) -> str:
        """A key of the whole installation that needs no shard."""
        return f"{self._tag}:{what}"
