"""The state store under test, as one server: it keeps an append-only file, and can lose power.

A process that is killed loses nothing that it had answered: its file is in the hands of the kernel. What
``appendfsync everysec`` may lose is lost with the machine; so losing power is played by cutting off what was written to
the file in the last second.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Protocol

import redis

from beatd.store.keys import Keys
from tests.conftest import Server, server_binary

AOF = ("--appendonly", "yes", "--auto-aof-rewrite-percentage", "0", "--enable-debug-command", "yes")


class StateStore(Protocol):
    """The state store under test: one server, or a cluster."""

    keys: Keys

    @property
    def url(self) -> str: ...

    def client_of(self, key: str) -> redis.Redis:
        """A client of the server that has a key, past all proxies."""


class ChaosStore(Server):
    """A server whose append-only file is watched, so that its end can be cut off."""

    keys = Keys()

    def __init__(self, kind: str, fsync: str) -> None:
        binary = server_binary(kind)
        assert binary is not None, f"{kind}-server is not installed"
        super().__init__(binary, *AOF, "--appendfsync", fsync)
        self._sizes: deque[tuple[float, int]] = deque(maxlen=200)

    @property
    def _file(self) -> Path:
        return max(self.directory.glob("appendonlydir/*.incr.aof"), key=lambda path: path.stat().st_mtime)

    def watch(self) -> None:
        """Remember how long the file is now; to be called often."""
        if self.running:
            self._sizes.append((time.monotonic(), self._file.stat().st_size))

    def lose_power(self, seconds: float) -> float:
        """End it, and with it everything written in the last ``seconds``; returns how many were lost (about)."""
        self.kill()
        now = time.monotonic()
        kept = next(((at, size) for at, size in reversed(self._sizes) if at <= now - seconds), None)
        self._sizes.clear()
        if kept is None:
            return 0.0
        with self._file.open("r+b") as file:
            file.truncate(kept[1])
        return now - kept[0]

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=5, retry=None)

    def client_of(self, key: str) -> redis.Redis:
        return self.client()
