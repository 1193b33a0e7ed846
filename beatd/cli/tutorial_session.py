"""A folder in which a page is followed: its files are written, its commands run, its background processes ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from beatd.cli.tutorial_page import ShellCommand, TextFile, missing
from beatd.clock import monotonic, sleep

WAIT_S = 60.0
"""Seconds until the output of a command must be there."""
_PAUSE_S = 0.2
_END_S = 30.0
"""Seconds for a process in the background to end; beatd dev may need 5 for its children and 7 for the store."""


class Unexpected(Exception):
    """A command did not do what the page says."""


class TutorialSession:
    """Follow pages in a folder.

    Use it as a context manager: at the end the processes in the background are stopped, the last started first.
    """

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None, *, wait_s: float = WAIT_S) -> None:
        self.folder = folder
        self._env = dict(os.environ if env is None else env)
        self._env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), self._env.get("PATH", os.defpath)])
        self._env |= {"PYTHONUNBUFFERED": "1", "COLUMNS": "100"}
        self._wait_s = wait_s
        self._background: list[tuple[subprocess.Popen[bytes], Path]] = []

    def __enter__(self) -> TutorialSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process, _ in reversed(self._background):
            _end(process)

    def write(self, file: TextFile) -> None:
        """Write a file of the page."""
        path = self.folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")

    def run(self, command: ShellCommand) -> str:
        """Run a command as the page says, and return its output. Raises Unexpected."""
        if command.how == "background":
            return self._start(command)
        deadline = monotonic() + self._wait_s
        while True:
            output, code = self._once(command)
            lacks = missing(command.output, output)
            if lacks is None and code == command.exit_code:
                return output
            if command.how != "repeat" or monotonic() > deadline:
                why = f"{lacks!r} is not in its output" if lacks is not None else f"its exit code is {code}"
                raise Unexpected(f"$ {command.line}\n{output.rstrip()}\n\n{why}{self._logs()}")
            sleep(_PAUSE_S)

    def _once(self, command: ShellCommand) -> tuple[str, int]:
        with self._popen(command, subprocess.PIPE) as process:
            try:
                output, _ = process.communicate(timeout=self._wait_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise Unexpected(f"$ {command.line}\nstill runs after {self._wait_s:g} s") from None
            return output.decode(errors="replace"), process.returncode

    def _popen(self, command: ShellCommand, output: int | IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - the line is one of a page
            ["/bin/sh", "-c", command.line],
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _start(self, command: ShellCommand) -> str:
        log = self.folder / f".output-{len(self._background) + 1}"
        with log.open("wb") as out:
            process = self._popen(command, out)
        self._background.append((process, log))
        deadline = monotonic() + self._wait_s
        while (lacks := missing(command.output, output := log.read_text(errors="replace"), ordered=False)) is not None:
            if process.poll() is not None or monotonic() > deadline:
                raise Unexpected(f"$ {command.line}\n{output.rstrip()}\n\n{lacks!r} is not in its output")
            sleep(_PAUSE_S)
        return output

    def _logs(self) -> str:
        """Return the ends of what runs in the background, for an error."""
        ends = (log.read_text(errors="replace")[-3000:] for _, log in self._background)
        return "".join(f"\n\nIn the background:\n{end}" for end in ends)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, and kill what it leaves behind."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
