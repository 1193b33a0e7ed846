"""Flower as a process, and what its API and pages say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Flower:
    """Answers of the Flower on a port of this host; None while it gives none."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def __call__(self, path: str, *, post: bytes | None = None) -> Any:
        """A document of the API: ``flower("workers", refresh=1)``."""
        text = self.page(f"api/{path}", post=post)
        return None if text is None else json.loads(text)

    def page(self, path: str, *, post: bytes | None = None) -> str | None:
        """The text at a path."""
        try:
            with urllib.request.urlopen(f"{self._url}/{path}", data=post, timeout=30) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            return None


@contextmanager
def flower(directory: Path, broker: str, port: int, config: str | None = None) -> Iterator[Flower]:
    """A Flower that watches a broker, until the block ends; ``config`` is a module with settings of its app."""
    given = ["--config", config] if config else []
    command = [sys.executable, "-W", "ignore", "-m", "celery", "-b", broker, *given, "flower", "--address=127.0.0.1"]
    with (directory / "flower.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--port={port}", "--inspect_timeout=5000"],  # ms; a second would be the default
            cwd=directory,
            stdout=log,
            stderr=log,
            env=os.environ | {"FLOWER_UNAUTHENTICATED_API": "true"},
        )
    try:
        yield Flower(port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
