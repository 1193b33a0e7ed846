"""The processes that are tried: three real daemons on one schedule, and whatever else there is to end."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

LIMIT = 30.0
"""Seconds within which a process that was told to stop must have ended."""

READY = (b'"event": "starting"', b'"event": "worker_connected"')
"""What shows that a process has got to handling signals; before that SIGTERM simply ends it."""


class Place:
    """A place in the fleet: one process after the other, each with a log of its own."""

    def __init__(self, name: str, folder: Path, *arguments: str, **env: str) -> None:
        self.name = name
        self._logs = folder / name.replace(" ", "-")
        self._command = [sys.executable, "-m", "beatd", *arguments]
        self._env = os.environ | env
        self.starts = 0
        """How many processes there have been; the number of the one that runs."""
        self._process: subprocess.Popen[bytes] | None = None
        self.frozen = False

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        self.starts += 1
        self._log = self._logs.with_suffix(f".{self.starts}.log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self._logs.parent,
                env=self._env | {"CHAOS_START": str(self.starts)},
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self.frozen = {signal.SIGSTOP: True, signal.SIGCONT: False}.get(number, self.frozen)

    def kill(self, *, group: bool = True) -> None:
        """As the kernel's memory killer would; with the processes that it has started, or that one alone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL) if group else self._process.kill()
            self._process.wait(10)
            self._process, self.frozen = None, False

    def stop(self) -> float:
        """As a deployment would; returns the seconds that it took."""
        assert self._process is not None
        begun, young = time.monotonic(), not any(word in self._log.read_bytes() for word in READY)
        if self.frozen:
            self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        code = self._process.wait(LIMIT)
        assert code == 0 or (young and code == -signal.SIGTERM), (
            f"{self.name} ended with {code}: see {self._logs.parent}"
        )
        self._process = None
        return time.monotonic() - begun

    def check(self) -> None:
        """None ends by itself, whatever happened to store and broker."""
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"{self.name} ended by itself with {self._process.returncode}")


class Fleet:
    """The daemons, and which of them leads. ``configs``: the text of each one's beat.toml. ``older``: a folder with
    another version of beatd, of which every other daemon is."""

    def __init__(self, folder: Path, configs: Iterable[str], older: str = "") -> None:
        self.folder = folder
        self.daemons = []
        for number, text in enumerate(configs, 1):
            config = folder / f"beat-{number}.toml"
            config.write_text(text)
            env = {"PYTHONPATH": older} if older and number % 2 else {}
            command = ("--config", str(config), "--log-format", "json")
            self.daemons.append(Place(f"daemon {number}", folder, *command, **env))

    def holder(self, lease: bytes | None) -> Place | None:
        """The daemon whose lease that is."""
        pid = int(lease.decode().rsplit("-", 2)[1]) if lease else None
        return next((one for one in self.daemons if pid is not None and one.pid == pid), None)

    def events(self, name: str) -> int:
        """How often an event was logged, by all daemons together."""
        needle = f'"event":"{name}"'.encode()
        return sum(path.read_bytes().replace(b'": "', b'":"').count(needle) for path in self.folder.glob("*.log"))

    def versions(self) -> set[str]:
        """The versions of beatd that have run."""
        texts = (path.read_text() for path in self.folder.glob("daemon-*.log"))
        return set(itertools.chain.from_iterable(re.findall(r"beatd (\S+) starts", text) for text in texts))

    def lost_though_confirmed(self) -> int:
        """How often a daemon that waits for replicas missed writes, though it had heard of no server whose replicas did
        not confirm."""
        count = 0
        for path in self.folder.glob("daemon-*.log"):
            unconfirmed = set()
            for line in path.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    record = json.loads(line)
                    if record.get("event") == "store_unreplicated":
                        unconfirmed.add(record["server"])
                    elif record.get("event") == "store_unreplicated_over":
                        unconfirmed.discard(record["server"])
                    elif record.get("event") == "store_went_back" and not unconfirmed:
                        count += 1
        return count

    def tracebacks(self) -> list[str]:
        """Log lines of errors that nobody foresaw."""
        lines = itertools.chain.from_iterable(path.read_text().splitlines() for path in self.folder.glob("*.log"))
        return [line for line in lines if "Traceback" in line]

    def close(self) -> None:
        for daemon in self.daemons:
            if daemon.frozen and daemon.pid is not None:
                os.kill(daemon.pid, signal.SIGCONT)
            daemon.kill()
