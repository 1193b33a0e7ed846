"""Rate limits of requests: a token bucket for each address, of a bounded number of addresses."""

from __future__ import annotations

import threading
from collections import OrderedDict

from starlette.types import ASGIApp, Receive, Scope, Send

from beatd.clock import Clock
from beatd.web.security import refusal

READS, CHANGES = (2_000, 10.0), (60, 30.0)
"""Requests of one address at once, and the seconds in which so many more are allowed."""
_ADDRESSES = 10_000


class Buckets:
    """Buckets of ``size`` that are full again after ``seconds``."""

    def __init__(self, size: int, seconds: float, clock: Clock) -> None:
        self._size, self._rate, self._clock = float(size), size / seconds, clock
        self._taking = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Take one; False if the bucket is empty."""
        with self._taking:
            left, now = self._left(address), self._clock.monotonic()
            if left < 1:
                return False
            self._buckets[address] = (left - 1, now)
            self._buckets.move_to_end(address)
            if len(self._buckets) > _ADDRESSES:
                self._buckets.popitem(last=False)
            return True

    def has_room(self, address: str) -> bool:
        """True if one could be taken."""
        with self._taking:
            return self._left(address) >= 1

    def _left(self, address: str) -> float:
        left, since = self._buckets.get(address, (self._size, 0.0))
        return min(self._size, left + (self._clock.monotonic() - since) * self._rate)


class RateLimit:
    """Middleware that answers 429 to an address that asks too often. Health checks are always answered."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app = app
        self._reads, self._changes = Buckets(*READS, clock), Buckets(*CHANGES, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope["client"][0] if scope.get("client") else ""
        buckets = self._reads if scope["method"] in ("GET", "HEAD", "OPTIONS") else self._changes
        if scope["path"] in ("/healthz", "/readyz") or buckets.take(peer):
            await self._app(scope, receive, send)
            return
        answer = refusal(scope, 429, "too many requests; try again in some seconds", {"Retry-After": "10"})
        await answer(scope, receive, send)
