"""Shard assignment: which daemon is to lead which shard, as one daemon sees the fleet.

The shards are shared evenly, to within one; a leader keeps its shards unless it has more than its share; and a free
shard goes to the daemon with the highest score for it among those with room (rendezvous hashing). So a daemon that dies
moves its own shards and no other, one that joins gets its share and nothing else moves, and all daemons that see the
same fleet come to the same answer without a word. Pure: no store, no clock.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from beatd.store.daemon_registry import FleetView, Status
from beatd.timestamps import span_text


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
    """Share the shards out evenly, by daemon. The remainder goes to those that lead most: less moves."""
    ranked = sorted(led, key=lambda daemon: (-len(led[daemon]), _score(-1, daemon)))
    return {daemon: shards // len(ranked) + (rank < shards % len(ranked)) for rank, daemon in enumerate(ranked)}


def _score(shard: int, daemon: str) -> bytes:
    return blake2b(f"{shard}:{daemon}".encode(), digest_size=8).digest()


log = logging.getLogger("beatd.beat.fleet")

SETTLE = 3.0
"""Seconds for which a shard must be assigned to another daemon before it is handed over: that may fail to start."""

GRACE = 1.0
"""Seconds for which a shard must be without a leader before a daemon takes it that was not meant to have it."""

SKEW_MS = 1_000
"""Difference (ms) of a host's clock to the store's that is warned of."""

REMEDY = "give them the same files, or, if they are two fleets, each a prefix of its own under [redis]"
"""Advice for daemons that share keys and have different schedules."""


class Plan(NamedTuple):
    """Plan of a daemon: shards to take, and shards to hand over. ``look_again``: in seconds, if soon."""

    take: list[int]
    give: list[int]
    look_again: float | None = None


class ShardPlanner:
    """Shard planner of the daemon ``me``: what it should take and hand over, from heartbeat to heartbeat."""

    def __init__(self, me: str, *, shards: int) -> None:
        self._me = me
        self._shards = shards
        self._free_since: dict[int, float] = {}
        self._unwanted_since: dict[int, float] = {}
        self._mismatch_since: float | None = None
        self._said: set[str] = set()

    def plan(self, fleet: FleetView, now: float) -> Plan:
        """Return the plan, given the fleet and the monotonic time ``now``.

        1. Warn of what is wrong in the fleet. 2. Find the eligible daemons. 3. Assign each shard to one of them.
        4. Take free shards that are ours, and those that their daemon did not take. 5. Hand over shards of others.
        """
        self._watch(fleet.alive, now)
        eligible = [daemon.id for daemon in eligible_daemons(fleet.alive.values())]
        leaders = {shard: owner.daemon_id for shard, owner in fleet.leases.items() if shard < self._shards}
        assigned = assign(self._shards, eligible, leaders)
        unled = [shard for shard in range(self._shards) if shard not in leaders and shard not in fleet.away]
        free = unled if self._me in eligible else []
        take = self._to_take(free, assigned, now)
        give = self._to_give(leaders, assigned, fleet.alive, now)
        if self._me not in eligible:
            return Plan(take, give)
        return Plan(take, give, self._next_look(fleet, waiting=len(take) < len(free)))

    def _to_take(self, free: Sequence[int], assigned: Mapping[int, str], now: float) -> list[int]:
        """Free shards that are assigned to this daemon, or that nobody has taken within the grace."""
        self._free_since = {shard: self._free_since.get(shard, now) for shard in free}
        return [shard for shard in free if assigned[shard] == self._me or now - self._free_since[shard] >= GRACE]

    def _to_give(
        self, leaders: Mapping[int, str], assigned: Mapping[int, str], alive: Mapping[str, Status], now: float
    ) -> list[int]:
        """Shards led here that are assigned to others: at once when this daemon steps down, else after a while."""
        lost = [shard for shard, leader in leaders.items() if leader == self._me and assigned.get(shard) != self._me]
        self._unwanted_since = {shard: self._unwanted_since.get(shard, now) for shard in lost}
        settle = 0.0 if self._me in alive and alive[self._me].resting_ms else SETTLE
        return [shard for shard, since in self._unwanted_since.items() if now - since >= settle]

    def _next_look(self, fleet: FleetView, *, waiting: bool) -> float | None:
        """Seconds until a lease of another daemon ends, or until the grace of a free shard may be over."""
        ends = [one.left_ms / 1000 for one in fleet.leases.values() if one.daemon_id != self._me and one.left_ms >= 0]
        return min([*ends, *([GRACE / 2] if waiting else [])], default=None)

    def _watch(self, alive: dict[str, Status], now: float) -> None:
        """Log, when it begins and when it is over, what an operator should know."""
        me = alive.get(self._me)
        if me is None:
            return
        why = why_aside(me, alive.values())
        self._say("stands_aside", why and f"This daemon is not eligible to lead: {why}", "This daemon campaigns again")
        digests = {each.digest for each in alive.values()}
        self._mismatch_since = None if len(digests) == 1 else self._mismatch_since or now
        settled = self._mismatch_since is not None and now - self._mismatch_since >= SETTLE
        others = sorted(each.id for each in alive.values() if each.digest != me.digest)
        text = f"The schedule here ({me.digest}) is not that of {', '.join(others)}; {REMEDY}" if settled else ""
        self._say("config_mismatch", text, "All daemons have the same schedule again")
        versions = sorted({each.version for each in alive.values()} - {""})
        text = f"The daemons have different versions: {', '.join(versions)}" if len(versions) > 1 else ""
        self._say("version_mismatch", text, "All daemons have the same version again")
        offset = me.clock_offset_ms or 0
        ahead = "ahead of" if offset > 0 else "behind"
        text = f"The clock of this host is {span_text(abs(offset))} {ahead} the state store's; runs leave as it says"
        self._say("clock_skew", text if abs(offset) > SKEW_MS else "", "The clock of this host is right again")

    def _say(self, event: str, text: str, over: str) -> None:
        if text and event not in self._said:
            self._said.add(event)
            log.warning("%s", text, extra={"event": event})
        elif not text and event in self._said:
            self._said.remove(event)
            log.info("%s", over, extra={"event": f"{event}_over"})


def eligible_daemons(alive: Iterable[Status]) -> list[Status]:
    """Daemons that may lead: with a schedule if anyone has one, with sound files if anyone of them has; of several
    numbers of shards, the one of the daemon that started first, so that a change of it waits until that one ends; and
    of those, who was not told to step down."""
    fit = sorted(alive, key=lambda each: (each.started_ms, each.id))
    fit = [each for each in fit if each.entries] or fit
    fit = [each for each in fit if each.config == "ok"] or fit
    fit = [each for each in fit if each.shards == fit[0].shards]
    return [each for each in fit if not each.resting_ms] or fit


def why_aside(one: Status, alive: Iterable[Status]) -> str:
    """Why a daemon may not lead, in words; empty if it may."""
    fit = eligible_daemons(alive)
    if not fit or one in fit:
        return ""
    first = fit[0]
    if not one.entries:
        return f"its schedule is empty, and {first.id} has {first.entries} entries"
    if one.config != "ok" and first.config == "ok":
        return f"its files are broken, and those of {first.id} are not"
    if one.resting_ms and one.shards == first.shards:
        return f"it was told to step down, and campaigns again in {span_text(-(-one.resting_ms // 1000) * 1000)}"
    return f"it wants {one.shards} shards, and {first.id}, which started earlier, has {first.shards}"
