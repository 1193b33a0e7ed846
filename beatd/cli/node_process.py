"""Workers in the background: starting them, finding them again, ending them, and remembering how they were started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from beatd.cli.logfile import path_of
from beatd.cli.pidfile import owner_of
from beatd.exceptions import ConfigError, Fault

START_S = 30.0
"""How long a worker may take until it has its pid file: it imports the app before."""
_LOOK_EVERY_S = 0.05
_TAIL = 1500
"""Characters of the log that are shown when a worker does not start."""


class Started(msgspec.Struct, frozen=True):
    """How a node was started: all that it takes to do it again."""

    node: str
    arguments: list[str]
    """After ``beatd worker``."""
    folder: str
    pidfile: str
    logfile: str

    @property
    def command(self) -> list[str]:
        files = [f"--pidfile={self.pidfile}", f"--logfile={self.logfile}"]
        return [sys.executable, "-m", "beatd", "worker", *self.arguments, f"--hostname={self.node}", *files]

    @property
    def pid(self) -> int | None:
        """The process, if it lives."""
        return owner_of(Path(self.pidfile))


class Memory:
    """One file for each node in a folder of the user's. Only the user may read them: arguments may hold passwords."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def remember(self, started: Started) -> None:
        """Raises ConfigError if it cannot be written."""
        path = self._path(started.node)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, draft = tempfile.mkstemp(dir=self._folder, prefix=".node-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(started)))
            Path(draft).replace(path)
        except OSError as error:
            raise ConfigError([Fault(str(path), None, "", f"cannot be written: {error.strerror}")]) from None

    def recall(self, node: str) -> Started | None:
        """How the node was started last; ``None`` if it never was, or nobody can read it any more."""
        try:
            return msgspec.json.decode(self._path(node).read_bytes(), type=Started)
        except (OSError, msgspec.MsgspecError):
            return None

    def forget(self, node: str) -> None:
        """As if it had never been started."""
        self._path(node).unlink(missing_ok=True)

    def nodes(self) -> list[str]:
        """All nodes that are remembered, by name."""
        found = (self._name(path) for path in self._folder.glob("*.json"))
        return sorted(name for name in found if name is not None)

    def _path(self, node: str) -> Path:
        return self._folder / f"{node.replace('/', '_')}.json"

    def _name(self, path: Path) -> str | None:
        try:
            document: dict[str, Any] = json.loads(path.read_bytes())
            return str(document["node"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def start(one: Started) -> int:
    """Start it and wait until it has its pid file; returns the process id.

    Raises ConfigError with what it had to say if it ended, or takes too long.
    """
    log = path_of(one.logfile, 0)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            begin = output.tell()
            process = subprocess.Popen(  # noqa: S603 - the user's own words, no shell
                one.command,
                cwd=one.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise ConfigError([Fault(one.node, None, "", f"{error.filename}: {error.strerror}")]) from None
    if wait_until(lambda: one.pid == process.pid or process.poll() is not None, START_S) and process.poll() is None:
        return process.pid
    code = process.poll()
    ended = "has not started" if code is None else f"ended with exit code {code}"
    said = log.read_bytes()[begin:][-_TAIL:].decode("utf-8", "replace").strip()
    raise ConfigError([Fault(one.node, None, "", f"{ended} (see {log})" + (f"\n{said}" if said else ""))])


def tell(pid: int, number: signal.Signals) -> bool:
    """Send the signal; tells whether there was somebody to receive it."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def wait_until(predicate: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True
