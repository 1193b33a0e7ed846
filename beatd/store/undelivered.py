"""Destinations of notifications that could not be reached: since when, and why. A success takes them out."""

from __future__ import annotations

from typing import Any

import msgspec
import redis

from beatd.redaction import redacted_text
from beatd.store.client import translate_errors
from beatd.store.keys import Keys
from beatd.store.notices import KEPT_MS

_ERROR_MAX = 300
_READ_MAX = 1_000
NEW_MS = 60_000
"""A failure is a problem when it lasts for so long, or when a message was given up."""
OLD_MS = 86_400_000
"""Age of the last attempt (ms) from which a destination is no problem any more."""


class Unreached(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A destination that was not reached. Instants in ms."""

    since_ms: int
    last_ms: int
    """The last attempt."""
    attempts: int
    error: str
    given_up: int = 0
    """Notices that are lost."""

    def is_problem(self, now_ms: int) -> bool:
        """True if somebody should know of it."""
        is_fresh = abs(now_ms - self.last_ms) < OLD_MS
        return is_fresh and (self.given_up > 0 or now_ms - self.since_ms >= NEW_MS)


class Undelivered:
    """Failed deliveries by destination: a target's name, or the kind and the host of pings. Raises a ``StoreError``."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._key = client, keys.undelivered

    def failed(self, destination: str, error: str, now_ms: int, *, given_up: bool) -> None:
        """Note a failed attempt."""
        with translate_errors(self._client):
            before = _unreached(self._client.hget(self._key, destination))
            noted = Unreached(
                since_ms=before.since_ms if before else now_ms,
                last_ms=now_ms,
                attempts=(before.attempts if before else 0) + 1,
                error=redacted_text(" ".join(error.split()), at_most=_ERROR_MAX),
                given_up=(before.given_up if before else 0) + given_up,
            )
            with self._client.pipeline(transaction=False) as pipeline:
                pipeline.hset(self._key, destination, msgspec.json.encode(noted))
                pipeline.pexpire(self._key, KEPT_MS)
                pipeline.execute()

    def delivered(self, destination: str) -> None:
        """Note that it was reached."""
        with translate_errors(self._client):
            self._client.hdel(self._key, destination)

    def read(self) -> dict[str, Unreached]:
        """The destinations that were not reached, by name."""
        with translate_errors(self._client):
            if self._client.hlen(self._key) > _READ_MAX:
                return {}
            raw: Any = self._client.hgetall(self._key)
        found = ((name.decode(errors="replace"), _unreached(text)) for name, text in sorted(raw.items()))
        return {name: one for name, one in found if one is not None}


def _unreached(raw: Any) -> Unreached | None:
    try:
        return None if raw is None else msgspec.json.decode(raw, type=Unreached)
    except msgspec.MsgspecError:
        return None
