"""Jitter that can be previewed: a hash of entry and nominal time, the same on every host and after every restart."""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b

from beatd.epoch import LAST_MS, from_ms, to_ms


def jittered(name: str, due_at: datetime, jitter_ms: int, next_due: datetime | None) -> datetime:
    """When the run ``name`` due at ``due_at`` is sent: in [due_at, due_at + jitter], before ``next_due``."""
    return from_ms(jittered_ms(name, to_ms(due_at), jitter_ms, None if next_due is None else to_ms(next_due)))


def jittered_ms(name: str, due_ms: int, jitter_ms: int, next_due_ms: int | None) -> int:
    """``jittered`` in milliseconds since the epoch."""
    room = min(jitter_ms, min(LAST_MS + 1, LAST_MS + 1 if next_due_ms is None else next_due_ms) - due_ms - 1)
    if room <= 0:
        return due_ms
    digest = blake2b(f"{name}@{due_ms}".encode(), digest_size=8).digest()
    return due_ms + int.from_bytes(digest) % (room + 1)
