"""Recoveries: entries that succeeded after failures, noted by ``note_ends.lua`` with the success.

Whoever tells of failures looks at summaries now and then; here are those that were over by then.
"""

from __future__ import annotations

from typing import NamedTuple

import redis

from beatd.store.client import translate_errors
from beatd.store.keys import Keys

KEPT = 10_000
"""Recoveries that are kept, the newest; for an hour after the last."""


class Recovery(NamedTuple):
    """The end of failures in a row: the entry succeeded. Instants in ms."""

    entry: str
    since_ms: int
    """When the first of them ended."""
    end_ms: int
    failures: int
    noted: int
    """Number that grows with each recovery; about when it was noted, by the server's clock."""


class Recoveries:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys

    def after(self, noted: int) -> list[Recovery]:
        """The recoveries behind one, the oldest first."""
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for part in self._keys.all_parts():
                pipeline.zrangebyscore(part.recovered, f"({noted}", "+inf", start=0, num=KEPT, withscores=True)
            raws = [raw for found in pipeline.execute() for raw in found]
        every = (_recovery(raw, int(number)) for raw, number in sorted(raws, key=lambda raw: float(raw[1])))
        return [one for one in every if one is not None]

    def last(self) -> int:
        """``noted`` of the last recovery; 0 if there is none."""
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for part in self._keys.all_parts():
                pipeline.zrange(part.recovered, -1, -1, withscores=True)
            return max([int(raws[0][1]) for raws in pipeline.execute() if raws], default=0)


def _recovery(raw: bytes, noted: int) -> Recovery | None:
    words = raw.split(b" ", 3)
    if len(words) != 4 or not b"".join(words[:3]).isdigit():
        return None
    return Recovery(words[3].decode(errors="backslashreplace"), int(words[0]), int(words[1]), int(words[2]), noted)
