"""Which daemon is to lead which shard: a pure function of who is there and who leads now.

The shards are shared evenly, to within one; whoever leads a shard keeps it unless it has more than its share; and what
is free goes to the daemon with the highest score for that shard among those with room (rendezvous hashing). So a daemon
that dies moves its own shards and no other, one that joins gets its share and nothing else moves, and all daemons that
see the same roll come to the same answer without a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b


def assign(shards: int, daemons: Iterable[str], leaders: Mapping[int, str]) -> dict[int, str]:
    """The daemon for each shard, given who leads which one now; empty when there are no daemons."""
    led: dict[str, list[int]] = {daemon: [] for daemon in daemons}
    for shard, daemon in leaders.items():
        if daemon in led:
            led[daemon].append(shard)
    room = _shares(shards, led)
    assigned: dict[int, str] = {}
    for daemon, own in led.items():
        for shard in sorted(own, key=lambda shard: _score(shard, daemon), reverse=True)[: room[daemon]]:
            assigned[shard] = daemon
            room[daemon] -= 1
    for shard in range(shards):
        candidates = [daemon for daemon, left in room.items() if left] if shard not in assigned else []
        if candidates:
            best = max(candidates, key=lambda daemon: _score(shard, daemon))
            assigned[shard] = best
            room[best] -= 1
    return assigned


def _shares(shards: int, led: Mapping[str, list[int]]) -> dict[str, int]:
    """How many shards each daemon is to lead. The remainder goes to those that lead most, so that less moves."""
    ranked = sorted(led, key=lambda daemon: (-len(led[daemon]), _score(-1, daemon)))
    return {daemon: shards // len(ranked) + (rank < shards % len(ranked)) for rank, daemon in enumerate(ranked)}


def _score(shard: int, daemon: str) -> bytes:
    return blake2b(f"{shard}:{daemon}".encode(), digest_size=8).digest()
