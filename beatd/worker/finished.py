"""Which runs of the scheduler have ended: a day's memory, so that a message sent twice does not run twice.

With it goes how they ended, into the history of their entries.
"""

from __future__ import annotations

import contextlib
import struct
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from beatd.epoch import to_ms
from beatd.model import run_id
from beatd.store import records
from beatd.store.client import Script, border, connect
from beatd.store.keys import Keys

_KEPT_MS = 24 * 3600 * 1000


class Ended(NamedTuple):
    """A run that will not be tried again. ``due_at`` as its message has it (ISO 8601), ``runtime`` in seconds."""

    run_id: str
    entry: str
    due_at: str | None
    state: str
    runtime: float = 0.0


class FinishedRuns:
    """The memory that all workers share in the state store at ``url``; without one nothing is remembered."""

    def __init__(self, url: str | None, keys: Keys) -> None:
        self._client = connect(url, name="beatd-worker") if url else None
        self._note = Script(self._client, "note_ends") if self._client else None
        self._keys = keys

    def remember(self, ended: Sequence[Ended]) -> None:
        """These have ended: one call of the store for all of them."""
        if self._note is not None and ended:
            keys = [key for one in ended for key in (self._keys.finished(one.run_id), self._keys.history(one.entry))]
            self._note(keys, [_KEPT_MS, *(part for one in ended for part in _noted(one))])

    def among(self, ids: Sequence[str]) -> set[str]:
        """Those of ``ids`` that have ended."""
        if self._client is None or not ids:
            return set()
        with border(self._client):
            found = self._client.mget([self._keys.finished(run_id) for run_id in ids])
        return {run_id for run_id, value in zip(ids, found, strict=True) if value is not None}


def _noted(one: Ended) -> tuple[str | bytes, ...]:
    """What the script wants to know. Whoever writes strange headers finds nothing in the history."""
    runtime_ms = int(one.runtime * 1000)
    due = own_id = end = b""
    with contextlib.suppress(ValueError, TypeError, struct.error):
        due_ms = to_ms(datetime.fromisoformat(one.due_at or ""))
        if run_id(one.entry, due_ms) == one.run_id:
            due = records.moment(due_ms)
        else:
            own_id = uuid.UUID(one.run_id).bytes
        end = records.end(one.state, runtime_ms)
    return f"{one.state} {runtime_ms}", due, own_id, end
