"""Nodes in the background: started, signalled, and the records of how they were started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from beatd.cli.global_options import urls_as_variables
from beatd.cli.logfile import path_of
from beatd.cli.pidfile import owner_of
from beatd.clock import monotonic, sleep
from beatd.exceptions import ConfigError, Fault

START_S = 30.0
"""How long a worker may take until it has its pid file: it imports the app before."""
_LOOK_EVERY_S = 0.05
_TAIL = 1500
"""Characters of the log that are shown when a worker does not start."""


class NodeRecord(msgspec.Struct, frozen=True):
    """Record of a node's start: all that is needed to start it again."""

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


class NodeRecords:
    """One file for each node in a folder of the user's. Only the user may read them: arguments may hold passwords."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, record: NodeRecord) -> None:
        """Write the record of a start. Raises ConfigError if it cannot be written."""
        path = self._path(record.node)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, draft = tempfile.mkstemp(dir=self._folder, prefix=".node-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(record)))
            Path(draft).replace(path)
        except OSError as error:
            raise ConfigError([Fault(str(path), None, "", f"cannot be written: {error.strerror}")]) from None

    def read(self, node: str) -> NodeRecord | None:
        """Return the last start record of a node; ``None`` if there is none that can be read."""
        try:
            return msgspec.json.decode(self._path(node).read_bytes(), type=NodeRecord)
        except (OSError, msgspec.MsgspecError):
            return None

    def remove(self, node: str) -> None:
        """Remove the record of a node, if there is one."""
        self._path(node).unlink(missing_ok=True)

    def nodes(self) -> list[str]:
        """Return the names of all nodes with a record, sorted."""
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


def start(record: NodeRecord) -> int:
    """Start a node; see :func:`start_process`."""
    return start_process(record.node, record.command, record.folder, record.pidfile, record.logfile)


def start_process(name: str, command: list[str], folder: str, pidfile: str, logfile: str) -> int:
    """Start a command in the background and wait until it has its pid file; returns the process id.

    Raises ConfigError with what it had to say if it ended, or takes too long.
    """
    log = path_of(logfile, 0)
    words, urls = urls_as_variables(command)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            begin = output.tell()
            process = subprocess.Popen(  # noqa: S603 - the user's own words, no shell
                words,
                cwd=folder,
                env={**os.environ, **urls},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise ConfigError([Fault(name, None, "", f"{error.filename}: {error.strerror}")]) from None
    path = Path(pidfile)
    is_started = wait_until(lambda: owner_of(path) == process.pid or process.poll() is not None, START_S)
    if is_started and process.poll() is None:
        return process.pid
    code = process.poll()
    ended = "has not started" if code is None else f"ended with exit code {code}"
    said = log.read_bytes()[begin:][-_TAIL:].decode("utf-8", "replace").strip()
    raise ConfigError([Fault(name, None, "", f"{ended} (see {log})" + (f"\n{said}" if said else ""))])


def send_signal(pid: int, number: signal.Signals) -> bool:
    """Send a signal; returns whether the process could receive it."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def wait_until(predicate: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; returns whether it became true in time."""
    deadline = monotonic() + seconds
    while not predicate():
        if monotonic() > deadline:
            return False
        sleep(_LOOK_EVERY_S)
    return True
