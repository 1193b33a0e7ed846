"""Commands for daemons: reload, step down. Each daemon replies for itself.

A command is announced on the notification channel, and kept for a minute: a daemon that was disconnected for a moment
reads the list when it is back.
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
from beatd.store.script import translate_script_errors

CHANGED, ORDERED, ASKED = "changed", "ordered", "asked"
"""Notifications: runtime entries or pauses have changed; there is a command; there is a request for runs."""

OnNotification = Callable[[float], frozenset[str]]
"""``hear(seconds)``: return notifications, after the first of them or when the time is over."""

_CONFIRMED_WITHIN_S = 5.0


@contextmanager
def subscribe(client: redis.Redis, keys: Keys) -> Iterator[OnNotification]:
    """Subscribe to notifications: none that comes after this has yielded is missed while the connection lasts.

    Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`, also when hearing.
    """
    channel: redis.client.PubSub
    with translate_errors(client), client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
        channel.subscribe(keys.wake)
        channel.get_message(timeout=_CONFIRMED_WITHIN_S)  # confirmation of the subscription

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
"""Lifetime of commands and replies."""


class DaemonCommand(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``reload`` is for all daemons; ``step_down`` for the one named, which is not to lead for ``rest_ms``."""

    what: Literal["reload", "step_down"]
    daemon: str = ""
    rest_ms: int = 0


class CommandReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reply of a daemon. ``digest`` and ``entries`` are those in force, ``faults`` the first ones in its files."""

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

    def send(self, command: DaemonCommand) -> str:
        """Send a command to the daemons; returns its id."""
        command_id = secrets.token_hex(8)
        with translate_errors(self._client), self._client.pipeline() as pipeline:
            pipeline.hset(self._keys.orders, command_id, msgspec.json.encode(command))
            pipeline.pexpire(self._keys.orders, KEPT_MS)
            pipeline.publish(self._keys.wake, ORDERED)
            pipeline.execute()
        return command_id

    def recent(self) -> dict[str, DaemonCommand]:
        """Return the commands of the last minute, by id; unreadable ones, perhaps of a later version, are left out."""
        with translate_script_errors(self._client, [self._keys.orders]):
            found: Any = self._client.hgetall(self._keys.orders)
        return dict(_read(found, DaemonCommand))

    def answer(self, command_id: str, daemon_id: str, answer: CommandReply) -> None:
        """Store the reply to a command."""
        key = self._keys.answers(command_id)
        with translate_errors(self._client), self._client.pipeline() as pipeline:
            pipeline.hset(key, daemon_id, msgspec.json.encode(answer))
            pipeline.pexpire(key, KEPT_MS)
            pipeline.execute()

    def answers(self, command_id: str) -> dict[str, CommandReply]:
        """Return the replies so far, by daemon."""
        with translate_errors(self._client):
            found: Any = self._client.hgetall(self._keys.answers(command_id))
        return dict(_read(found, CommandReply))


def _read(found: dict[bytes, bytes], kind: Any) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        try:
            yield name.decode(), msgspec.json.decode(value, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
