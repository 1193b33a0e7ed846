"""Keeping this worker's memory of revoked tasks and the store's the same."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from beatd.clock import Clock
from beatd.exceptions import StoreError
from beatd.store.revoked import KEPT_MS, LIMIT, RevokedStore
from beatd.worker.control.revoked import Revoked

log = logging.getLogger(__name__)

_REFRESH_S = 10.0
"""How long a worker that a broadcast did not reach may not know of it."""
_RETRY_S = 30.0
_OVERLAP_MS = 60_000
"""Hosts' clocks differ."""


class Sharing:
    """What is revoked here is remembered there, and the reverse. Never raises; what fails is tried again."""

    def __init__(self, revoked: Revoked, store: RevokedStore, clock: Clock) -> None:
        self._revoked = revoked
        self._store = store
        self._clock = clock
        self._seen_ms: int | None = None
        self._unsaved: dict[str, None] = {}
        self._due = 0.0

    @property
    def kept(self) -> bool:
        """Whether there is a store."""
        return self._store.there

    def ids(self) -> list[str]:
        """All that is known here."""
        return self._revoked.ids()

    def learn(self, ids: Iterable[str]) -> None:
        """Another worker knows these."""
        self._revoked.add(ids, self._clock.now_ms())

    def remember(self, ids: list[str]) -> None:
        """Have all workers know these, also those to come."""
        if not self._store.there:
            return
        self._unsaved.update(dict.fromkeys(ids[-LIMIT:]))
        self._save()

    def tend(self) -> float:
        """Catch up when it is time; returns the seconds until then."""
        left = self._due - self._clock.monotonic()
        if left > 0:
            return left
        self.refresh()
        return max(0.0, self._due - self._clock.monotonic())

    def refresh(self) -> None:
        """Catch up with the store, now."""
        now = self._clock.now_ms()
        self._revoked.tidy(now)
        if not self._store.there:
            self._due = self._clock.monotonic() + _RETRY_S
            return
        since = now - KEPT_MS if self._seen_ms is None else self._seen_ms - _OVERLAP_MS
        try:
            known = set(self._revoked.ids())
            for task_id, revoked_ms in self._store.since(since):
                if task_id not in known:
                    self._revoked.add((task_id,), revoked_ms)
            self._seen_ms = now
            self._due = self._clock.monotonic() + _REFRESH_S
        except StoreError as error:
            self._fail(error)
            return
        self._save()

    def close(self) -> None:
        """Disconnect."""
        self._store.close()

    def _save(self) -> None:
        if not self._unsaved:
            return
        try:
            self._store.remember(self._unsaved, self._clock.now_ms())
            self._unsaved.clear()
        except StoreError as error:
            self._fail(error)

    def _fail(self, error: StoreError) -> None:
        self._due = self._clock.monotonic() + _RETRY_S
        log.warning(
            "Revoked tasks cannot be shared, trying again in %ss: %s",
            _RETRY_S,
            error,
            extra={"event": "revoked_not_shared"},
        )
