"""Leadership: the term of one shard as a value, and the leadership through which its loop sees it."""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple

from beatd.clock import Clock

log = logging.getLogger("beatd.beat.elector")


class Term(NamedTuple):
    """Leadership as a value. ``token`` only ever grows; trust ends at a moment of the monotonic clock."""

    token: int
    lease_value: str
    trusted_until: float


class Leadership:
    """The leadership of one shard: given and taken by the elector's thread, asked by the loop's."""

    def __init__(self, clock: Clock, shard: int) -> None:
        self.shard = shard
        self._clock = clock
        self._lock = threading.Lock()
        self._term: Term | None = None

    def term(self) -> Term | None:
        """The current term, if this daemon leads and may still trust it."""
        term = self._term
        return term if term is not None and self._clock.monotonic() < term.trusted_until else None

    def lose(self, term: Term) -> None:
        """End ``term``, as the store said that it is over."""
        self.end(term.token, "the store refused a write")

    @property
    def token(self) -> int | None:
        """The token of the term that was won and not ended, trusted or not."""
        term = self._term
        return None if term is None else term.token

    def begin(self, term: Term) -> None:
        """Begin a term that was just won."""
        with self._lock:
            self._term = term
        extra = {"event": "term_began", "term": term.token, "shard": self.shard}
        log.info("Leading shard %d, term %d", self.shard, term.token, extra=extra)

    def prolong(self, token: int, trusted_until: float) -> None:
        """Prolong the term that was renewed, unless it has ended meanwhile."""
        with self._lock:
            if self._term is not None and self._term.token == token:
                self._term = self._term._replace(trusted_until=trusted_until)

    def end(self, token: int, reason: str) -> None:
        """End the term that was lost, unless it has ended already."""
        if self.leave(token):
            extra = {"event": "term_ended", "term": token, "shard": self.shard, "reason": reason}
            log.warning("Stepping down from shard %d: %s", self.shard, reason, extra=extra)

    def leave(self, token: int) -> bool:
        """Trust the term no longer; tells whether it had not ended already."""
        with self._lock:
            left = self._term is not None and self._term.token == token
            self._term = None if left else self._term
        return left
