"""Commands for daemons: read your files again, step down. Each daemon answers for itself.

A command is announced on the notification channel, and stays for a minute for those who did not hear it: a daemon that
was cut off for a moment looks at the list when it is back.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
import redis

from beatd.store.client import translate_errors
from beatd.store.keys import Keys

CHANGED, ORDERED, ASKED = "changed", "ordered", "asked"
"""Words on the channel: runtime entries or pauses have changed; there is an order; somebody asks for runs."""

OnNotification = Callable[[float], frozenset[str]]
"""``hear(seconds)``: the words that were said, after the first of them or when the time is over."""


@contextmanager
def subscribe(client: redis.Redis, keys: Keys, *, timeout: float = 5.0) -> Iterator[OnNotification]:
    """Listen from now on: what is said after this has yielded is not missed while the connection lasts.

    Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`, also when hearing.
    """
    channel: redis.client.PubSub
    with translate_errors(client), client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
        channel.subscribe(keys.wake)
        channel.get_message(timeout=timeout)  # the server's word that we are subscribed

        def hear(seconds: float) -> frozenset[str]:
            words = set()
            with translate_errors(client):
                message = channel.get_message(timeout=seconds)
                while message is not None:
                    words.add(message["data"].decode(errors="replace").partition(" ")[0])
                    message = channel.get_message(timeout=0)
            return frozenset(words)

        yield hear


KEPT_MS = 60_000
"""How long orders and their answers stay."""


class DaemonCommand(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``reload`` is for all daemons; ``step_down`` for the one named, which is not to lead for ``rest_ms``."""

    what: Literal["reload", "step_down"]
    daemon: str = ""
    rest_ms: int = 0


class CommandReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an order. ``digest`` and ``entries`` are those in force, ``faults`` the first of the files'."""

    ok: bool
    digest: str = ""
    entries: int = 0
    faults: list[str] = []
    more_faults: int = 0


class DaemonCommands:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def give(self, order: DaemonCommand) -> str:
        """Announce an order; returns its id."""
        order_id = secrets.token_hex(8)
        with translate_errors(self._client), self._client.pipeline() as pipeline:
            pipeline.hset(self._keys.orders, order_id, msgspec.json.encode(order))
            pipeline.pexpire(self._keys.orders, KEPT_MS)
            pipeline.publish(self._keys.wake, ORDERED)
            pipeline.execute()
        return order_id

    def given(self) -> dict[str, DaemonCommand]:
        """The orders of the last minute, by id. What cannot be read, of a later version perhaps, is left out."""
        with translate_errors(self._client):
            found: Any = self._client.hgetall(self._keys.orders)
        return dict(_read(found, DaemonCommand))

    def answer(self, order_id: str, daemon_id: str, answer: CommandReply) -> None:
        """Say what became of an order."""
        key = self._keys.answers(order_id)
        with translate_errors(self._client), self._client.pipeline() as pipeline:
            pipeline.hset(key, daemon_id, msgspec.json.encode(answer))
            pipeline.pexpire(key, KEPT_MS)
            pipeline.execute()

    def answers(self, order_id: str) -> dict[str, CommandReply]:
        """The answers so far, by daemon."""
        with translate_errors(self._client):
            found: Any = self._client.hgetall(self._keys.answers(order_id))
        return dict(_read(found, CommandReply))


def _read(found: dict[bytes, bytes], kind: Any) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        try:
            yield name.decode(), msgspec.json.decode(value, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
