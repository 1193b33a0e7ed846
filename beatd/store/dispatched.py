"""What is known of whether a run was sent: before a backfill sends it once more.

The store forgets. It has the last runs of an entry (its history), the last due time, the stretches that were passed
over (the last eight, for a week), and for a day the ids of runs that were sent by hand or ended in a bundled worker.
What lies between the moment at which the entry was first seen and its last due, and in none of those stretches, was
claimed; so it counts as sent unless the history says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import redis

from beatd.model import Entry, run_id
from beatd.store import records
from beatd.store.client import border
from beatd.store.keys import Keys
from beatd.store.requests import Reason
from beatd.store.results import result_key


@dataclass(frozen=True, slots=True)
class Known:
    """The past of one entry."""

    first_seen_ms: int = 0
    last_due_ms: int = 0
    gaps: Sequence[tuple[int, int]] = ()
    sent: frozenset[int] = field(default_factory=frozenset)
    """Due times of runs that the history has as sent."""
    unsent: frozenset[int] = field(default_factory=frozenset)

    def reason(self, due_ms: int, *, comes: bool) -> Reason | None:
        """Why a run is not to be sent, if so. ``comes``: what is due after the last due comes by itself."""
        if due_ms > self.last_due_ms:
            return "to_come" if comes else None
        if due_ms in self.sent:
            return "dispatched"
        if due_ms in self.unsent or any(after < due_ms < before for after, before in self.gaps):
            return None
        return "dispatched" if due_ms > self.first_seen_ms else None


class Dispatched:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def past(self, entry: Entry) -> Known:
        """What the store remembers of an entry; one round trip."""
        name, shard = entry.name, self._keys.shard()
        with border(self._client), self._client.pipeline(transaction=False) as pipeline:
            for key in (shard.known, shard.last_due, shard.gaps):
                pipeline.hget(key, name)
            pipeline.get(self._keys.history(name))
            known, last_due, gaps, history = pipeline.execute()
        bounds = [int(number) for number in (gaps or b"").split() if number.isdigit()]
        lines = list(records.read(name, history or b""))
        return Known(
            _number((known or b"").partition(b" ")[0]),
            _number(last_due or b""),
            [*list(pairwise(bounds))[::2], *((one.due_ms, one.at_ms) for one in lines if one.kind == "missed")],
            frozenset(one.due_ms for one in lines if one.kind in ("scheduled", "backfilled")),
            frozenset(one.due_ms for one in lines if one.kind == "skipped"),
        )

    def reasons(self, name: str, dues_ms: Sequence[int]) -> list[Reason | None]:
        """Of each run whether it is remembered by its id: sent by hand, or ended; one round trip."""
        ids = [run_id(name, due_ms) for due_ms in dues_ms]
        if not ids:
            return []
        with border(self._client), self._client.pipeline(transaction=False) as pipeline:
            pipeline.mget([self._keys.sent(one) for one in ids])
            pipeline.mget([self._keys.finished(one) for one in ids])
            pipeline.mget([result_key(one) for one in ids])
            found: Any = zip(*pipeline.execute(), strict=True)
        return [
            "sent_before" if sent is not None else "dispatched" if ended is not None or result is not None else None
            for sent, ended, result in found
        ]


def _number(raw: bytes) -> int:
    return int(raw) if raw.isdigit() else 0
