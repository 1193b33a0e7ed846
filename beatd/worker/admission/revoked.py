"""Revoked tasks: a bounded memory of tasks that are not to be run any more, kept in sync with the store."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from beatd.clock import Clock
from beatd.exceptions import StoreError
from beatd.store.worker_state import KEPT_MS, LIMIT, RevokedStore
from beatd.worker.request import Request

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
        """True if the request is revoked."""
        return request.id in self._ids or (bool(self._stamps) and self.bears(request, self._stamps))

    @staticmethod
    def bears(request: Request, stamps: Mapping[str, Iterable[str]]) -> bool:
        """True if the request was sent with one of these stamps."""
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


log = logging.getLogger("beatd.worker.control.sharing")

_REFRESH_S = 10.0
"""How long a worker that a broadcast did not reach may not know of it."""
_RETRY_S = 30.0
_OVERLAP_MS = 60_000
"""Hosts' clocks differ."""


class RevokedSync:
    """Sync of revoked ids with the store, both ways. Never raises; what fails is tried again."""

    def __init__(self, revoked: Revoked, store: RevokedStore, clock: Clock) -> None:
        self._revoked = revoked
        self._store = store
        self._clock = clock
        self._seen_ms: int | None = None
        self._unsaved: dict[str, None] = {}
        self._due = 0.0

    @property
    def kept(self) -> bool:
        """True if there is a store."""
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
