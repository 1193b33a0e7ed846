"""A file with the process id of a worker, locked for as long as it lives: a stale one deceives nobody."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beatd.exceptions import ConfigError, Fault


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Own the file until the block ends. Raises ConfigError if a living process has it, or it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="ascii")
    except OSError as error:
        raise ConfigError([Fault(str(path), None, "", f"cannot be written: {error.strerror}")]) from None
    with file:
        if not _lock(file.fileno()):
            file.seek(0)
            raise ConfigError([Fault(str(path), None, "", f"belongs to process {file.read().strip()}, which is alive")])
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
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
        with path.open("r+", encoding="ascii") as file:
            if _lock(file.fileno()):
                return None
            return int(file.read())
    except (OSError, ValueError):
        return None


def _lock(descriptor: int) -> bool:
    """Whether the lock could be had. It is the process's own: a fork does not inherit it, and it ends with it."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except PermissionError:
        return False
    return True
