"""Leader election: leases are taken, renewed and released in a thread of its own.

A term is trusted from the moment at which the attempt that won it *started*, and trust ends a margin before the lease
does; so a slow answer can shorten a term and never stretch it. All of it on the monotonic clock. Trust is the daemon's
courtesy; what makes it safe is that every write carries the term and the store refuses an old one.

The same thread answers the roll, by which the daemons know of each other and share the shards. It never gives up:
whatever goes wrong, it steps down, says so, and campaigns again.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from msgspec import structs

from beatd.beat.shard_assignment import ShardPlanner
from beatd.beat.term import Leadership, Term
from beatd.clock import Clock
from beatd.exceptions import StoreError, StoreRefused
from beatd.store.daemon_registry import FleetView, LeaseOwner, Registry, Status
from beatd.store.lease import Leases

log = logging.getLogger("beatd.beat.elector")

RETRY_MIN, RETRY_MAX = 0.1, 2.0
"""Seconds between attempts while the store does not answer; doubled from one to the other."""

ROLL_EVERY = 2.0
"""Seconds between two answers to the roll, less when leases are short."""

LAPSE = 3
"""A daemon that misses so many is taken for gone; sooner than its leases end, so that its heirs are known by then."""

SLICE = 0.1
"""Seconds of listening at a stretch; so long may a stop be kept waiting."""

EXACT_MS = 500
"""A roll call that took longer says nothing about the clock."""


class Elector:
    """Holds the leases of those shards that are this daemon's to lead.

    ``status`` is asked for what the daemon has to say of itself. ``on_change`` is called, from the elector's thread,
    when a term begins or ends.
    """

    def __init__(
        self,
        leases: Leases,
        registry: Registry,
        clock: Clock,
        *,
        shards: int,
        ttl_ms: int,
        renew_ms: int,
        status: Callable[[], Status],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._leases = leases
        self._registry = registry
        self._clock = clock
        self._status = status
        self._on_change = on_change
        self._ttl = ttl_ms / 1000
        self._renew_every = renew_ms / 1000
        self._margin = min(1.0, self._ttl / 5)
        self._me = status().id
        self._fleet = ShardPlanner(self._me, shards=shards)
        self.seats = tuple(Leadership(clock, shard) for shard in range(shards))
        """The leadership of each shard, in their order."""
        self.roll: FleetView | None = None
        """The daemons and leases as last seen."""
        self.clock_offset_ms: int | None = None
        """How far this host's clock is ahead of the store's."""
        self._renew_at = self._rest_until = 0.0
        self._failures = 0
        self._leaders: dict[int, str] = {}
        self._last_tokens: dict[int, int] = {}
        """Of each shard, as far as this daemon knows; the store may forget."""
        self._listening = ExitStack()
        self._released_within: Callable[[float], bool] | None = None
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="elector", daemon=True)

    @staticmethod
    def lapse_ms(ttl_ms: int) -> int:
        """Return the liveness time-out (ms) of a daemon with such leases: after that silence it counts as gone."""
        return int(LAPSE * _roll_every(ttl_ms / 1000) * 1000)

    def start(self) -> None:
        """Begin to campaign."""
        self._thread.start()

    def stop(self) -> None:
        """Give the leases back, which wakes the standbys, and end the thread. Bounded by the store's timeout."""
        self._stopping.set()
        self._woken.set()
        self._thread.join(timeout=self._ttl)

    def rest(self, seconds: float) -> None:
        """Hand over what is led, and lead nothing for so long while another daemon can. From any thread."""
        self._rest_until = self._clock.monotonic() + seconds
        self._woken.set()

    def _run(self) -> None:
        pause = 0.0
        while not self._wait(pause):
            try:
                pause = self.turn()
                self._failures = 0
            except StoreError as error:
                pause = self._stand_back(error)
            except Exception:
                log.exception("The elector met an unexpected error and goes on", extra={"event": "elector_error"})
                pause = RETRY_MAX
        self._depart()

    def turn(self) -> float:
        """Renew what is held, answer the roll, do as it demands; returns the seconds until the next turn."""
        held = self._held()
        if held and self._clock.monotonic() >= self._renew_at:
            self._renew(held)
        if len(self._held()) < len(self.seats):
            self._listen()  # before the roll is called, so that no release after it goes unheard
        plan = self._fleet.consider(self._answer_the_roll(), self._clock.monotonic())
        self._hand_over(plan.give)
        self._take(plan.take)
        held = self._held()
        if len(held) == len(self.seats):
            self._deafen()
        pauses = [_roll_every(self._ttl)]
        if held:
            pauses.append(self._renew_at - self._clock.monotonic())
        if plan.look_again is not None:
            pauses.append(plan.look_again + random.uniform(0.001, 0.02))  # noqa: S311 - not all at once
        return max(min(pauses), 0.0)

    def _held(self) -> dict[int, int]:
        return {seat.shard: token for seat in self.seats if (token := seat.token) is not None}

    def _renew(self, held: Mapping[int, int]) -> None:
        """Prolong the terms, or learn which are over."""
        started = self._clock.monotonic()
        renewed = self._leases.renew(held)
        self._renew_at = started + self._renew_every
        for shard, token in held.items():
            if shard in renewed:
                self.seats[shard].prolong(token, started + self._ttl - self._margin)
            else:
                self.seats[shard].end(token, "the lease was gone when it was to be renewed")
                self._on_change()

    def _answer_the_roll(self) -> FleetView:
        before = self._clock.now_ms()
        resting_ms = max(int((self._rest_until - self._clock.monotonic()) * 1000), 0)
        status = structs.replace(self._status(), clock_offset_ms=self.clock_offset_ms, resting_ms=resting_ms)
        roll = self._registry.answer(status, shards=len(self.seats))
        after = self._clock.now_ms()
        if 0 <= after - before <= EXACT_MS:
            self.clock_offset_ms = (before + after) // 2 - roll.now_ms
        roll = roll._replace(leases={shard: one for shard, one in roll.leases.items() if not self._unknown(shard, one)})
        self.roll = roll
        self._follow(roll)
        return roll

    def _unknown(self, shard: int, holder: LeaseOwner) -> bool:
        """True for a lease of our own that we know nothing of: its answer was lost, and it is as good as free."""
        return holder.daemon_id == self._me and holder.token != self.seats[shard].token

    def _follow(self, roll: FleetView) -> None:
        """Say whom this daemon stands by for."""
        for shard, holder in roll.leases.items():
            if holder.daemon_id in roll.daemons:  # a value that is not beatd's says nothing
                self._last_tokens[shard] = max(holder.token, self._last_tokens.get(shard, 0))
        before, self._leaders = self._leaders, {shard: holder.daemon_id for shard, holder in roll.leases.items()}
        new: dict[str, list[int]] = {}
        for shard, leader in self._leaders.items():
            if leader == self._me or before.get(shard) == leader:
                continue
            if roll.leases[shard].is_foreign:
                text = "The key %s has a value that is not beatd's, and nobody can lead shard %d: delete the key"
                log.error(text, self._leases.key(shard), shard, extra={"event": "lease_foreign"})
            else:
                new.setdefault(leader, []).append(shard)
        for leader, shards in new.items():
            extra = {"event": "standing_by", "leader": leader, "shards": shards}
            log.info("Standing by; %s leads %s", leader, _listed(shards), extra=extra)

    def _take(self, shards: Sequence[int]) -> None:
        if not shards:
            return
        first = not self._held()
        started = self._clock.monotonic()
        tokens = self._leases.take(shards, self._last_tokens)
        self._last_tokens |= tokens
        for shard, token in tokens.items():
            self.seats[shard].begin(Term(token, self._leases.value(token), started + self._ttl - self._margin))
        if first:
            self._renew_at = started + self._renew_every
        if tokens:
            self._on_change()

    def _hand_over(self, shards: Sequence[int]) -> None:
        """Stop leading first, then give the leases back: another daemon is to have these shards."""
        tokens = {shard: token for shard, token in self._held().items() if shard in shards}
        if tokens and self._release(tokens):
            extra = {"event": "shards_handed_over", "shards": list(tokens)}
            log.info("Handed %s over", _listed(list(tokens)), extra=extra)

    def _release(self, tokens: Mapping[int, int]) -> int:
        for shard, token in tokens.items():
            self.seats[shard].leave(token)
        self._on_change()
        return self._leases.release(tokens)

    def _stand_back(self, error: StoreError) -> float:
        """The store failed. A term goes on for as long as it can be trusted; returns the seconds until the next try."""
        self._failures += 1
        self._deafen()
        pause: float = min(RETRY_MIN * 2.0 ** min(self._failures - 1, 10), RETRY_MAX)
        event = "store_refused" if isinstance(error, StoreRefused) else "store_unavailable"
        extra = {"event": event, "attempt": self._failures}
        log.warning("%s; trying again in %.1f s", error, pause, extra=extra)
        for shard, token in self._held().items():
            if self.seats[shard].term() is None:
                self.seats[shard].end(token, "the store could not be reached in time to renew the lease")
        self._on_change()
        return pause

    def _listen(self) -> None:
        if self._released_within is None:
            self._released_within = self._listening.enter_context(self._leases.releases())

    def _deafen(self) -> None:
        self._released_within = None
        self._listening.close()

    def _wait(self, seconds: float) -> bool:
        """Until the time is over, a leader steps down, or somebody wakes us; tells whether this is the end."""
        until = self._clock.monotonic() + seconds
        released = False
        while self._released_within is not None and not (released or self._woken.is_set()):
            left = until - self._clock.monotonic()
            try:
                released = left <= 0 or self._released_within(min(left, SLICE))
            except StoreError:
                self._deafen()  # the next turn finds out what is wrong
        if not released:
            self._clock.wait(self._woken, max(until - self._clock.monotonic(), 0.0))
        self._woken.clear()
        return self._stopping.is_set()

    def _depart(self) -> None:
        """Leave the roll, then the leases: whoever hears of them finds this daemon gone."""
        self._deafen()
        tokens = self._held()
        try:
            self._registry.leave(self._me)
            if tokens and self._release(tokens):
                extra = {"event": "lease_released", "shards": list(tokens)}
                log.info("Gave the lease of %s back", _listed(list(tokens)), extra=extra)
        except StoreError as error:
            log.warning(
                "Could not give the leases back; they end by themselves: %s", error, extra={"event": "lease_left"}
            )


def _roll_every(ttl: float) -> float:
    return min(ROLL_EVERY, ttl * ROLL_EVERY / 15)


def _listed(shards: Sequence[int]) -> str:
    return f"shard{'s' if shards[1:] else ''} {', '.join(map(str, shards))}"
