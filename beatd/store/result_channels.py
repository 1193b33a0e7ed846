"""Channels of results: connections that listen for one result after the other.

A wait makes two system calls on its connection: one to leave the channel of the wait before and enter its own, and one
for each answer. redis-py's ``PubSub`` polls three times for each message, and leaves a channel by a message of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

from beatd.exceptions import StoreUnavailable
from beatd.store.client import is_cluster, server_of, translate_errors

CONFIRM_S = 5.0
"""Seconds within which the server must confirm a subscription."""
_SHORTEST_S = 0.001
"""A time-out of 0 would make a socket one that does not wait."""


class ResultChannels:
    """Connections that wait for results, or have. Safe to share between threads, and usable after a fork."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._idle: list[Channel] = []
        self._lock = threading.Lock()
        self._owner = os.getpid()

    @contextmanager
    def listen(self, name: str) -> Iterator[Channel]:
        """Subscribe to a channel for the block; its connection is kept for the next unless something went wrong."""
        with translate_errors(self._client):
            channel = self._subscribed(name)
            try:
                yield channel
            except BaseException:
                channel.close()
                raise
        with self._lock:
            self._idle.append(channel)

    def _subscribed(self, name: str) -> Channel:
        if (channel := self._take()) is not None:
            with suppress(redis.ConnectionError):
                return channel.subscribed(name)
            self.close()  # it has ended while nobody waited, and so have the others
        return Channel(self._client).subscribed(name)

    def _take(self) -> Channel | None:
        with self._lock:
            if self._owner != os.getpid():  # after a fork these sockets belong to the parent
                self._owner, self._idle = os.getpid(), []
            return self._idle.pop() if self._idle else None

    def close(self) -> None:
        """Close the connections with which nobody waits."""
        with self._lock:
            idle, self._idle = self._idle, []
        for channel in idle:
            channel.close()


class Channel:
    """A connection that listens to one channel. It leaves that when it is told the next one."""

    def __init__(self, client: redis.Redis) -> None:
        self._server = server_of(client)
        self._pool = client.pool_of(None) if is_cluster(client) else client.connection_pool
        self._connection: Any = self._pool.get_connection()
        self._name = b""

    def subscribed(self, name: str) -> Channel:
        """Listen to a channel; returns when the server has confirmed that. Answers to earlier waits are left out."""
        commands = [("UNSUBSCRIBE", self._name)] if self._name else []
        commands.append(("SUBSCRIBE", name.encode()))
        self._name = commands[-1][1]
        try:
            self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
            self._await_confirmation()
        except BaseException:
            self.close()
            raise
        return self

    def _await_confirmation(self) -> None:
        while answer := self._read(CONFIRM_S):
            if answer[:2] == [b"subscribe", self._name]:
                return
        raise StoreUnavailable(f"{self._server}: it did not confirm a subscription within {CONFIRM_S:g} s")

    def message(self, timeout: float) -> bytes | None:
        """Wait for the next message; None if there is none in ``timeout`` seconds."""
        answer = self._read(timeout)
        return answer[2] if answer is not None and answer[0] == b"message" else None

    def close(self) -> None:
        """Disconnect."""
        self._connection.disconnect()
        self._pool.release(self._connection)

    def _read(self, seconds: float) -> list[Any] | None:
        self._connection._sock.settimeout(max(seconds, _SHORTEST_S))
        try:
            answer: list[Any] = self._connection.read_response(disconnect_on_error=False)
        except redis.TimeoutError:
            return None
        return answer
