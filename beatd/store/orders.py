"""What people ask of daemons: read your files again, step down. Each daemon answers for itself.

An order is announced on the wake channel, and stays for a minute for those who did not hear it: a daemon that was cut
off for a moment looks at the list when it is back.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import redis

from beatd.store.client import border
from beatd.store.keys import Keys
from beatd.store.wakes import ORDERED

KEPT_MS = 60_000
"""How long orders and their answers stay."""


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``reload`` is for all daemons; ``step_down`` for the one named, which is not to lead for ``rest_ms``."""

    what: Literal["reload", "step_down"]
    daemon: str = ""
    rest_ms: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an order. ``digest`` and ``entries`` are those in force, ``faults`` the first of the files'."""

    ok: bool
    digest: str = ""
    entries: int = 0
    faults: list[str] = []
    more_faults: int = 0


class Orders:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def give(self, order: Order) -> str:
        """Announce an order; returns its id."""
        order_id = secrets.token_hex(8)
        with border(self._client), self._client.pipeline() as pipeline:
            pipeline.hset(self._keys.orders, order_id, msgspec.json.encode(order))
            pipeline.pexpire(self._keys.orders, KEPT_MS)
            pipeline.publish(self._keys.wake, ORDERED)
            pipeline.execute()
        return order_id

    def given(self) -> dict[str, Order]:
        """The orders of the last minute, by id. What cannot be read, of a later version perhaps, is left out."""
        with border(self._client):
            found: Any = self._client.hgetall(self._keys.orders)
        return dict(_read(found, Order))

    def answer(self, order_id: str, daemon_id: str, answer: Answer) -> None:
        """Say what became of an order."""
        key = self._keys.answers(order_id)
        with border(self._client), self._client.pipeline() as pipeline:
            pipeline.hset(key, daemon_id, msgspec.json.encode(answer))
            pipeline.pexpire(key, KEPT_MS)
            pipeline.execute()

    def answers(self, order_id: str) -> dict[str, Answer]:
        """The answers so far, by daemon."""
        with border(self._client):
            found: Any = self._client.hgetall(self._keys.answers(order_id))
        return dict(_read(found, Answer))


def _read(found: dict[bytes, bytes], kind: Any) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        try:
            yield name.decode(), msgspec.json.decode(value, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
