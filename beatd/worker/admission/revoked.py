"""Revoked tasks: a bounded list of task ids and stamps that must not run, synchronised with the state store."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from beatd.clock import Backoff, Clock
from beatd.exceptions import StoreError
from beatd.store.worker_state import KEPT_MS, LIMIT, RevokedStore
from beatd.worker.request import Request

_STAMPS = 1_000


class Revoked:
    """Ids of revoked tasks, and revoked stamps. Checked for each message; usually empty."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        """Task id → time of the revocation (ms), the oldest first."""
        self._stamps: dict[str, set[str]] = {}

    def add(self, ids: Iterable[str], now_ms: int) -> None:
        """Revoke task ids."""
        for task_id in ids:
            self._ids.pop(task_id, None)
            self._ids[task_id] = now_ms
        self.tidy(now_ms)

    def load(self, revoked: Iterable[tuple[str, int]], now_ms: int) -> None:
        """Add task ids, each with the time of its revocation (ms)."""
        self._ids.update(revoked)
        self.tidy(now_ms)

    def add_stamps(self, stamps: Mapping[str, Iterable[str]]) -> None:
        """Revoke all tasks with one of these stamps: header → values."""
        for header, values in stamps.items():
            if header in self._stamps or len(self._stamps) < _STAMPS:
                known = self._stamps.setdefault(header, set())
                known.update(list(values)[: _STAMPS - len(known)])

    def tidy(self, now_ms: int) -> None:
        """Remove ids that are too old or too many."""
        for task_id, since in list(self._ids.items()):
            if len(self._ids) <= LIMIT and since > now_ms - KEPT_MS:
                break
            del self._ids[task_id]

    def covers(self, request: Request) -> bool:
        """True if the request must not run."""
        return request.id in self._ids or (bool(self._stamps) and self.bears(request, self._stamps))

    @staticmethod
    def bears(request: Request, stamps: Mapping[str, Iterable[str]]) -> bool:
        """True if the request was sent with one of these stamps."""
        names, values = request.headers.stamped_headers, request.headers.stamps
        if not isinstance(names, list) or not isinstance(values, dict):
            return False
        known = [name for name in names if isinstance(name, str) and name in stamps]
        return any(_texts(values.get(name)) & set(stamps[name]) for name in known)

    def ids(self) -> list[str]:
        """Return the revoked ids, the oldest first."""
        return list(self._ids)

    def __bool__(self) -> bool:
        return bool(self._ids or self._stamps)


def _texts(value: Any) -> set[str]:
    """Return a stamp's values as strings; a single value counts as a list of one."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    return {str(each) for each in values}


log = logging.getLogger("beatd.worker.control.sharing")

_REFRESH_S = 10.0
"""Period of the catch-up for workers that a broadcast did not reach."""
_IDLE_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 30.0
_OVERLAP_MS = 60_000
"""Hosts' clocks differ."""


class RevokedSync:
    """Synchronises revoked ids with the state store, in both directions. Never raises; failures are retried."""

    def __init__(self, revoked: Revoked, store: RevokedStore, clock: Clock) -> None:
        self._revoked = revoked
        self._store = store
        self._clock = clock
        self._seen_ms: int | None = None
        self._unsaved: dict[str, None] = {}
        self._due = 0.0
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)

    @property
    def kept(self) -> bool:
        """True if there is a state store."""
        return self._store.is_configured

    def ids(self) -> list[str]:
        """Return the ids that this worker knows."""
        return self._revoked.ids()

    def learn(self, ids: Iterable[str]) -> None:
        """Add ids that another worker has sent."""
        self._revoked.add(ids, self._clock.now_ms())

    def remember(self, ids: list[str]) -> None:
        """Save ids in the state store, for all workers and for later ones."""
        if not self._store.is_configured:
            return
        self._unsaved.update(dict.fromkeys(ids[-LIMIT:]))
        while len(self._unsaved) > LIMIT:
            del self._unsaved[next(iter(self._unsaved))]
        if not self._backoff.attempts:  # else with the next refresh: the worker waits no more for a store that is away
            self._save()

    def tend(self) -> float:
        """Refresh when it is time; returns the seconds until the next call."""
        left = self._due - self._clock.monotonic()
        if left > 0:
            return left
        self.refresh()
        return max(0.0, self._due - self._clock.monotonic())

    def refresh(self) -> None:
        """Save and load revoked ids now."""
        now = self._clock.now_ms()
        self._revoked.tidy(now)
        if not self._store.is_configured:
            self._due = self._clock.monotonic() + _IDLE_S
            return
        since = now - KEPT_MS if self._seen_ms is None else min(self._seen_ms, now) - _OVERLAP_MS
        try:
            known = set(self._revoked.ids())
            self._revoked.load([one for one in self._store.since(since) if one[0] not in known], now)
            self._seen_ms = now
            self._due = self._clock.monotonic() + _REFRESH_S
            self._backoff.succeeded()
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
        pause = self._backoff.failed()
        self._due = self._clock.monotonic() + pause
        log.log(
            self._backoff.level,
            "Revoked tasks cannot be shared%s, trying again in %ss: %s",
            self._backoff.since_text,
            pause,
            error,
            extra={"event": "revoked_not_shared", "since": self._backoff.since},
        )
