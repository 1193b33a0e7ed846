"""The embedded store: a private, persistent server on a Unix socket, shared by everyone who opens the same directory.

The first user starts it, the last one stops it. Two locks make that safe, and the kernel frees both when a
process dies: ``start.lock`` is held while somebody starts or stops the server, ``users.lock`` is shared by all who use
it. A server that dies is started again by any of its users, with its data (at most the last second is lost).
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import select
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from beatd.clock import monotonic, sleep
from beatd.exceptions import StoreError, StoreRefused, StoreUnavailable
from beatd.store.embedded.binary import Binary
from beatd.store.embedded.process import ANSWER_WITHIN_S, ServerProcess

logger = logging.getLogger(__name__)

_SOCKET_PATH_LIMIT = 100
"""Bytes of a Unix socket's path that work everywhere: Linux takes 107, macOS 103."""
_TURN_WITHIN = 30.0
_BACKOFF_LIMIT = 30.0


def open_embedded(
    state_dir: str | Path, *, runtime_dir: str | Path | None = None, answer_within: float = ANSWER_WITHIN_S
) -> EmbeddedStore:
    """Start or join the server whose data is in ``state_dir``; its ``url`` answers when this returns.

    ``state_dir`` is created if need be; the data is in its sub-directory ``store``, which only this user may enter.
    ``runtime_dir`` (default: the directory for temporary files) takes the socket if its path would be too long.
    ``answer_within`` are the seconds that the server may take to its first answer.
    Raises :class:`StoreRefused` if there is no server program, or the directory belongs to somebody else, or the data
    cannot be read; :class:`StoreUnavailable` if the server does not answer in time.
    """
    directory = _private(Path(state_dir).absolute() / "store")
    socket_path = _socket_path(directory, Path(runtime_dir or tempfile.gettempdir()))
    return EmbeddedStore(directory, socket_path, answer_within=answer_within)


def find_embedded(state_dir: str | Path) -> str | None:
    """The URL of the server whose data is in ``state_dir``, if one runs. Starts nothing and creates nothing."""
    directory = Path(state_dir).absolute() / "store"
    with _in_words(directory):
        if not (directory / "server.lock").exists():
            return None
        server = ServerProcess(directory, directory / "store.sock")
        return server.url if server.alive() else None


@contextmanager
def _in_words(directory: Path) -> Iterator[None]:
    """Say which folder it is that cannot be used: it is another user's, is gone, or its disk is full."""
    try:
        yield
    except OSError as error:
        hint = "; run as the user of the daemon" if isinstance(error, PermissionError) else ""
        raise StoreRefused(f"the embedded store cannot use {directory}: {error.strerror or error}{hint}") from None


class EmbeddedStore:
    """A use of the embedded server, from :func:`open_embedded` to :meth:`close`; also a context manager."""

    url: str
    """``unix:///…/store.sock?db=0``"""

    def __init__(self, directory: Path, socket_path: Path, *, answer_within: float = ANSWER_WITHIN_S) -> None:
        self.directory = directory
        self._owner = os.getpid()
        self._closing = threading.Event()
        with _in_words(directory), self._turn():
            self._users = os.open(directory / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self._users, fcntl.LOCK_SH)
                self._server = ServerProcess(directory, socket_path, answer_within=answer_within)
                self.url = self._server.url
                self._say_ready(self._server.ensure())
                self._pid = self._server.pid()
            except BaseException:
                os.close(self._users)
                raise
        self._wake_read, self._wake_write = socket.socketpair()
        self._supervisor = threading.Thread(target=self._supervise, name="embedded-store", daemon=True)
        self._supervisor.start()

    def ensure(self) -> bool:
        """Start the server again if it died; tells whether this call did it. Raises as :func:`open_embedded`."""
        with _in_words(self.directory), self._turn():
            if self._closing.is_set():
                return False
            binary = self._server.ensure()
            self._pid = self._server.pid()
        if binary is not None:
            logger.warning("Embedded store restarted", extra={"event": "embedded_restarted", "server": str(binary)})
        return binary is not None

    def close(self) -> None:
        """Stop using the server, and stop it if nobody else does. Closing twice, or in a forked child, does nothing."""
        if self._closing.is_set() or os.getpid() != self._owner:
            return
        self._closing.set()
        self._wake_write.send(b"!")  # closing it is not enough: forked children have it open, too
        self._wake_write.close()
        self._supervisor.join(_TURN_WITHIN)
        try:
            with _in_words(self.directory), self._turn():
                if self._last_user():
                    self._server.stop()
                    logger.info("Embedded store stopped", extra={"event": "embedded_stopped"})
        except StoreError as error:
            if not self.directory.exists() and self._last_user():  # without its folder the server is of no use
                self._server.terminate(self._pid)
                text = "Embedded store stopped, its data is gone: %s"
                logger.error(text, error, extra={"event": "embedded_stopped"})  # noqa: TRY400
            else:
                logger.error("Embedded store not stopped: %s", error, extra={"event": "embedded_not_stopped"})  # noqa: TRY400
        finally:
            fcntl.flock(self._users, fcntl.LOCK_UN)  # forked children share the lock: closing alone would leave it
            os.close(self._users)
            self._wake_read.close()

    def __enter__(self) -> EmbeddedStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _last_user(self) -> bool:
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the only one that starts or stops the server; waits 30 s for others to be done."""
        descriptor = os.open(self.directory / "start.lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = monotonic() + _TURN_WITHIN
        try:
            while not _locked(descriptor):
                if monotonic() > deadline:
                    raise StoreUnavailable(f"another process has held {self.directory}/start.lock for {_TURN_WITHIN} s")
                sleep(0.01)
            yield
        finally:
            os.close(descriptor)

    def _supervise(self) -> None:
        """Keep one idle connection to the server: when it breaks, the server died, and that is known at once."""
        pause = 0.0
        while not self._closing.is_set():
            begun = monotonic()
            self._wait_for_break()
            if self._closing.wait(pause):
                return
            try:
                self.ensure()
            except StoreError as error:
                logger.error("Embedded store down: %s", error, extra={"event": "embedded_down"})  # noqa: TRY400
            lasted = monotonic() - begun > 2 * _BACKOFF_LIMIT
            pause = 0.0 if lasted else min(max(pause * 2, 0.1), _BACKOFF_LIMIT)

    def _wait_for_break(self) -> None:
        poll = select.poll()
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(self._server.socket))
            for each in (connection, self._wake_read):
                poll.register(each, select.POLLIN)
            poll.poll()

    def _say_ready(self, started: Binary | None) -> None:
        if started is None:
            logger.info("Embedded store joined", extra={"event": "embedded_joined", "url": self.url})
            return
        logger.info(
            "Embedded store started", extra={"event": "embedded_started", "url": self.url, "server": str(started)}
        )


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _private(directory: Path) -> Path:
    """Create ``directory`` so that only this user may enter it, or see to it that it is so."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise StoreRefused(
                f"{directory} is not a folder but a link or a file: remove it, or name another state_dir"
            )
        if status.st_uid != os.geteuid():
            raise StoreRefused(
                f"{directory} belongs to user {status.st_uid} and this is user {os.geteuid()}:"
                " run as that user, or name another state_dir"
            )
        if status.st_mode & 0o077:
            _close_to_others(directory)
    except OSError as error:
        raise StoreRefused(
            f"the embedded store needs {directory} for itself: {error.strerror or error};"
            " name another folder with state_dir"
        ) from None
    return directory


def _close_to_others(directory: Path) -> None:
    """Change the mode of the folder itself: a link that was put in its place meanwhile is not followed."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def _socket_path(directory: Path, runtime_dir: Path) -> Path:
    """``store.sock`` in the directory, or where its path is short enough: a private directory named after this one."""
    path = directory / "store.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    return _private(runtime_dir / f"beatd-{os.geteuid()}-{digest}") / "store.sock"
