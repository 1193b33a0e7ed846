"""``beatd.command``: run a program."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from beatd.exceptions import SoftTimeLimitExceeded, TaskError
from beatd.worker.builtin.environment import surroundings
from beatd.worker.builtin.output import Output
from beatd.worker.builtin.switch import DeadMansSwitch

TAIL = 2_000
"""Characters of output in the error of a command that failed."""
KILL_AFTER_S = 3.0


class CommandFailed(TaskError):
    """The program could not be started, ended with an unexpected exit code, or ran out of time."""


def command(
    *argv: str | Sequence[str],
    shell: bool = False,
    timeout: float | None = None,
    kill_after: float = KILL_AFTER_S,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    inherit_env: bool | Sequence[str] = True,
    user: str | None = None,
    check: bool = True,
    expect: int | Sequence[int] = 0,
    log: bool = True,
) -> dict[str, Any]:
    """Run a program and return ``{"exit_code", "output", "truncated"}``. It has no standard input.

    ``argv`` is the program with its arguments, as a list or one by one; with ``shell`` it is one line for ``/bin/sh``.
    ``timeout`` (seconds): then its whole process group is ended, first with SIGTERM and ``kill_after`` seconds later
    with SIGKILL. It ends, too, when the task's process does. ``env`` adds to the worker's environment, of which
    ``inherit_env`` names what the program gets: all, or these (``*`` stands for anything), or with false only what
    every program needs. ``user``: as whom it runs; the worker must be root for that. ``expect`` are the exit codes that
    count as success; with ``check`` false all do. Standard output and error come together in ``output``, the end of
    them, and with ``log`` line by line in the worker's log. Raises :class:`CommandFailed`.
    """
    words = _words(argv, shell)
    _check_number("timeout", timeout)
    _check_number("kill_after", kill_after)
    accepted = _codes(expect)
    try:
        options = {"cwd": _directory(cwd), **surroundings(env, inherit_env, user)}
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    with DeadMansSwitch() as switch:
        process = _start(words, options)
        switch.guard(process.pid)
        with Output(process.stdout, words[0] if not shell else "sh", log=bool(log)) as output:
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                _end_group(process, kill_after)
                text = f"{words[0]} took longer than {timeout:g}s and was ended.{_quoted(output)}"
                raise CommandFailed(text) from None
            except (SoftTimeLimitExceeded, SystemExit, KeyboardInterrupt):
                _end_group(process, kill_after)
                raise
    if check and code not in accepted:
        raise CommandFailed(f"{words[0]} ended with {_code(code)}.{_quoted(output)}")
    text, truncated = output.end()
    return {"exit_code": code, "output": text, "truncated": truncated}


def _words(argv: Sequence[str | Sequence[str]], shell: bool) -> list[str]:
    parts: Sequence[Any] = argv[0] if len(argv) == 1 and isinstance(argv[0], list | tuple) else argv
    if shell:
        if len(parts) != 1 or not isinstance(parts[0], str) or not parts[0].strip():
            raise CommandFailed(f'with shell the command must be one string such as "a | b", not {parts!r}')
        return ["/bin/sh", "-c", parts[0]]
    if not parts or not all(isinstance(part, str) for part in parts):
        raise CommandFailed(f'the command must be a list of strings such as ["date", "-u"], not {parts!r}')
    return [str(part) for part in parts]


def _check_number(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
        raise CommandFailed(f"{name} must be a number of seconds, not {value!r}")


def _codes(expect: Any) -> tuple[int, ...]:
    codes = (expect,) if isinstance(expect, int) else expect
    if not isinstance(codes, list | tuple) or not all(isinstance(code, int) for code in codes):
        raise CommandFailed(f"expect must be an exit code or a list of them, not {expect!r}")
    return tuple(codes)


def _directory(cwd: Any) -> str | None:
    if cwd is not None and not (isinstance(cwd, str) and os.path.isdir(cwd)):  # noqa: PTH112 - any text may come
        raise ValueError(f"cwd: there is no folder {cwd!r}")
    return cwd or None


def _start(words: list[str], options: dict[str, Any]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - running what it is told is what this task is for
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
    except (OSError, ValueError) as error:
        raise CommandFailed(f"cannot run {words[0]}: {getattr(error, 'strerror', None) or error}") from None


def _end_group(process: subprocess.Popen[bytes], kill_after: float) -> None:
    for number, wait in ((signal.SIGTERM, kill_after), (signal.SIGKILL, None)):
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


def _quoted(output: Output) -> str:
    text = output.end()[0].strip()
    return f" The end of its output:\n{text[-TAIL:]}" if text else " It wrote nothing."
