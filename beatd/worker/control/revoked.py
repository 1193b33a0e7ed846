"""Tasks that are not to be run any more: a bounded memory, shared by all workers and kept in the state store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from beatd.store.client import border, connect
from beatd.store.keys import Keys
from beatd.worker.request import Request

LIMIT = 50_000
"""The oldest are forgotten first."""
KEPT_MS = 24 * 3600 * 1000
"""How long an id is remembered; as long as a result. A task with an ETA beyond that has to be revoked again."""
_STAMPS = 1_000


class Revoked:
    """Ids of revoked tasks, and stamps whose bearers are revoked. Asked about each message: mostly it is empty."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        """Since when (ms), the oldest first."""
        self._stamps: dict[str, set[str]] = {}

    def add(self, ids: Iterable[str], now_ms: int) -> None:
        """These are not to be run."""
        for task_id in ids:
            self._ids.pop(task_id, None)
            self._ids[task_id] = now_ms
        self.tidy(now_ms)

    def add_stamps(self, stamps: Mapping[str, Iterable[str]]) -> None:
        """Nor what bears one of these: header → values."""
        for header, values in stamps.items():
            if header in self._stamps or len(self._stamps) < _STAMPS:
                known = self._stamps.setdefault(header, set())
                known.update(list(values)[: _STAMPS - len(known)])

    def tidy(self, now_ms: int) -> None:
        """Forget what is old, or too much."""
        for task_id, since in list(self._ids.items()):
            if len(self._ids) <= LIMIT and since > now_ms - KEPT_MS:
                break
            del self._ids[task_id]

    def covers(self, request: Request) -> bool:
        """Whether that one is not to be run."""
        return request.id in self._ids or (bool(self._stamps) and self.bears(request, self._stamps))

    @staticmethod
    def bears(request: Request, stamps: Mapping[str, Iterable[str]]) -> bool:
        """Whether the request was sent with one of these stamps."""
        try:
            headers = _decode(request.delivery.raw).headers
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        borne = headers.stamps or {}
        names = headers.stamped_headers or ()
        return any(_texts(borne.get(name)) & set(stamps[name]) for name in names if name in stamps)

    def ids(self) -> list[str]:
        """All of them, the oldest first."""
        return list(self._ids)

    def __bool__(self) -> bool:
        return bool(self._ids or self._stamps)


class _Stamped(msgspec.Struct, frozen=True):
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None


class _Envelope(msgspec.Struct, frozen=True):
    headers: _Stamped


_decode = msgspec.json.Decoder(_Envelope).decode


def _texts(value: Any) -> set[str]:
    """A stamp's values as texts; Celery takes one for a list of one."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    return {str(each) for each in values}


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
