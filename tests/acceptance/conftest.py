"""Real command lines as a user types them: ``beatd(…)`` runs one to its end, ``start_beatd(…)`` lets one run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.acceptance.forked import ForkServer, read_at_start
from tests.conftest import missing

WaitUntil = Callable[..., Any]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what would change beatd's ways."""
    ours = ("BEATD_", "NO_COLOR", "NOTIFY_SOCKET", "STATE_DIRECTORY")
    return (
        {key: value for key, value in os.environ.items() if not key.startswith(ours)} | {"PYTHONUNBUFFERED": "1"} | more
    )


class Running:
    """A beatd that runs: what it has written so far, and ways to end it."""

    def __init__(self, arguments: tuple[str, ...], cwd: Path, env: dict[str, str], wait_until: WaitUntil) -> None:
        self._wait_until = wait_until
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "beatd", *arguments],
            cwd=cwd,
            env=environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
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

    def expect(self, pattern: str, *, times: int = 1, timeout: float = 15) -> list[re.Match[str]]:
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

    def end(self, number: signal.Signals = signal.SIGINT, timeout: float = 10) -> int:
        """Send the signal and wait for the end; returns the exit code."""
        self.send(number)
        return self.wait(timeout)

    def wait(self, timeout: float = 10) -> int:
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
def browser() -> Iterator[Any]:
    """A browser, by playwright."""
    sync_api = pytest.importorskip("playwright.sync_api")
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


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """The process that forks for each command line of this test run."""
    with ForkServer(environment()) as server:
        yield server


@pytest.fixture
def beatd(tmp_path: Path, fork_server: ForkServer) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``beatd("check", "beat.toml")`` runs it to its end, within 60 s, in the test's own directory.

    It is a fork of a process that has imported beatd, unless the environment changes how Python starts.
    """

    def run(*words: str | Path, cwd: Path = tmp_path, **more: str) -> subprocess.CompletedProcess[str]:
        arguments, env = list(map(str, words)), environment(**more)
        if read_at_start(env) == fork_server.at_start:
            return fork_server.run(*arguments, cwd=cwd, env=env)
        command = [sys.executable, "-m", "beatd", *arguments]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)

    return run
