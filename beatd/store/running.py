"""Runs that were sent and may not be over yet: what overlap policies ask about.

A run is over when its result says so (stored by any worker in this server, in Celery's format), when a bundled worker
remembers that it ended, or when the time that it may take has passed: so nothing can silence an entry for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from beatd.store.client import border
from beatd.store.keys import Keys
from beatd.store.outcomes import READY_STATES
from beatd.store.results import decode, result_key


class Running:
    """The last run of entries that mind overlaps, of one shard."""

    def __init__(self, client: redis.Redis, keys: Keys, *, shard: int = 0) -> None:
        self._client = client
        self._key = keys.shard(shard).running
        self._keys = keys

    def unfinished(self, runtimes: Mapping[str, int], *, now_ms: int) -> frozenset[str]:
        """Those entries whose last run is not over, given how long (ms) each may run; three round trips at most.

        A run that seems to have begun in the future was sent by a clock that was ahead, and counts as over.
        """
        if not runtimes:
            return frozenset()
        with border(self._client):
            values = self._client.hmget(self._key, list(runtimes))
        runs = {name: _parsed(value) for name, value in zip(runtimes, values, strict=True) if value}
        asked = {name: run_id for name, (run_id, until_ms) in runs.items() if 0 < until_ms - now_ms <= runtimes[name]}
        if not asked:
            return frozenset()
        with border(self._client):
            results = self._client.mget([result_key(run_id) for run_id in asked.values()])
            ended = self._client.mget([self._keys.finished(run_id) for run_id in asked.values()])
        over = {name for name, result, end in zip(asked, results, ended, strict=True) if end or _is_over(result)}
        return frozenset(asked.keys() - over)


def _is_over(result: Any) -> bool:
    return result is not None and decode(result)["status"] in READY_STATES


def _parsed(value: Any) -> tuple[str, int]:
    run_id, _, until_ms = value.decode().partition(" ")
    return run_id, int(until_ms)
