"""A primary, a replica and three sentinels that watch them: all of it real, on ports of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.conftest import missing, wait_for

SERVICE = "beat-main"
DOWN_AFTER_MS = 2_000
"""After this silence a server counts as down: a process may wait for a second for a processor, or for a disk."""

_SETTINGS = """
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor {service} 127.0.0.1 {primary} 2
sentinel down-after-milliseconds {service} {down_after_ms}
sentinel failover-timeout {service} 2000
"""


class Sentinels:
    """Sentinels of one service. ``servers`` are those that may be the primary, which the first one is."""

    def __init__(self, binary: str, servers: list, folder: Path, free_port: Callable[[], int]) -> None:
        self.servers = servers
        self._by_port = {server.port: server for server in servers}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        for _ in range(3):
            port = free_port()
            config = folder / f"sentinel-{port}.conf"
            text = _SETTINGS.format(
                port=port,
                folder=folder,
                service=SERVICE,
                primary=servers[0].port,
                down_after_ms=DOWN_AFTER_MS,
            )
            config.write_text(text)
            with (folder / f"sentinel-{port}.log").open("wb") as log:
                command = [binary, str(config), "--sentinel"]
                self._processes[port] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    @property
    def ports(self) -> list[int]:
        return list(self._processes)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"sentinel://{hosts}/{SERVICE}/0"

    def ask(self, port: int) -> dict:
        """What a sentinel knows of the service; nothing while it does not answer."""
        try:
            with redis.Redis(port=port, socket_timeout=1, retry=None) as client:
                return client.sentinel_master(SERVICE)
        except redis.RedisError:
            return {}

    @property
    def ready(self) -> bool:
        """Whether each sentinel knows the two others and the replica."""
        known = [self.ask(port) for port in self.ports]
        return all(one and (one["num-other-sentinels"], one["num-slaves"]) == (2, 1) for one in known)

    @property
    def unsupported(self) -> bool:
        """Whether the program is one that ends when it is to be a sentinel."""
        return any(process.poll() is not None for process in self._processes.values())

    @property
    def primary(self):
        """The server that most sentinels call the primary, or None when they do not agree."""
        named = [self.ask(port).get("port") for port in self.ports]
        agreed = [port for port in named if named.count(port) >= 2]
        return self._by_port.get(agreed[0]) if agreed else None

    def kill(self, port: int) -> None:
        self._processes[port].kill()
        self._processes[port].wait(10)

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(10)


@contextmanager
def watched(start_server, folder, free_port) -> Iterator[Sentinels]:
    """A primary with its replica, and sentinels that know all of it."""
    kept = ("--appendonly", "yes", "--repl-diskless-sync-delay", "0")
    primary = start_server(*kept)
    replica = start_server(*kept, "--replicaof", "127.0.0.1", str(primary.port))
    sentinels = Sentinels(primary.binary, [primary, replica], folder, free_port)
    try:
        wait_for(
            lambda: sentinels.ready or sentinels.unsupported, 60, f"the sentinels to know each other (see {folder})"
        )
        if sentinels.unsupported:
            missing("a server that can be a sentinel")
        yield sentinels
    finally:
        sentinels.close()
