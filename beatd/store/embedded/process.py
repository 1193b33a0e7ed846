"""The one server process of a directory, whoever started it.

``server.lock`` answers whether it lives: the file is locked by whoever starts a server, and the server inherits the
descriptor and with it the lock, which the kernel frees when the server ends, however it ends. No process id is
guessed, and two servers never write the same data.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import redis

from beatd.clock import monotonic, sleep
from beatd.exceptions import StoreRefused, StoreUnavailable
from beatd.store.client import connect
from beatd.store.embedded.binary import Binary, choose

Answer = Literal["ready", "loading", "silent"]

ANSWER_WITHIN_S = 15.0
"""Time that a server may take to its first answer."""
LOAD_WITHIN_S = 600.0
"""Time that a server may take to load its data, as long as it says that it does."""

_POLL = 0.01
_LOG_LIMIT = 1 << 20


class ServerProcess:
    """The server whose data, lock and log are in ``directory`` and whose socket is ``socket``, or was when it started.

    Not safe against another one on the same directory: callers hold a lock (see :mod:`beatd.store.embedded`).
    """

    def __init__(self, directory: Path, socket: Path, *, answer_within: float = ANSWER_WITHIN_S) -> None:
        self.directory = directory
        self._answer_within = answer_within
        self.log = directory / "server.log"
        self._log_start = 0
        self.socket = Path(self._record().get("socket", socket)) if self.alive() else socket
        self.url = f"unix://{self.socket}?db=0"

    def alive(self) -> bool:
        """True if a server process exists, answering or not."""
        lock = self._try_lock()
        if lock is None:
            return True
        os.close(lock)
        return False

    def answer(self) -> Answer:
        """Return the server's answer to a PING."""
        client = connect(self.url, timeout_ms=1_000, name="beatd-embedded")
        try:
            client.ping()
        except redis.exceptions.BusyLoadingError:
            return "loading"
        except redis.RedisError:
            return "silent"
        finally:
            client.close()
        return "ready"

    def ensure(self) -> Binary | None:
        """Return once a server answers. If none lived, one was started and is returned.

        Raises :class:`StoreRefused` if it cannot start, :class:`StoreUnavailable` if it lives and keeps silent.
        """
        started: Binary | None = None
        begun = monotonic()
        while (answer := self.answer()) != "ready":
            if answer == "silent" and (lock := self._try_lock()) is not None:
                started = self._start(lock, tried=started)
            if monotonic() - begun > (LOAD_WITHIN_S if answer == "loading" else self._answer_within):
                raise StoreUnavailable(f"the embedded store's server lives and does not answer; its log is {self.log}")
            sleep(_POLL)
        return started

    def stop(self) -> None:
        """End the server, its data on disk: by command, then SIGTERM, then SIGKILL; 15 s at most."""
        pid = self.pid()
        steps: list[tuple[Callable[[], None], float]] = [
            (lambda: _send(pid, signal.SIGTERM), 2.0),
            (lambda: _send(pid, signal.SIGKILL), 5.0),  # it needs a processor to end
        ]
        if self.answer() == "ready":
            steps.insert(0, (self._ask_to_end, 3.0))
        for step, seconds in steps:
            if not self.alive():
                return
            step()
            self._wait_for_end(seconds)
        if self.alive():
            raise StoreUnavailable(f"the embedded store's server (process {pid}) does not end; its log is {self.log}")

    def terminate(self, pid: int | None) -> None:
        """Send SIGTERM to the server, of which nothing but its process id is known any more."""
        _send(pid, signal.SIGTERM)

    def _start(self, lock: int, *, tried: Binary | None) -> Binary:
        """Start a server that takes over ``lock``. ``tried``: the one that was just started, and that ended."""
        try:
            if tried is not None:
                raise StoreRefused(f"the embedded store cannot start {tried}: {self._last_words()} ({self.log})")
            binary = choose(self._writer())
            self._rotate_log()
            self._write_record(binary)
            self._spawn(binary, lock)
        finally:
            os.close(lock)
        return binary

    def _spawn(self, binary: Binary, lock: int) -> None:
        """Run it as a daemon: its own session, so that Ctrl-C in a terminal does not end it before its users."""
        settings = {
            "daemonize": "yes",
            "supervised": "no",
            "dir": self.directory,
            "port": 0,
            "unixsocket": self.socket,
            "unixsocketperm": 700,
            "pidfile": self.directory / "server.pid",
            "logfile": self.log,
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        command = [binary.path, *(word for key, value in settings.items() for word in (f"--{key}", str(value)))]
        try:
            done = subprocess.run(  # noqa: S603 - our own words, no shell
                command, capture_output=True, text=True, timeout=15, check=False, pass_fds=[lock], umask=0o077
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StoreRefused(f"the embedded store cannot start {binary}: {error}") from None
        if done.returncode:
            words = " ".join((done.stdout + done.stderr).split())[-500:]
            raise StoreRefused(f"the embedded store cannot start {binary}: {words or self._last_words()} ({self.log})")

    def _ask_to_end(self) -> None:
        client = connect(self.url, timeout_ms=3_000, name="beatd-embedded")
        try:
            client.shutdown(nosave=True)  # the append-only file is flushed all the same
        except redis.RedisError:
            return  # the connection ends with the server, or the next step is harsher
        finally:
            client.close()

    def _wait_for_end(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        while self.alive() and monotonic() < deadline:
            sleep(_POLL)

    def pid(self) -> int | None:
        """The server's process id, from itself or, if it keeps silent, from the file that it wrote."""
        client = connect(self.url, timeout_ms=1_000, name="beatd-embedded")
        try:
            return int(client.info("server")["process_id"])
        except redis.RedisError:
            pass
        finally:
            client.close()
        try:
            return int((self.directory / "server.pid").read_text())
        except (OSError, ValueError):
            return None

    def _try_lock(self) -> int | None:
        """A locked descriptor of ``server.lock``, or None while a server holds it."""
        descriptor = os.open(self.directory / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _record(self) -> dict[str, Any]:
        """Return the record of the last start; empty if there is none."""
        try:
            record = json.loads((self.directory / "server.json").read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _write_record(self, binary: Binary) -> None:
        record = {**binary._asdict(), "socket": str(self.socket)}
        draft = self.directory / "server.json.new"
        draft.write_text(json.dumps(record))
        draft.replace(self.directory / "server.json")

    def _writer(self) -> Binary | None:
        """The program that wrote the data which is there."""
        record = self._record()
        if not (self.directory / "appendonlydir").exists() and not (self.directory / "appendonly.aof").exists():
            return None
        try:
            return Binary(record["path"], record["name"], tuple(record["version"]))
        except (KeyError, TypeError):
            return None

    def _rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        self._log_start = self.log.stat().st_size if self.log.exists() else 0

    def _last_words(self) -> str:
        """The warnings that the server logged since it was last started."""
        try:
            text = self.log.read_bytes()[self._log_start :].decode("utf-8", "replace")
        except OSError:
            return "it left no log"
        text = text.rpartition("Server initialized")[2]  # what comes before is said at every start
        warnings = [line.partition(" # ")[2] for line in text.splitlines() if " # " in line]
        return "; ".join([line for line in warnings if "overcommit" not in line][-3:]) or "it gave no reason"


def _send(pid: int | None, number: signal.Signals) -> None:
    if pid is None:
        return
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
