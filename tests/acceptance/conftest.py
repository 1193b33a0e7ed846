"""Real command lines as a user types them: ``beatd(…)`` runs one to its end, ``start_beatd(…)`` lets one run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import missing, needed
from tests.forked import environment, run_python, start_python

WaitUntil = Callable[..., Any]


class Running:
    """A beatd that runs: what it has written so far, and ways to end it."""

    def __init__(self, arguments: tuple[str, ...], cwd: Path, env: dict[str, str], wait_until: WaitUntil) -> None:
        self._wait_until = wait_until
        self.lines: list[str] = []
        reader, writer = os.pipe()
        with os.fdopen(writer, "wb") as output:
            self.process = start_python(
                "beatd", ["-m", "beatd", *arguments], cwd=cwd, env=environment(**env), stdout=output
            )
        self._output = os.fdopen(reader)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._output:
            for line in self._output:
                self.lines.append(line.rstrip("\n"))

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        """Everything that it has written."""
        return "\n".join(self.lines)

    def find(self, pattern: str) -> list[re.Match[str]]:
        """All lines so far in which the regular expression is found."""
        return [match for line in list(self.lines) if (match := re.search(pattern, line))]

    def expect(self, pattern: str, *, times: int = 1, timeout: float = 30) -> list[re.Match[str]]:
        """Wait until so many lines match; returns their matches."""

        def enough() -> list[re.Match[str]]:
            found = self.find(pattern)
            return found if len(found) >= times else []

        try:
            return list(self._wait_until(enough, timeout, f"{times} × {pattern!r}"))
        except BaseException:
            print(self.text)
            raise

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGINT, timeout: float = 20) -> int:
        """Send the signal and wait for the end; returns the exit code."""
        self.send(number)
        return self.wait(timeout)

    def wait(self, timeout: float = 20) -> int:
        """Wait for the end; returns the exit code."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            print(self.text)
            raise
        self._reader.join(5)
        return code

    def close(self) -> None:
        """Kill it if it still runs."""
        if self.process.poll() is None:
            self.send(signal.SIGTERM)
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self.process.wait(5)
        self._reader.join(5)


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the shared server that reads text."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the shared server that reads bytes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def browser() -> Iterator[Any]:
    """A browser, by playwright."""
    sync_api = needed("playwright.sync_api")
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    if binary is None:
        missing("chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def start_beatd(tmp_path: Path, wait_until: WaitUntil) -> Iterator[Callable[..., Running]]:
    """``start_beatd("dev", "--config", "beat.toml")`` in the test's own directory; ended with the test."""
    running: list[Running] = []

    def start(*arguments: str, cwd: Path = tmp_path, **env: str) -> Running:
        running.append(Running(arguments, cwd, env, wait_until))
        return running[-1]

    yield start
    for each in running:
        each.close()


@pytest.fixture
def beatd(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``beatd("check", "beat.toml")`` runs it to its end, within 60 s, in the test's own directory."""

    def run(*words: str | Path, cwd: Path = tmp_path, **more: str) -> subprocess.CompletedProcess[str]:
        return run_python("beatd", ["-m", "beatd", *map(str, words)], cwd=cwd, env=environment(**more))

    return run
