"""Real Celery beside beatd: its command line as a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import missing
from tests.forked import environment, kill_session, start_python, stop


def older_python(version: str) -> str:
    """The interpreter of an environment with Celery 4.4 or 5.2, as ``make older`` installs it."""
    path = Path(sys.prefix, "older", version, "bin", "python")
    if not path.exists():
        missing(f"Celery {version} (make older)")
    return str(path)


class CeleryProcess:
    """``celery -A APP ARGUMENTS…`` in a directory, which also gets ``celery.log``."""

    def __init__(self, directory: Path, *arguments: str, app: str = "proj", python: str = sys.executable) -> None:
        self.log = directory / "celery.log"
        words = ["-m", "celery", "-A", app, *arguments]
        with self.log.open("ab") as log:
            self.process = start_python("celery", words, cwd=directory, env=environment(), stdout=log, python=python)

    @property
    def text(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def terminate(self) -> None:
        """Ask it to end, and wait."""
        stop(self.process)


class Celeries:
    """``start("worker", "-Q", "a", …)``: processes with the app in ``directory``."""

    def __init__(self, directory: Path, python: str) -> None:
        self.directory = directory
        self.python = python
        self.running: list[CeleryProcess] = []

    def __call__(self, *arguments: str, directory: Path | None = None, app: str = "proj") -> CeleryProcess:
        self.running.append(CeleryProcess(directory or self.directory, *arguments, app=app, python=self.python))
        return self.running[-1]

    def worker(self, *arguments: str, **where: Any) -> CeleryProcess:
        """A worker without what would only take time."""
        quick = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        return self("worker", *quick, *arguments, **where)


@contextmanager
def celeries(directory: Path, python: str = sys.executable) -> Iterator[Celeries]:
    """Celery processes that end with the block."""
    started = Celeries(directory, python)
    try:
        yield started
    finally:
        for each in started.running:
            kill_session(each.process)
