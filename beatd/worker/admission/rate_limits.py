"""Rate limits: token buckets for the runs of each task by this worker.

A message over the limit does not delay other tasks. It waits in memory if its turn comes within :data:`HOLD_S`, else it
is parked in the store, so that a queue full of such messages costs no memory.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from beatd.worker.request import Request

HOLD_S = 2.0
"""The longest wait in memory, in seconds; of messages, as many as may run in that time, one at least."""
_BURST_S = 0.1
"""Size of the token bucket, as time: unused capacity is kept this long, which also absorbs late wake-ups."""
_FURTHEST_S = 300.0
"""The longest wait in the store: a limit may be changed meanwhile. Each message that waits less has its own moment."""
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def per_second(limit: Any) -> float:
    """``"10/s"``, ``"100/m"``, ``"5/h"`` or a number of runs per second; 0 for no limit. Raises ValueError."""
    if limit is None:
        return 0.0
    count, _, unit = str(limit).partition("/")
    try:
        rate = float(count) / _SECONDS[unit.strip().lower() or "s"]
    except (KeyError, ValueError):
        rate = math.nan
    if not 0 <= rate < math.inf:
        raise ValueError(f"{limit!r} is no rate limit, expected one like '10/s', '100/m', '5/h' or a number per second")
    return rate


class TokenBucket:
    """Token bucket of one task, with the requests that wait for tokens."""

    def __init__(self, rate: float, now: float) -> None:
        self.held: deque[Request] = deque()
        self._tokens = 1.0
        self._at = now
        self._rate = rate
        self._parked_until = now
        self.set(rate)

    def set(self, rate: float) -> None:
        self._rate = rate
        self._capacity = max(1.0, rate * _BURST_S)
        self._places = max(1, int(rate * HOLD_S))

    def take(self, now: float) -> bool:
        """Take a token; false if there is none."""
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def wait(self, now: float) -> float:
        """Return the seconds until there is a token for a new request, after all that wait in memory."""
        return max(0.0, (1 + len(self.held) - self._tokens) / self._rate - (now - self._at))

    def first_in(self, now: float) -> float:
        """Return the seconds until there is a token for the first waiting request."""
        return max(0.0, (1 - self._tokens) / self._rate - (now - self._at)) if self.held else math.inf

    def hold(self, request: Request, now: float) -> float:
        """Hold the request in memory and return 0, or return the seconds for which to park it."""
        wait = self.wait(now)
        if len(self.held) < self._places and wait <= HOLD_S:
            self.held.append(request)
            return 0.0
        place = max(self._parked_until + 1 / self._rate, now + wait)
        if place - now > _FURTHEST_S:
            return _FURTHEST_S  # its place is decided when it comes back
        self._parked_until = place
        return place - now


class RateLimits:
    """The rate limits of one worker's tasks; times are monotonic seconds."""

    def __init__(self, limits: Mapping[str, Any], now: float) -> None:
        """``limits`` by task name. Raises ValueError for one that cannot be read, with the task's name."""
        self._now = now
        self._buckets: dict[str, TokenBucket] = {}
        self._freed: list[Request] = []
        """Requests whose limit was removed while they were held."""
        for name, limit in limits.items():
            try:
                self.set(name, limit)
            except ValueError as error:
                raise ValueError(f"task {name}: rate_limit {error}") from None

    def set(self, task_name: str, limit: Any) -> None:
        """Change a task's limit (see :func:`per_second`); 0 or None takes it away. Raises ValueError."""
        rate = per_second(limit)
        bucket = self._buckets.get(task_name)
        if rate and bucket is not None:
            bucket.set(rate)
        elif rate:
            self._buckets[task_name] = TokenBucket(rate, self._now)
        elif bucket is not None:
            self._freed += self._buckets.pop(task_name).held

    def admit(self, requests: list[Request], now: float) -> tuple[list[Request], list[tuple[Request, float]]]:
        """Return the requests that may run now, and those to park with the seconds; hold the rest."""
        self._now = now
        if not self._buckets:
            return requests, []
        run: list[Request] = []
        wait: list[tuple[Request, float]] = []
        for request in requests:
            bucket = self._buckets.get(request.headers.task)
            if bucket is None or (not bucket.held and bucket.take(now)):
                run.append(request)
            elif seconds := bucket.hold(request, now):
                wait.append((request, seconds))
        return run, wait

    def due(self, now: float) -> list[Request]:
        """Return the held requests that may run now."""
        self._now = now
        due, self._freed = self._freed, []
        for bucket in self._buckets.values():
            while bucket.held and bucket.take(now):
                due.append(bucket.held.popleft())
        return due

    def next_in(self, now: float) -> float:
        """Return the seconds until the next held request may run."""
        if not self._buckets and not self._freed:
            return math.inf
        return min([0.0 if self._freed else math.inf, *(bucket.first_in(now) for bucket in self._buckets.values())])

    def withdraw(self, tag: int) -> None:
        """Forget a held request: its message is another worker's now."""
        for held in (self._freed, *(bucket.held for bucket in self._buckets.values())):
            for request in [request for request in held if request.delivery.tag == tag]:
                held.remove(request)

    def held(self) -> list[Request]:
        """Return the held requests."""
        return [*self._freed, *(request for bucket in self._buckets.values() for request in bucket.held)]
