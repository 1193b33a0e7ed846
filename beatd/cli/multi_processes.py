"""Background workers: started, found again, ended; their pidfiles, log files, and records of how they were started.

A pidfile is locked for as long as its worker lives, so a stale one deceives nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import multiprocessing
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from beatd import signals
from beatd.cli.global_options import urls_as_variables
from beatd.clock import monotonic, sleep
from beatd.exceptions import ConfigError, Fault
from beatd.log_format import FileLog


class LogFile:
    """``template`` may have ``%i``, the number of the pool's process (0: the parent), or ``%I``, the same after a dash
    (nothing: the parent). A file that is renamed, as logrotate does, is opened anew."""

    def __init__(self, template: str, command: str = "beatd worker") -> None:
        self._template = template
        self._command = command

    def open(self) -> None:
        """Log here from now on, in this process and in those of the pool. Raises ConfigError if that cannot be."""
        self._log_to(0)
        if "%i" in self._template or "%I" in self._template:
            signals.worker_process_init.connect(self._in_child, weak=False)

    def _in_child(self, **_: object) -> None:
        number = multiprocessing.current_process().name.rpartition("-")[2]
        if number.isdigit():
            self._log_to(int(number))

    def _log_to(self, number: int) -> None:
        path = path_of(self._template, number)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_fifo() and not path.is_relative_to("/dev"):  # opening it would wait for a reader
                raise ConfigError([Fault(self._command, None, "--logfile", f"{path}: it is a named pipe, not a file")])
            handler = FileLog(path)
        except OSError as error:
            raise ConfigError([Fault(self._command, None, "--logfile", f"{path}: {error.strerror}")]) from None
        root = logging.getLogger()
        for old in list(root.handlers):
            handler.setFormatter(old.formatter)
            root.removeHandler(old)
            old.close()
        root.addHandler(handler)


def path_of(template: str, number: int) -> Path:
    """The file of process ``number``."""
    index = f"-{number}" if number else ""
    return Path(template.replace("%i", str(number)).replace("%I", index)).expanduser()


_SIZE_MAX = 32
_OWN = re.compile(rb"([0-9]+\n?)?")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Own the file until the block ends. Raises ConfigError if a living process has it, or it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        link = ": it is a symbolic link" if path.is_symlink() else f": {error.strerror}"
        raise ConfigError([Fault(str(path), None, "", f"cannot be written{link}")]) from None
    with os.fdopen(descriptor, "r+b", buffering=0):
        if (content := _content(descriptor)) is None:
            text = "is not a pid file, and is left as it is; name another file with --pidfile"
            raise ConfigError([Fault(str(path), None, "", text)])
        if not _lock(descriptor):
            raise ConfigError([Fault(str(path), None, "", f"belongs to process {content}, which is alive")])
        os.ftruncate(descriptor, os.pwrite(descriptor, b"%d\n" % os.getpid(), 0))
        owner = os.getpid()
        try:
            yield
        finally:
            if os.getpid() == owner:  # not in a process that was forked from it
                with contextlib.suppress(OSError):
                    path.unlink()


def owner_of(path: Path) -> int | None:
    """The process that has the file now; ``None`` if nobody does, whatever is written in it."""
    try:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK), "r+b", buffering=0) as file:
            content = _content(file.fileno())
            return int(content) if content and not _lock(file.fileno()) else None
    except (OSError, ValueError):
        return None


def _content(descriptor: int) -> str | None:
    """The process id in a file, or nothing in an empty one; ``None`` for any file that is no pid file."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    text = os.pread(descriptor, _SIZE_MAX + 1, 0)
    return text.decode().strip() if len(text) <= _SIZE_MAX and _OWN.fullmatch(text) else None


def _lock(descriptor: int) -> bool:
    """Take the lock; returns whether it was free. A fork does not inherit it, and it ends with the process."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except PermissionError:
        return False
    return True


START_S = 30.0
"""How long a worker may take until it has its pid file: it imports the app before."""
_LOOK_EVERY_S = 0.05
_TAIL = 1500
"""Characters of the log that are shown when a worker does not start."""


class Started(msgspec.Struct, frozen=True):
    """Start record of a node: all that is needed to start it again."""

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
        """Return the last start record of a node; ``None`` if there is none that can be read."""
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
    """Start a node; see :func:`start_process`."""
    return start_process(one.node, one.command, one.folder, one.pidfile, one.logfile)


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


def tell(pid: int, number: signal.Signals) -> bool:
    """Send the signal; tells whether there was somebody to receive it."""
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
