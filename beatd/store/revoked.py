"""Ids of revoked tasks, for all workers to know: those that run, those that were away, and those that start later."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from beatd.store.client import border, connect
from beatd.store.keys import Keys

LIMIT = 50_000
"""The oldest are forgotten first."""
KEPT_MS = 24 * 3600 * 1000
"""How long an id is remembered; as long as a result. A task with an ETA beyond that has to be revoked again."""


class RevokedStore:
    """The memory that all workers share in the state store at ``url``; without one each has only its own."""

    def __init__(self, url: str | None, keys: Keys) -> None:
        self._client = connect(url, name="beatd-worker", timeout_ms=2_000) if url else None
        self._key = keys.workers().revoked

    @property
    def there(self) -> bool:
        """Whether there is a store to remember anything."""
        return self._client is not None

    def remember(self, ids: Iterable[str], now_ms: int) -> None:
        """Add these; raises :class:`~beatd.exceptions.StoreError`."""
        since = dict.fromkeys(ids, now_ms)
        if self._client is None or not since:
            return
        with border(self._client), self._client.pipeline(transaction=False) as pipeline:
            pipeline.zadd(self._key, since)
            pipeline.zremrangebyscore(self._key, "-inf", now_ms - KEPT_MS)
            pipeline.zremrangebyrank(self._key, 0, -LIMIT - 1)
            pipeline.pexpire(self._key, KEPT_MS)
            pipeline.execute()

    def since(self, moment_ms: int) -> list[tuple[str, int]]:
        """What was added since then, with when it was (ms), the oldest first."""
        if self._client is None:
            return []
        with border(self._client):
            found: Any = self._client.zrangebyscore(self._key, moment_ms, "+inf", withscores=True)
        return [(member.decode(errors="replace"), int(score)) for member, score in found]

    def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.close()
