"""Pid files: each is locked for as long as its process lives, so a stale one deceives nobody."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beatd.exceptions import ConfigError, Fault

_SIZE_MAX = 32
_OWN = re.compile(rb"([0-9]+\n?)?")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the file until the block ends. Raises ConfigError if a living process has it, or it cannot be written."""
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
    """The process that has locked the file; ``None`` if none has, whatever is written in it."""
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
