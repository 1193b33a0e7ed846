"""Following what is put, removed, paused and resumed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from beatd.clock import Backoff, monotonic, sleep
from beatd.exceptions import StoreUnavailable
from beatd.store.daemon_commands import subscribe
from beatd.store.keys import Keys
from beatd.store.runtime_entries import Pause, read_pause, readable_table
from beatd.store.runtime_replica import Before, RuntimeReplica

if TYPE_CHECKING:
    import redis

log = logging.getLogger("beatd.client.watching")

LOOK_S = 1.0
"""How often the store is looked at although nothing was heard."""


class Change(NamedTuple):
    """One thing that has changed: ``table`` is the runtime entry's now, ``pause`` what was noted when it was paused."""

    what: Literal["put", "removed", "paused", "resumed"]
    name: str
    table: dict[str, Any] | None = None
    pause: Pause | None = None


def changes(client: redis.Redis, keys: Keys, *, timeout: float | None) -> Iterator[Change]:
    """Yield changes from this call on; ends when there was none for ``timeout`` seconds.

    Raises :class:`~beatd.exceptions.StoreUnavailable` at the call, and later when the store has been out of reach for
    longer than ``timeout``; without one it is waited for. Changes that were made meanwhile are not missed, but for an
    entry that was changed back.
    """
    mirror = RuntimeReplica(client, keys)
    mirror.refresh(anew=True)
    return _follow(client, keys, mirror, timeout)


def _follow(client: redis.Redis, keys: Keys, mirror: RuntimeReplica, timeout: float | None) -> Iterator[Change]:
    heard_at, backoff = monotonic(), Backoff(LOOK_S, LOOK_S)
    anew = False
    while True:
        try:
            with subscribe(client, keys) as hear:
                while True:
                    before = mirror.refresh(anew=anew).before
                    backoff.succeeded()
                    anew = False
                    if before:
                        yield from _changes(before, mirror)
                        heard_at = monotonic()
                    left = LOOK_S if timeout is None else heard_at + timeout - monotonic()
                    if left <= 0:
                        return
                    hear(min(left, LOOK_S))
        except StoreUnavailable as error:
            if timeout is not None and monotonic() - heard_at >= timeout:
                raise
            backoff.failed()
            log.log(backoff.level, "%s; retrying", error, extra={"event": "watch_interrupted"})
            anew = True
            sleep(LOOK_S if timeout is None else min(LOOK_S, timeout / 4))


def _changes(before: Before, mirror: RuntimeReplica) -> Iterator[Change]:
    for name, (old_table, old_pause) in sorted(before.items()):
        table, pause = mirror.tables.get(name), mirror.pauses.get(name)
        if table is None and old_table is not None:
            yield Change("removed", name)
        elif table is not None and table != old_table:
            yield Change("put", name, readable_table(table))
        if pause is None and old_pause is not None:
            yield Change("resumed", name)
        elif pause is not None and pause != old_pause:
            yield Change("paused", name, pause=read_pause(pause))
