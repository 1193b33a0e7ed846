"""Watch over queues on Redis, without consuming.

``BLMOVE key key RIGHT RIGHT`` returns as soon as the list has an element, and puts it back where it was. One connection
waits per list; the worker's loop watches their sockets together.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Sequence
from typing import Any

import redis

from beatd.clock import monotonic
from beatd.worker.poller import readable

log = logging.getLogger("beatd.worker.consumers.doorbell")

_WAIT_S = 4
"""Timeout of a blocking call; its answer shows that the connection works."""
_ANSWER_S = 1.0
"""Time for that answer to arrive."""
_REFUSED_S = 1.0
"""Pause after the server has refused a call: the key is no list, or may not be read."""
_LARGE_DIGITS = 7
"""Digits of the length (bytes) from which on an element is not read: a new connection takes less time."""


class QueueWatcher:
    """Watches queues for messages without consuming them. A missed message is found by the loop's own check."""

    def __init__(self, client: redis.Redis, keys: Sequence[str] = ()) -> None:
        self._pool = client.connection_pool
        self._keys = list(keys)
        self._waiting: dict[int, tuple[str, Any, float]] = {}
        """By file descriptor: lists and connections with an open call, and when it was made (monotonic seconds)."""
        self._idle: dict[str, Any] = {}
        self._ask_again: dict[str, float] = {}
        """When the lists whose call was refused are asked again (monotonic seconds)."""

    def change(self, keys: Sequence[str]) -> None:
        """Watch these lists from now on."""
        self._keys = list(keys)
        for file, (key, connection, _) in list(self._waiting.items()):
            if key not in keys:
                del self._waiting[file]
                self._drop(connection)
        for key in [key for key in self._idle if key not in keys]:
            self._drop(self._idle.pop(key))

    def listen(self) -> None:
        """Start a blocking call for each list without one."""
        asked = {key for key, _, _ in self._waiting.values()}
        for key in self._keys:
            if key not in asked and monotonic() >= self._ask_again.get(key, 0.0):
                self._ask(key)

    def files(self) -> list[int]:
        return list(self._waiting)

    def is_silent(self) -> bool:
        """True if all lists are empty, as far as the server has said: each has an open call, and no answer is late."""
        calls = self._waiting.values()
        if len(calls) < len(self._keys) or monotonic() > min(at for _, _, at in calls) + _WAIT_S + _ANSWER_S:
            return False
        return not readable(self._waiting)

    def answer(self) -> None:
        """Read the answers that have arrived."""
        for file in readable(self._waiting):
            key, connection, _ = self._waiting[file]
            try:
                if _is_large(connection):
                    del self._waiting[file]
                    self._drop(connection)
                elif connection.can_read(timeout=0):
                    del self._waiting[file]
                    connection.read_response()
                    self._idle[key] = connection
                    self._ask_again.pop(key, None)
            except (redis.RedisError, OSError) as error:
                if isinstance(error, redis.ResponseError):
                    self._ask_again[key] = monotonic() + _REFUSED_S
                self._waiting.pop(file, None)
                self._drop(connection)

    def close(self) -> None:
        """Close all connections, and with them the open calls."""
        for connection in (*(connection for _, connection, _ in self._waiting.values()), *self._idle.values()):
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
            self._waiting[connection._sock.fileno()] = (key, connection, monotonic())
        except (redis.RedisError, OSError) as error:
            log.debug("Unwatched list %s: %s", key, error, extra={"event": "doorbell_failed"})
            if connection is not None:
                self._drop(connection)

    def _drop(self, connection: Any) -> None:
        with contextlib.suppress(redis.RedisError, OSError):
            connection.disconnect()


def _is_large(connection: Any) -> bool:
    """True if the answer that has arrived is a long element, of which nothing has been read."""
    try:
        head = connection._sock.recv(1 + _LARGE_DIGITS, socket.MSG_PEEK)
    except ValueError:  # TLS does not let one look ahead
        return False
    return len(head) == 1 + _LARGE_DIGITS and head[:1] == b"$" and bytes(head[1:]).isdigit()
