"""``beatd.command``: run a program."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from typing import IO, Any

from beatd.exceptions import SoftTimeLimitExceeded, TaskError

OUTPUT_MAX = 64 * 1024
"""Bytes of output that are kept: the last ones."""
TAIL = 2_000
"""Characters of output in the error of a command that failed."""
_CHUNK = 8192
_LAST_WORDS_S = 2.0
"""How long output may still come after the program has ended: a grandchild may hold the pipe."""
_TERM_S = 3.0
"""Between SIGTERM and SIGKILL."""


class CommandFailed(TaskError):
    """The program could not be started, ended with an unexpected exit code, or ran out of time."""


def command(
    *argv: str | Sequence[str],
    timeout: float | None = None,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    check: bool = True,
    expect: int | Sequence[int] = 0,
) -> dict[str, Any]:
    """Run a program, without a shell, and return ``{"exit_code", "output", "truncated"}``.

    ``argv`` is the program with its arguments, as a list or one by one. ``timeout`` (seconds): then its whole process
    group is ended, first with SIGTERM and :data:`_TERM_S` seconds later with SIGKILL. ``env`` adds to the worker's
    environment. ``expect`` are the exit codes that count as success; with ``check`` false all do. Standard output and
    error come together in ``output``, the last :data:`OUTPUT_MAX` bytes of it. Raises :class:`CommandFailed`.
    """
    words = _words(argv)
    process = _start(words, cwd, env)
    tail = Tail(process.stdout)
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        _end_group(process)
        raise CommandFailed(f"{words[0]} took longer than {timeout}s and was ended.{_quoted(tail)}") from None
    except (SoftTimeLimitExceeded, SystemExit, KeyboardInterrupt):
        _end_group(process)
        raise
    output, truncated = tail.text()
    accepted = (expect,) if isinstance(expect, int) else tuple(expect)
    if check and code not in accepted:
        raise CommandFailed(f"{words[0]} ended with {_code(code)}.{_quoted(tail)}")
    return {"exit_code": code, "output": output, "truncated": truncated}


class Tail:
    """The end of what a stream says, read in a thread so that a talkative program never blocks on a full pipe."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self._stream = stream
        self._kept = bytearray()
        self._truncated = False
        self._thread = threading.Thread(target=self._read, name="command-output", daemon=True)
        self._thread.start()

    def text(self) -> tuple[str, bool]:
        """The text, and whether its beginning is missing."""
        self._thread.join(_LAST_WORDS_S)
        return bytes(self._kept).decode("utf-8", "replace"), self._truncated

    def _read(self) -> None:
        if self._stream is None:
            return
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(self._stream.fileno(), _CHUNK):
                self._kept += data
                if (excess := len(self._kept) - OUTPUT_MAX) > 0:
                    self._truncated = True
                    del self._kept[:excess]
        self._stream.close()


def _words(argv: Sequence[str | Sequence[str]]) -> list[str]:
    parts: Sequence[Any] = argv[0] if len(argv) == 1 and isinstance(argv[0], list | tuple) else argv
    if not parts or not all(isinstance(part, str) for part in parts):
        raise CommandFailed(f'the command must be a list of strings such as ["date", "-u"], not {parts!r}')
    return [str(part) for part in parts]


def _start(words: list[str], cwd: str | None, env: dict[str, str] | None) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - running what it is told is what this task is for
            words,
            cwd=cwd,
            env=None if env is None else {**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"cannot run {words[0]}: {error.strerror or error}") from None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number, wait in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # whoever of the group outlived the program


def _code(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def _quoted(tail: Tail) -> str:
    text, _ = tail.text()
    text = text.strip()
    return f" The end of its output:\n{text[-TAIL:]}" if text else " It wrote nothing."
