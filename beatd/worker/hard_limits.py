"""Hard time limits, enforced from outside: who has used up the time is ended."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from beatd.worker.pools.port import Pool
from beatd.worker.request import Request

log = logging.getLogger("celery.worker")


class HardLimits:
    """Watches those of a worker's ``requests`` that have a limit; when none has, this costs nothing."""

    def __init__(self, pool: Pool, requests: Mapping[int, Request]) -> None:
        self._pool = pool
        self._requests = requests
        self._limited: set[int] = set()

    def begun(self, request: Request) -> None:
        """That one is with the pool now."""
        if request.hard_limit:
            self._limited.add(request.delivery.tag)

    def ended(self, tag: int) -> None:
        """That one has ended."""
        if self._limited:
            self._limited.discard(tag)

    def enforce(self, now: float) -> float:
        """End whose time is over (monotonic seconds); returns the seconds until it is over for the next one."""
        if not self._limited:
            return math.inf
        next_in = math.inf
        for tag, since in self._pool.running_since().items():
            request = self._requests.get(tag) if tag in self._limited else None
            if request is None:
                continue
            limit = request.hard_limit or math.inf
            if (left := since + limit - now) > 0:
                next_in = min(next_in, left)
            elif self._pool.kill(tag):
                log.error(
                    "Hard time limit (%ss) exceeded for %s[%s]",
                    limit,
                    request.name,
                    request.id,
                    extra={"event": "task_time_limit", "task": request.name, "task_id": request.id},
                )
        return next_in
