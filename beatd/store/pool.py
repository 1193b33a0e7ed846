"""Pool of connections whose lending costs less processor time than a small command.

redis-py counts each connection that is lent or given back, for OpenTelemetry, and tells listeners; nobody asks for that
here. What is rare is left to redis-py: connections that are new, broken or from before a fork.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    Base = redis.ConnectionPool
else:
    Base = object


class QuickLending(Base):
    """Lends idle connections of one of redis-py's pools; to be named before the pool among the bases of a class."""

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """Return a connection that is connected, with nothing to read; raises redis-py's errors."""
        if self.pid == os.getpid():
            with self._lock:
                connection = self._available_connections.pop() if self._available_connections else None
                if connection is not None:
                    self._in_use_connections.add(connection)
            if connection is not None:
                if _is_sound(connection):
                    return connection
                self.release(connection)  # the next to be lent, after a new attempt to connect
        return super().get_connection(*args, **options)

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        if self.pid == os.getpid() and self.owns_connection(connection):
            with self._lock:
                if connection in self._in_use_connections:
                    self._in_use_connections.remove(connection)
                    self._available_connections.append(connection)
        else:
            super().release(connection)


class ConnectionPool(QuickLending, redis.ConnectionPool):
    """Connections to one server."""


def _is_sound(connection: Any) -> bool:
    """True for a connection that is open; what can be read of an idle one is its end, or an answer that is not ours."""
    if connection._sock is None:
        return False
    try:
        is_sound = not connection.can_read(timeout=0)
    except (redis.RedisError, OSError):
        is_sound = False
    if not is_sound:
        connection.disconnect()
    return is_sound
