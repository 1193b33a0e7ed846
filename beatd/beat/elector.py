"""Who leads: a lease that is taken, renewed and given back in a thread of its own.

A term is trusted from the moment at which the attempt that won it *started*, and trust ends a margin before the lease
does; so a slow answer can shorten a term and never stretch it. All of it on the monotonic clock. Trust is the daemon's
courtesy; what makes it safe is that every write carries the term and the store refuses an old one.

The thread never gives up: whatever goes wrong, it steps down, says so, and campaigns again.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import NamedTuple

from beatd.clock import Clock
from beatd.exceptions import StoreError
from beatd.store.lease import Held, Lease

log = logging.getLogger("beatd.beat.elector")

RETRY_MIN, RETRY_MAX = 0.1, 5.0
"""Seconds between attempts while the store does not answer; doubled from one to the other."""


class Term(NamedTuple):
    """Leadership as a value. ``token`` only ever grows; trust ends at a moment of the monotonic clock."""

    token: int
    lease_value: str
    trusted_until: float


class Elector:
    """Holds the lease of one shard whenever it can.

    ``on_change`` is called, from the elector's thread, when a term begins or ends.
    """

    def __init__(
        self,
        lease: Lease,
        clock: Clock,
        *,
        ttl_ms: int,
        renew_ms: int,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._lease = lease
        self._clock = clock
        self._ttl = ttl_ms / 1000
        self._renew_every = renew_ms / 1000
        self._margin = min(1.0, self._ttl / 5)
        self._on_change = on_change
        self._term: Term | None = None
        self._stopping = threading.Event()
        self._failures = 0
        self.holder = ""
        """The lease value of whoever leads, as far as this daemon knows."""
        self._thread = threading.Thread(target=self._run, name="elector", daemon=True)

    def start(self) -> None:
        """Begin to campaign."""
        self._thread.start()

    def stop(self) -> None:
        """Give the lease back, which wakes the standbys, and end the thread. Bounded by the store's timeout."""
        self._stopping.set()
        self._thread.join(timeout=self._ttl)
        term, self._term = self._term, None
        if term is not None:
            try:
                self._lease.release(term.token)
                log.info("Gave the lease back", extra={"event": "lease_released", "term": term.token})
            except StoreError as error:
                log.warning(
                    "Could not give the lease back; it ends by itself: %s", error, extra={"event": "lease_left"}
                )

    def term(self) -> Term | None:
        """The current term, if this daemon leads and may still trust it."""
        term = self._term
        return term if term is not None and self._clock.monotonic() < term.trusted_until else None

    def lose(self, term: Term) -> None:
        """The store said that ``term`` is over."""
        if self._term is not None and self._term.token == term.token:
            self._end_term("the store refused a write")

    def _run(self) -> None:
        pause = 0.0
        while not self._clock.wait(self._stopping, pause):
            try:
                pause = self._renew(self._term) if self._term is not None else self._campaign()
                self._failures = 0
            except StoreError as error:
                pause = self._stand_back(error)
            except Exception:
                log.exception("The elector met an unexpected error and goes on", extra={"event": "elector_error"})
                pause = RETRY_MAX

    def _campaign(self) -> float:
        """Try for the lease until it is ours; returns the seconds to wait before its renewal.

        Listens before it tries, so that no release goes unheard.
        """
        with self._lease.releases() as released_within:
            while not self._stopping.is_set():
                started = self._clock.monotonic()
                outcome = self._lease.take()
                if not isinstance(outcome, Held):
                    self._begin_term(outcome, started)
                    return self._renew_every
                self._follow(outcome)
                self._wait_for_turn(outcome, released_within)
        return 0.0

    def _wait_for_turn(self, held: Held, released_within: Callable[[float], bool]) -> None:
        """Until the lease runs out or is released; in slices, so that a stop is not kept waiting."""
        until = self._clock.monotonic() + max(held.left_ms, 0) / 1000 + random.uniform(0.001, 0.02)  # noqa: S311
        while not self._stopping.is_set():
            left = until - self._clock.monotonic()
            if left <= 0 or released_within(min(left, 0.25)):
                return

    def _renew(self, term: Term) -> float:
        """Prolong the term, or learn that it is over; returns the seconds until the next renewal or campaign."""
        started = self._clock.monotonic()
        if self._lease.renew(term.token):
            self._term = term._replace(trusted_until=started + self._ttl - self._margin)
            return self._renew_every
        self._end_term("the lease was gone when it was to be renewed")
        return 0.0

    def _stand_back(self, error: StoreError) -> float:
        """The store failed. A term goes on for as long as it can be trusted; returns the seconds until the next try."""
        self._failures += 1
        pause: float = min(RETRY_MIN * 2.0 ** min(self._failures - 1, 10), RETRY_MAX)
        log.warning(
            "%s; trying again in %.1f s", error, pause, extra={"event": "store_unavailable", "attempt": self._failures}
        )
        if self._term is not None and self.term() is None:
            self._end_term("the store could not be reached in time to renew the lease")
        return pause

    def _begin_term(self, token: int, started: float) -> None:
        value = self._lease.value(token)
        self._term = Term(token, value, started + self._ttl - self._margin)
        self.holder = value
        log.info("Leading, term %d", token, extra={"event": "term_began", "term": token})
        self._on_change()

    def _follow(self, held: Held) -> None:
        if held.holder != self.holder:
            self.holder = held.holder
            log.info("Standing by; %s leads", held.holder, extra={"event": "standing_by", "leader": held.holder})

    def _end_term(self, reason: str) -> None:
        term, self._term = self._term, None
        if term is not None:
            log.warning(
                "Stepping down: %s", reason, extra={"event": "term_ended", "term": term.token, "reason": reason}
            )
            self._on_change()
