"""Heartbeats of the bundled workers on a Redis broker, as others see them."""

from __future__ import annotations

from typing import Any

import redis

from beatd.store.client import translate_errors
from beatd.store.keys import Keys


def worker_heartbeats(client: redis.Redis, keys: Keys) -> dict[str, int | None]:
    """Return the workers by name, with the time of the last heartbeat (ms), or None for one that is gone.

    A worker that is gone is listed until another one has given its messages back.
    """
    with translate_errors(client):
        members: Any = client.smembers(keys.workers().workers)
        ids = sorted(member.decode() for member in members)
        beats: Any = client.mget([keys.worker(each, "alive") for each in ids]) if ids else []
    found: dict[str, int | None] = {}
    for each, beat in zip(ids, beats, strict=True):
        name = each.rpartition(":")[0]
        last = int(beat) if beat is not None and beat.isdigit() else None
        found[name] = max(filter(None, (found.get(name), last)), default=None)
    return found
