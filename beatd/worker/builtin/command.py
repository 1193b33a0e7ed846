"""``beatd.command``: run a program, in a given environment and as a given user, its output bounded.

A program that a task has started does not outlive the task's process (dead man's switch). A hard time limit, a crash or
a shutdown kills that process without a chance to clean up. So a shell waits beside the program at a pipe that only this
process holds; when it is gone, the pipe ends, and the shell kills the program's group.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any

from beatd.config.environment import inherited
from beatd.exceptions import SoftTimeLimitExceeded, TaskError


def _process_options(env: Mapping[str, str] | None, inherit: bool | Sequence[str], user: str | None) -> dict[str, Any]:
    """Return arguments for ``subprocess.Popen``: the environment, and the user's id, groups and home.

    Raises ``ValueError`` for what is impossible.
    """
    found = _environment(env, inherit)
    if (one := _user(user)) is None:
        return {"env": found}
    own = {"HOME": one.pw_dir, "USER": one.pw_name, "LOGNAME": one.pw_name}
    groups = os.getgrouplist(one.pw_name, one.pw_gid)
    return {"env": {**found, **own, **(env or {})}, "user": one.pw_uid, "group": one.pw_gid, "extra_groups": groups}


def _environment(env: Mapping[str, str] | None, inherit: bool | Sequence[str]) -> dict[str, str]:
    if not isinstance(inherit, bool) and not (
        isinstance(inherit, list | tuple) and all(isinstance(name, str) for name in inherit)
    ):
        raise ValueError(f"inherit_env must be true, false or a list of names, not {inherit!r}")
    found = inherited(inherit)
    if env is not None and not isinstance(env, Mapping):
        raise ValueError(f"env must be a table of names and values, not {env!r}")
    for name, value in (env or {}).items():
        if not isinstance(value, str | int | float):
            raise ValueError(f"env: the value of {name} must be a string, not {value!r}")  # noqa: TRY004 - as the others
        found[str(name)] = str(value)
    return found


def _user(name: str | None) -> pwd.struct_passwd | None:
    """Return the user to change to; None for no change."""
    if name is None:
        return None
    try:
        user = pwd.getpwnam(name)
    except (KeyError, TypeError):
        raise ValueError(f"user: there is no {name!r} on this machine") from None
    if user.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise ValueError(f"user: only a worker that runs as root can run programs as {name!r}")
    return user


log = logging.getLogger("beatd.worker.builtin.output")

OUTPUT_MAX = 64 * 1024
"""Bytes of output that are kept: the last ones."""
LINES_MAX = 1_000
"""Lines of one program in the log: the first ones."""
_LINE_MAX = 2_000
_CHUNK = 8192
_LAST_WORDS_S = 2.0
"""How long output may still come after the program has ended: a grandchild may hold the pipe."""


class Output:
    """The output of ``program``, read in a thread so that a talkative one never blocks on a full pipe."""

    def __init__(
        self, stream: IO[bytes] | None, program: str, *, log: bool, last_words_s: float = _LAST_WORDS_S
    ) -> None:
        self._last_words_s = last_words_s
        self._stream = stream
        self._program = program
        self._kept = bytearray()
        self._truncated = False
        self._logs = log
        self._lines = 0
        self._rest = b""
        self._wake_read, self._wake_write = os.pipe()
        self._ended = False
        self._late = 0
        """Bytes that were read after the end."""
        self._thread = threading.Thread(target=self._read, name="command-output", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            os.close(self._wake_read)
            os.close(self._wake_write)
            raise

    def end(self) -> tuple[str, bool]:
        """Return the last :data:`OUTPUT_MAX` bytes as text, and true if the beginning is missing.

        A child that the program left behind may hold the pipe: it is not waited for longer than two seconds, and what
        it writes later finds no reader.
        """
        if not self._ended:
            self._ended = True
            self._thread.join(self._last_words_s)
            os.write(self._wake_write, b"!")
            self._thread.join()
            os.close(self._wake_read)
            os.close(self._wake_write)
        return bytes(self._kept).decode("utf-8", "replace"), self._truncated

    def _read(self) -> None:
        if self._stream is None:
            return
        with contextlib.suppress(OSError, ValueError):
            while self._readable() and (data := os.read(self._stream.fileno(), _CHUNK)):
                self._keep(data)
                self._log(data)
                self._late += len(data) if self._ended else 0
        if self._rest:
            self._log(b"\n")
        if self._lines > LINES_MAX:
            self._say(f"… {self._lines - LINES_MAX:,} lines more")
        self._stream.close()

    def _readable(self) -> bool:
        """Wait for output; false when there is none after the end of the reader.

        What had come by then is read all the same, a pipe full of it: the thread may have had no time to read it.
        """
        assert self._stream is not None  # noqa: S101 - the caller reads it
        poller = select.poll()
        poller.register(self._stream.fileno(), select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll()}
        return self._stream.fileno() in ready and (self._wake_read not in ready or self._late < OUTPUT_MAX)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _keep(self, data: bytes) -> None:
        self._kept += data
        if (excess := len(self._kept) - OUTPUT_MAX) > 0:
            self._truncated = True
            del self._kept[:excess]

    def _log(self, data: bytes) -> None:
        if not self._logs:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_LINE_MAX:]
        for line in lines:
            self._lines += 1
            if self._lines <= LINES_MAX:
                self._say(line[:_LINE_MAX].decode("utf-8", "replace").rstrip())

    def _say(self, line: str) -> None:
        log.info("%s: %s", self._program, line, extra={"event": "command_output", "program": self._program})


_WAIT_AND_KILL = 'read -r group || exit 0; read -r _; kill -KILL "-$group" 2>/dev/null'


class DeadMansSwitch:
    """Dead man's switch for one process group, see :meth:`guard`, until the block ends.

    Enter it before the program is started: to start the shell takes longer than it may be unguarded.
    """

    def __init__(self) -> None:
        self._shell: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DeadMansSwitch:
        with contextlib.suppress(OSError):  # a program that is not guarded is better than none
            self._shell = subprocess.Popen(  # noqa: S603 - a text of our own
                ["/bin/sh", "-c", _WAIT_AND_KILL],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                bufsize=0,
            )
        return self

    def guard(self, group: int) -> None:
        """Kill the group when this process ends."""
        if self._shell is not None and self._shell.stdin is not None:
            with contextlib.suppress(OSError):
                self._shell.stdin.write(b"%d\n" % group)

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._shell is not None:
            self._shell.kill()  # before the pipe ends
            self._shell.wait()
            if self._shell.stdin is not None:
                self._shell.stdin.close()


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
        options = {"cwd": _directory(cwd), **_process_options(env, inherit_env, user)}
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    with DeadMansSwitch() as switch:
        process = _start(words, options)
        switch.guard(process.pid)
        try:
            output = Output(process.stdout, words[0] if not shell else "sh", log=bool(log))
        except BaseException:  # the system may have no file or thread left for it
            _kill_group(process)
            if process.stdout is not None:
                process.stdout.close()
            raise
        with output:
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                _end_group(process, kill_after)
                text = f"{words[0]} took longer than {timeout:g}s and was ended.{_quoted(output)}"
                raise CommandFailed(text) from None
            except (SoftTimeLimitExceeded, SystemExit, KeyboardInterrupt):
                _end_group(process, kill_after)
                raise
            except BaseException:  # the hard limit or a cold shutdown, in the solo pool: there is no time left
                _kill_group(process)
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


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end_group(process: subprocess.Popen[bytes], kill_after: float) -> None:
    try:
        with contextlib.suppress(ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(kill_after)
    finally:  # also members of the group that outlived the program, and when a hard limit ends the wait
        _kill_group(process)


def _code(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def _quoted(output: Output) -> str:
    text = output.end()[0].strip()
    return f" The end of its output:\n{text[-TAIL:]}" if text else " It wrote nothing."
