"""Waiting for messages on many lists at once without taking any.

``BLMOVE key key RIGHT RIGHT`` returns as soon as the list has an element, and puts it back where it was. One connection
waits per list; the worker's loop watches their sockets together with everything else it waits for.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import redis

log = logging.getLogger(__name__)

_WAIT_S = 4
"""How long the server keeps a connection waiting; the answer then shows that the connection still works."""


class Doorbell:
    """Rings when one of ``keys`` may have a message. Mistakes are harmless: the loop also looks by itself."""

    def __init__(self, client: redis.Redis, keys: Sequence[str] = ()) -> None:
        self._pool = client.connection_pool
        self._keys = list(keys)
        self._waiting: dict[int, tuple[str, Any]] = {}
        """By file descriptor: connections whose question is open."""
        self._idle: dict[str, Any] = {}

    def change(self, keys: Sequence[str]) -> None:
        """Wait at these lists from now on."""
        self._keys = list(keys)
        for file, (key, connection) in list(self._waiting.items()):
            if key not in keys:
                del self._waiting[file]
                self._drop(connection)

    def listen(self) -> None:
        """Ask for every list on which no question is open."""
        asked = {key for key, _ in self._waiting.values()}
        for key in self._keys:
            if key not in asked:
                self._ask(key)

    def files(self) -> list[int]:
        return list(self._waiting)

    def answer(self) -> None:
        """Read the answers that have come."""
        for file, (key, connection) in list(self._waiting.items()):
            try:
                if connection.can_read(timeout=0):
                    del self._waiting[file]
                    connection.read_response()
                    self._idle[key] = connection
            except (redis.RedisError, OSError):
                self._waiting.pop(file, None)
                self._drop(connection)

    def close(self) -> None:
        """Hang up; the open questions end with their connections."""
        for connection in (*(connection for _, connection in self._waiting.values()), *self._idle.values()):
            self._drop(connection)
        self._waiting.clear()
        self._idle.clear()

    def _ask(self, key: str) -> None:
        connection: Any = self._idle.pop(key, None)
        try:
            if connection is None:
                connection = self._pool.make_connection()
                connection.connect()
            connection.send_command("BLMOVE", key, key, "RIGHT", "RIGHT", _WAIT_S, check_health=False)
            self._waiting[connection._sock.fileno()] = (key, connection)
        except (redis.RedisError, OSError) as error:
            log.debug("No doorbell for %s: %s", key, error, extra={"event": "doorbell_failed"})
            if connection is not None:
                self._drop(connection)

    def _drop(self, connection: Any) -> None:
        with contextlib.suppress(redis.RedisError, OSError):
            connection.disconnect()
