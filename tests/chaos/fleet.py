"""Three real daemons on one schedule; the last of them reaches the state store through the proxy."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LIMIT = 30.0
"""Seconds within which a daemon that was told to stop must have ended."""


YOUTH = 3.0
"""Seconds after its start in which a process may not yet have got to handling signals, and simply ends."""


class Daemon:
    """A place in the fleet: one process after the other, each with a log of its own."""

    def __init__(self, number: int, config: Path) -> None:
        self.name = f"daemon {number}"
        self._config = config
        self._starts = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self.frozen = False

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        log = self._config.with_suffix(f".{next(self._starts)}.log")
        command = [sys.executable, "-m", "beatd", "--config", str(self._config), "--log-format", "json"]
        self._started = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self.frozen = {signal.SIGSTOP: True, signal.SIGCONT: False}.get(number, self.frozen)

    def kill(self) -> None:
        """As the kernel's memory killer would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process, self.frozen = None, False

    def stop(self) -> float:
        """As a deployment would; returns the seconds that it took."""
        assert self._process is not None
        begun = time.monotonic()
        if self.frozen:
            self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        code = self._process.wait(LIMIT)
        young = begun - self._started < YOUTH and code == -signal.SIGTERM
        assert code == 0 or young, f"{self.name} ended with {code}: see {self._config.parent}"
        self._process = None
        return time.monotonic() - begun

    def check(self) -> None:
        """A daemon never ends by itself, whatever happened to the store."""
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"{self.name} ended by itself with {self._process.returncode}")


class Fleet:
    """The daemons, and which of them leads."""

    def __init__(self, folder: Path, schedule: str, urls: list[str], ttl_ms: int) -> None:
        self.folder = folder
        self.daemons = []
        for number, url in enumerate(urls, 1):
            config = folder / f"beat-{number}.toml"
            config.write_text(f'[redis]\nurl = "{url}"\n[leader]\nttl = "{ttl_ms}ms"\n{schedule}')
            self.daemons.append(Daemon(number, config))

    def holder(self, lease: bytes | None) -> Daemon | None:
        """The daemon whose lease that is."""
        pid = int(lease.decode().rsplit("-", 2)[1]) if lease else None
        return next((one for one in self.daemons if pid is not None and one.pid == pid), None)

    def events(self, name: str) -> int:
        """How often an event was logged, by all daemons together."""
        needle = f'"event":"{name}"'.encode()
        return sum(path.read_bytes().replace(b'": "', b'":"').count(needle) for path in self.folder.glob("*.log"))

    def tracebacks(self) -> list[str]:
        """Log lines of errors that nobody foresaw."""
        lines = itertools.chain.from_iterable(path.read_text().splitlines() for path in self.folder.glob("*.log"))
        return [line for line in lines if "Traceback" in line]

    def close(self) -> None:
        for daemon in self.daemons:
            if daemon.frozen and daemon.pid is not None:
                os.kill(daemon.pid, signal.SIGCONT)
            daemon.kill()
