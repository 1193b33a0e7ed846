"""Runs that were sent and may not be over yet: what overlap policies ask about.

A run is over when its result says so (stored by any worker in this server, in Celery's format), when a bundled worker
remembers that it ended, or when the time that it may take has passed: so nothing can silence an entry for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import redis

from beatd.exceptions import MessageError
from beatd.store.client import border
from beatd.store.keys import Keys
from beatd.store.outcomes import READY_STATES
from beatd.store.results import decode, result_key

log = logging.getLogger("beatd.store")

SAID_KEPT = 10_000
"""Entries of which is remembered what was said."""


class Running:
    """The last run of entries that mind overlaps, of one shard."""

    def __init__(self, client: redis.Redis, keys: Keys, *, shard: int = 0) -> None:
        self._client = client
        self._key = keys.shard(shard).running
        self._keys = keys
        self._said: dict[str, str] = {}

    def unfinished(self, runtimes: Mapping[str, int], *, now_ms: int) -> frozenset[str]:
        """Those entries whose last run is not over, given how long (ms) each may run; three round trips at most.

        A run that seems to have begun in the future was sent by a clock that was ahead, and counts as over.
        """
        if not runtimes:
            return frozenset()
        with border(self._client):
            values: Any = self._client.hmget(self._key, list(runtimes))
        runs = {name: self._parsed(name, value) for name, value in zip(runtimes, values, strict=True) if value}
        asked = {name: run_id for name, (run_id, until_ms) in runs.items() if 0 < until_ms - now_ms <= runtimes[name]}
        if not asked:
            return frozenset()
        with border(self._client):
            results = self._client.mget([result_key(run_id) for run_id in asked.values()])
            ended = self._client.mget([self._keys.finished(run_id) for run_id in asked.values()])
        found = zip(asked.items(), results, ended, strict=True)
        over = {name for (name, run_id), result, end in found if end or self._is_over(name, run_id, result)}
        return frozenset(asked.keys() - over)

    def _is_over(self, name: str, run_id: str, result: Any) -> bool:
        """Whether a result says so. One that nobody can read was stored by something that has ended."""
        if result is None:
            return False
        try:
            return decode(result)["status"] in READY_STATES
        except (MessageError, LookupError, TypeError, ValueError, RecursionError):
            text = "The result of the last run of %s cannot be read (%s); the run counts as ended"
            self._say_once(name, run_id, text, result_key(run_id))
            return True

    def _parsed(self, name: str, value: bytes) -> tuple[str, int]:
        run_id, _, until_ms = value.decode(errors="replace").partition(" ")
        if until_ms.isascii() and until_ms.isdigit() and len(until_ms) < 16:
            return run_id, int(until_ms)
        text = "The field of %s in %s is no run; no run of it counts as unfinished"
        self._say_once(name, str(value[:60]), text, self._key)
        return "", 0

    def _say_once(self, name: str, about: str, text: str, key: str) -> None:
        """Warn, but of one entry and run only once."""
        if self._said.get(name) == about:
            return
        if len(self._said) >= SAID_KEPT:
            self._said.clear()
        self._said[name] = about
        log.warning(text, name, key, extra={"event": "running_unreadable", "entry": name, "key": key})
