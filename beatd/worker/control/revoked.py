"""Tasks that are not to be run any more: a bounded memory; see :mod:`beatd.store.revoked` for what is shared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from beatd.store.revoked import KEPT_MS, LIMIT
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
