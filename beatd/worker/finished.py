"""Which runs of the scheduler have ended: a day's memory, so that a message sent twice does not run twice."""

from __future__ import annotations

from collections.abc import Sequence

from beatd.store.client import border, connect
from beatd.store.keys import Keys

_KEPT_MS = 24 * 3600 * 1000


class FinishedRuns:
    """The memory that all workers share in the state store at ``url``; without one nothing is remembered."""

    def __init__(self, url: str | None, keys: Keys) -> None:
        self._client = connect(url, name="beatd-worker") if url else None
        self._keys = keys

    def remember(self, ids: Sequence[str]) -> None:
        """These have ended."""
        if self._client is None or not ids:
            return
        with border(self._client), self._client.pipeline(transaction=False) as pipeline:
            for run_id in ids:
                pipeline.set(self._keys.finished(run_id), 1, px=_KEPT_MS)
            pipeline.execute()

    def among(self, ids: Sequence[str]) -> set[str]:
        """Those of ``ids`` that have ended."""
        if self._client is None or not ids:
            return set()
        with border(self._client):
            found = self._client.mget([self._keys.finished(run_id) for run_id in ids])
        return {run_id for run_id, value in zip(ids, found, strict=True) if value is not None}
