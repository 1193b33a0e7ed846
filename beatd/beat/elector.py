"""Leader election: leases are taken, renewed and released in a thread of its own.

A term is trusted from the moment at which the attempt that won it *started*, and trust ends a margin before the lease
does; so a slow answer can shorten a term and never stretch it. All of it on the monotonic clock. Trust is the daemon's
courtesy; what makes it safe is that every write carries the term and the store refuses an old one.

Lease renewal: three times in the lease's time to live, one round trip extends all leases of this daemon
(:meth:`Elector.turn`). The store extends only a lease that still names this daemon and this term; a term whose lease
is gone ends at once, and the daemon campaigns again. While renewals fail, trust runs out by itself.

The same thread writes this daemon's heartbeat, by which the daemons know of each other and share the shards, and looks
for daemons that are gone (:mod:`beatd.beat.presence`). It never gives up: after any error it steps down, logs it, and
campaigns again.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress

from msgspec import structs

from beatd.beat.presence import LOOK_EVERY, PresenceWatch
from beatd.beat.problems import ProblemWatch, shards_text
from beatd.beat.shard_assignment import ShardPlanner
from beatd.beat.term import Leadership, Term
from beatd.clock import Backoff, Clock
from beatd.exceptions import StoreError, StoreRefused
from beatd.store.daemon_registry import FleetView, LeaseOwner, Registry, Status
from beatd.store.lease import Leases
from beatd.timestamps import span_text

log = logging.getLogger("beatd.beat.elector")

RETRY_MIN, RETRY_MAX = 0.1, 2.0
"""Seconds between attempts while the store does not answer: the first pause, doubled each time, and the longest."""

HEARTBEAT_EVERY = 2.0
"""Seconds between two heartbeats, less when leases are short."""

LAPSE = 3
"""Heartbeats that a daemon may miss before it counts as gone: before its leases end, so that its heirs are known."""

SLICE = 0.1
"""Seconds of one wait for notifications: the longest time until :meth:`Elector.stop` is noticed."""
_TOO_LATE = "the store could not be reached in time to renew the lease"
_UNEXPECTED = "The elector met an unexpected error and goes on"

SLOW_S = 1.0
"""Seconds that a heartbeat takes if the store is slow."""
EXACT_MS = 500
"""A heartbeat that took longer says nothing about the clock."""


class Elector:
    """Holds the leases of those shards that are this daemon's to lead.

    ``status`` returns the status of this daemon. ``on_change`` is called, from the elector's thread,
    when a term begins or ends. ``fleet`` is what the start has seen: if nobody else is there, the first leases are
    taken before the heartbeat, which over a slow link would keep the first run waiting.
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
        fleet: FleetView | None = None,
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
        self._planner = ShardPlanner(self._me, shards=shards)
        self.watch = ProblemWatch(self._me, shards, leases.key)
        """The problems of the fleet."""
        self.leaderships = tuple(Leadership(clock, shard) for shard in range(shards))
        """The leadership of each shard, in their order."""
        self.fleet: FleetView | None = None
        """The daemons and leases as last seen."""
        self._at_start = fleet
        self.clock_offset_ms: int | None = None
        """How far this host's clock is ahead of the store's."""
        self._renew_at = self._step_down_until = 0.0
        self._backoff = Backoff(RETRY_MIN, RETRY_MAX)
        self._leaders: dict[int, str] = {}
        self._last_tokens: dict[int, int] = {}
        """The last token of each shard that this daemon knows; the store may have forgotten it."""
        self._presence = PresenceWatch(self._me, self._ttl)
        self._can_look, self._look_at = True, 0.0
        self._subscription = ExitStack()
        self._released_within: Callable[[float], bool] | None = None
        self._was_present = False
        self._listen_again = Backoff(RETRY_MIN / 10, RETRY_MAX)
        self._away: dict[int, str] = {}
        self._slow = ""  # the server of the store that answers slowly, and how long it took
        self.store_error: StoreError | None = None
        """Why the last turn failed, if so: a store that is read may take no writes. Read by other threads."""
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="elector", daemon=True)

    @staticmethod
    def lapse_ms(ttl_ms: int) -> int:
        """Return the liveness time-out (ms) of a daemon with such leases: after that silence it counts as gone."""
        return int(LAPSE * _heartbeat_every(ttl_ms / 1000) * 1000)

    @property
    def store_away_s(self) -> float:
        """Seconds for which the store has not answered this thread; 0 while it does. May be asked from any thread."""
        return self._backoff.away_s

    @property
    def daemon_id(self) -> str:
        """The id of this daemon."""
        return self._me

    def start(self) -> None:
        """Begin to campaign."""
        self._thread.start()

    def stop(self) -> None:
        """Give the leases back, which wakes the standbys, and end the thread. Bounded by the store's timeout."""
        self._stopping.set()
        self._woken.set()
        self._thread.join(timeout=self._ttl)

    def step_down_for(self, seconds: float) -> None:
        """Hand over all shards, and lead none for so many seconds while another daemon can. From any thread."""
        self._step_down_until = self._clock.monotonic() + seconds
        self._woken.set()

    def _run(self) -> None:
        pause = 0.0
        while not self._wait(pause):
            try:
                pause = self.turn()
                self._answered()
            except StoreError as error:
                pause = self._back_off(error)
            except Exception:
                log.exception(_UNEXPECTED, extra={"event": "elector_error"})
                pause = RETRY_MAX
        self._shut_down()

    def turn(self) -> float:
        """Renew leases, write the heartbeat, follow the plan; returns the seconds until the next turn."""
        held = self._held()
        if held and self._clock.monotonic() >= self._renew_at:
            self._renew(held)
        if self._was_present and self._released_within is None:
            self._subscribe()  # before the rest: the others miss this daemon
        self._take_if_alone()
        fleet = self._heartbeat()
        plan = self._planner.plan(self._presence.without_gone(fleet), self._clock.monotonic())
        self._hand_over(plan.give)
        self._take(plan.take, fleet)
        if self._released_within is None:
            self._subscribe()
            return 0.0  # a release before that was not heard, and the others do not know that this one is present
        held = self._held()
        pauses = [_heartbeat_every(self._ttl)]
        if held:
            pauses.append(self._renew_at - self._clock.monotonic())
        if plan.look_again is not None:
            pauses.append(plan.look_again + random.uniform(0.001, 0.02))  # noqa: S311 - not all at once
        return max(min(pauses), 0.0)

    def _held(self) -> dict[int, int]:
        return {leadership.shard: token for leadership in self.leaderships if (token := leadership.token) is not None}

    def _renew(self, held: Mapping[int, int]) -> None:
        """Lease renewal: prolong the terms, and end those whose lease is gone."""
        started = self._clock.monotonic()
        renewed = self._leases.renew(held)
        self._renew_at = started + self._renew_every
        if renewed.failed:
            self._renew_at = min(self._renew_at, started + RETRY_MAX)
        # a renewal asks the nodes of what is held only: that another one answers again is seen by the heartbeat
        self._say_away({**self._away, **{shard: str(error) for shard, error in renewed.failed.items()}})
        for shard, token in held.items():
            if shard in renewed.done:
                self.leaderships[shard].prolong(token, started + self._ttl - self._margin)
            elif shard in renewed.failed:
                if self.leaderships[shard].term() is None:
                    self.leaderships[shard].end(token, _TOO_LATE)
                    self._on_change()
            else:
                self.leaderships[shard].end(token, "the lease was gone when it was to be renewed")
                self._on_change()

    def _say_away(self, away: Mapping[int, str]) -> None:
        """Log which shards have a node that does not answer, when that begins and ends. The others go on."""
        for shard, reason in away.items():
            if shard not in self._away:
                text = "The node of shard %d does not answer, and its runs wait: %s"
                log.warning(text, shard, reason, extra={"event": "shard_away", "shard": shard})
        for shard in self._away.keys() - away.keys():
            log.info("The node of shard %d answers again", shard, extra={"event": "shard_back", "shard": shard})
        self._away = dict(away)

    def _say_slow(self, place: str, seconds: float) -> None:
        """Log that the store answers slowly, when that begins and ends. Runs are late then, and none fails."""
        was_slow = bool(self._slow)
        self._slow = f"{place} took {span_text(int(seconds * 1000))}" if seconds >= SLOW_S else ""
        if self._slow and not was_slow:
            text = "The state store answers slowly, and runs are late: %s"
            extra = {"event": "store_slow", "server": place, "seconds": round(seconds, 3)}
            log.warning(text, self._slow, extra=extra)
        elif was_slow and not self._slow:
            log.info("The state store answers quickly again", extra={"event": "store_slow_over"})

    def _heartbeat(self) -> FleetView:
        before, started = self._clock.now_ms(), self._clock.monotonic()
        stepped_down_ms = max(int((self._step_down_until - self._clock.monotonic()) * 1000), 0)
        status = structs.replace(
            self._status(),
            clock_offset_ms=self.clock_offset_ms,
            resting_ms=stepped_down_ms,
            present=self._leases.present,
            slow=self._slow,
            lasting_ms=self.watch.lasting_ms(started),
        )
        fleet = self._registry.heartbeat(status, shards=len(self.leaderships))
        self._say_slow(fleet.slowest, self._clock.monotonic() - started)
        after = self._clock.now_ms()
        if 0 <= after - before <= EXACT_MS:
            self.clock_offset_ms = (before + after) // 2 - fleet.now_ms
        known = {shard: owner for shard, owner in fleet.leases.items() if not self._unknown(shard, owner)}
        fleet = fleet._replace(leases=known)
        self.fleet = fleet
        self.watch.saw(fleet, self._clock.monotonic())
        self._say_away(fleet.away)
        self._follow(fleet)
        return fleet

    def _unknown(self, shard: int, holder: LeaseOwner) -> bool:
        """True for a lease in our name whose token we do not know, as the answer was lost: it counts as free."""
        return holder.daemon_id == self._me and holder.token != self.leaderships[shard].token

    def _follow(self, fleet: FleetView) -> None:
        """Log for which leaders this daemon is a standby."""
        for shard, holder in fleet.leases.items():
            if holder.daemon_id in fleet.daemons:  # a value that is not beatd's says nothing
                self._last_tokens[shard] = max(holder.token, self._last_tokens.get(shard, 0))
        before, self._leaders = self._leaders, {shard: holder.daemon_id for shard, holder in fleet.leases.items()}
        new: dict[str, list[int]] = {}
        for shard, leader in self._leaders.items():
            if leader == self._me or before.get(shard) == leader:
                continue
            if fleet.leases[shard].is_foreign:
                text = "The key %s has a value that is not beatd's, and nobody can lead shard %d: delete the key"
                log.error(text, self._leases.key(shard), shard, extra={"event": "lease_foreign"})
            else:
                new.setdefault(leader, []).append(shard)
        for leader, shards in new.items():
            extra = {"event": "standing_by", "leader": leader, "shards": shards}
            log.info("Standing by; %s leads %s", leader, shards_text(shards), extra=extra)

    def _take(self, shards: Sequence[int], fleet: FleetView) -> None:
        if not shards:
            return
        first = not self._held()
        gone = {shard: one for shard, one in fleet.leases.items() if one.daemon_id in self._presence.gone}
        started = self._clock.monotonic()
        values = {shard: f"{one.daemon_id}:{one.token}" for shard, one in gone.items()}
        tokens = self._leases.take(shards, self._last_tokens, values)
        self._last_tokens |= tokens
        for shard, token in tokens.items():
            self.leaderships[shard].begin(Term(token, self._leases.value(token), started + self._ttl - self._margin))
        if first:
            self._renew_at = started + self._renew_every
        if tokens:
            self._on_change()

    def _take_if_alone(self) -> None:
        """Take all shards with the first turn, if there was neither a live daemon nor a lease when this one started."""
        fleet, self._at_start = self._at_start, None
        if fleet is not None and not (fleet.alive or fleet.leases or fleet.away):
            self._take(range(len(self.leaderships)), fleet)

    def _hand_over(self, shards: Sequence[int]) -> None:
        """Hand shards over to other daemons: stop leading first, then release the leases."""
        tokens = {shard: token for shard, token in self._held().items() if shard in shards}
        if tokens and self._release(tokens):
            extra = {"event": "shards_handed_over", "shards": list(tokens)}
            log.info("Handed %s over", shards_text(list(tokens)), extra=extra)

    def _release(self, tokens: Mapping[int, int]) -> int:
        for shard, token in tokens.items():
            self.leaderships[shard].leave(token)
        self._on_change()
        return self._leases.release(tokens)

    def _back_off(self, error: StoreError) -> float:
        """Note that the store failed; returns the seconds until the next attempt. Terms last while they are trusted."""
        pause, self.store_error = self._backoff.failed(), error.with_traceback(None)
        self._unsubscribe()
        self._presence.interrupted(self._clock.monotonic())
        back = self._backoff
        extra = {"event": error.word, "attempt": back.attempts, "since": back.since}
        log.log(back.level, "%s%s; trying again in %.1f s", error, back.since_text, pause, extra=extra)
        for shard, token in self._held().items():
            if self.leaderships[shard].term() is None:
                self.leaderships[shard].end(token, _TOO_LATE)
        self._on_change()
        return pause

    def _answered(self) -> None:
        if self._backoff.attempts:
            extra = {"event": "store_recovered", "seconds": round(self._backoff.away_s, 1)}
            log.info("The state store answers again, after %s", self._backoff.away_text, extra=extra)
        self._backoff.succeeded()
        self.store_error = None

    def _subscribe(self) -> None:
        self._released_within = self._subscription.enter_context(self._leases.listen())
        self._was_present = self._leases.present
        if self._leases.refused:
            self._look_no_more(self._leases.refused)

    def _unsubscribe(self) -> None:
        self._released_within = None
        with suppress(Exception):  # the connection is given up
            self._subscription.close()

    def _wait(self, seconds: float) -> bool:
        """Wait until the time is over, a leader steps down or is gone, or another thread wakes us; True: stop."""
        until = self._clock.monotonic() + seconds
        news = False
        while self._released_within is not None and not (news or self._woken.is_set()):
            left = until - self._clock.monotonic()
            try:
                news = left <= 0 or self._released_within(min(left, SLICE)) or self._look()
                self._listen_again.succeeded()
            except Exception as error:  # the next turn finds out what is wrong
                if not isinstance(error, StoreError):
                    log.exception(_UNEXPECTED, extra={"event": "elector_error"})
                self._unsubscribe()
                self._presence.interrupted(self._clock.monotonic())
                until = min(until, self._clock.monotonic() + self._listen_again.failed())
        if not news:
            self._clock.wait(self._woken, max(until - self._clock.monotonic(), 0.0))
        self._woken.clear()
        return self._stopping.is_set()

    def _look(self) -> bool:
        """Check several times a second whether the other daemons are present; True if another one is gone."""
        now = self._clock.monotonic()
        can_look = self._can_look and len(self._held()) < len(self.leaderships)
        if now < self._look_at or not can_look or self.fleet is None:
            return False
        self._look_at = now + LOOK_EVERY
        watched = self._presence.watched(self.fleet)
        if not watched:
            return False
        try:
            absent = self._leases.absent(watched)
        except StoreRefused as error:
            self._look_no_more(str(error))
            return False
        answered = self._clock.monotonic()
        return self._presence.saw(absent, watched, answered, answered - now)

    def _look_no_more(self, reason: str) -> None:
        if self._can_look:
            self._can_look = False
            text = "A dead leader is replaced only when its lease ends: %s"
            log.warning(text, reason, extra={"event": "presence_refused"})

    def _shut_down(self) -> None:
        """Remove this daemon from the list, then release the leases, so that those who are notified find it gone."""
        self._unsubscribe()
        tokens = self._held()
        try:
            self._registry.leave(self._me)
            if tokens and self._release(tokens):
                extra = {"event": "lease_released", "shards": list(tokens)}
                log.info("Released the lease of %s", shards_text(list(tokens)), extra=extra)
        except StoreError as error:
            log.warning("Could not release the leases; they end: %s", error, extra={"event": "lease_left"})


def _heartbeat_every(ttl: float) -> float:
    return min(HEARTBEAT_EVERY, ttl * HEARTBEAT_EVERY / 15)
