"""Python processes without the time that imports take: one process has imported beatd, another one Celery, and each
forks for a command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

MODULES = {
    "beatd": "[import_module(spec.module) for spec in import_module('beatd.cli').COMMANDS.values()]",
    "celery": "import celery.apps.worker, celery.backends.redis, celery.backends.rpc, celery.bin.celery, "
    "celery.concurrency.prefork, celery.worker.components, celery.worker.consumer, kombu.transport.pyamqp, "
    "kombu.transport.redis",
}
"""Imports of the server for each make."""

DRIVER = """
import gc, json, os, runpy, select, signal, socket, sys, time
from importlib import import_module
MODULES

def become(job, files):
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    time.tzset()
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), *files)):
        os.dup2(file, number)
    os.closerange(3, 64)
    for number in (signal.SIGCHLD, signal.SIGHUP):  # nohup, under which tests may run, ignores the second
        signal.signal(number, signal.SIG_DFL)
    option, program, *arguments = job["words"]
    sys.orig_argv = [sys.executable, *job["words"]]
    sys.argv = [option, *arguments]
    if option == "-m":
        sys.path[0] = job["cwd"]
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = ""
        exec(program, {"__name__": "__main__"})
    sys.exit()

def serve(connection):
    _, files, _, _ = socket.recv_fds(connection, 1, 2)
    job = json.loads(connection.makefile().readline())
    begins, begun = os.pipe()
    if not (pid := os.fork()):
        os.setsid()
        os.close(begun)
        listener.detach()
        connection.detach()
        become(job, files)
    for file in files:
        os.close(file)
    os.close(begun)
    os.read(begins, 1)  # until it has its session, to which the client may send a signal
    connection.sendall(b"%d\\n" % pid)
    end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    connection.sendall(b"%d\\n" % (end.si_status if end.si_code == os.CLD_EXITED else -end.si_status))
    connection.recv(1)
    os.waitpid(pid, 0)  # not before: nobody else may get this number while the client could send it a signal
    os._exit(0)

gc.freeze()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(64)
print("ready", flush=True)
while True:
    ready, _, _ = select.select([listener, 0], [], [])
    if 0 in ready:
        os._exit(0)
    connection, _ = listener.accept()
    if not os.fork():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        serve(connection)
    connection.close()
"""

_AT_START = ("PYTHON", "LC_", "LANG", "LD_")
"""Beginnings of variables that are read when Python starts."""


def _read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_AT_START)}


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what would change beatd's ways."""
    ours = ("BEATD_", "NO_COLOR", "NOTIFY_SOCKET", "STATE_DIRECTORY")
    return (
        {key: value for key, value in os.environ.items() if not key.startswith(ours)} | {"PYTHONUNBUFFERED": "1"} | more
    )


class Forked:
    """A forked process, with those of ``subprocess.Popen``'s methods that tests use."""

    def __init__(self, words: list[str], connection: socket.socket) -> None:
        self.args = words
        self.returncode: int | None = None
        self._connection = connection
        self._answers = b""
        self.pid = self._answer()

    def poll(self) -> int | None:
        return self._end(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._end(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _end(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._connection.settimeout(timeout)
            with contextlib.suppress(TimeoutError, BlockingIOError):
                self.returncode = self._answer()
                self._connection.close()
        return self.returncode

    def _answer(self) -> int:
        """The next number: the process's, then its exit code."""
        while b"\n" not in self._answers:
            received = self._connection.recv(32)
            assert received, "the fork server has ended"
            self._answers += received
        number, self._answers = self._answers.split(b"\n", 1)
        return int(number)


class ForkServer:
    """A Python that has imported a make's modules, and forks for command lines. Threads may use it at the same time."""

    def __init__(self, make: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="beatd-fork-")
        self._address = f"{self._folder.name}/socket"
        self._driver = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", DRIVER.replace("MODULES", MODULES[make]), self._address],
            env=environment(),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._driver.stdout is not None
        assert self._driver.stdout.readline() == "ready\n", "the fork server has not started"

    def start(self, words: list[str], cwd: Path, env: Mapping[str, str], stdout: int, stderr: int) -> Forked:
        """Start ``python WORDS…`` in a session of its own."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._address)
        job = {"words": words, "cwd": str(cwd), "env": dict(env)}
        socket.send_fds(connection, [b"."], [stdout, stderr])
        connection.sendall(json.dumps(job).encode() + b"\n")
        return Forked(words, connection)

    def close(self) -> None:
        self._driver.kill()
        self._driver.communicate()
        self._folder.cleanup()


_servers: dict[str, ForkServer] = {}
_lock = threading.Lock()


def start_python(
    make: str,
    words: list[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: IO[Any],
    stderr: IO[Any] | None = None,
    python: str = sys.executable,
) -> Forked | subprocess.Popen[bytes]:
    """Start ``python WORDS…`` with these files as its output and nothing to read, in a session of its own.

    It is a fork of the server for ``make``, unless it is another Python or its environment changes how Python starts.
    """
    stderr = stderr or stdout
    if python != sys.executable or _read_at_start(env) != _read_at_start(environment()):
        return subprocess.Popen(
            [python, *words],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    with _lock:
        if make not in _servers:
            _servers[make] = ForkServer(make)
    return _servers[make].start(words, cwd, env, stdout.fileno(), stderr.fileno())


def run_python(
    make: str, words: list[str], *, cwd: Path, env: Mapping[str, str], timeout: float = 60, merged: bool = False
) -> subprocess.CompletedProcess[str]:
    """``python WORDS…`` to its end; ``merged``: standard error is part of standard output.

    After ``timeout`` seconds it gets SIGTERM, and ten seconds later SIGKILL.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as out, tempfile.TemporaryFile("w+", errors="replace") as err:
        process = start_python(make, words, cwd=cwd, env=env, stdout=out, stderr=out if merged else err)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            stop(process)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(words, process.wait(), out.read(), err.read())


def stop(process: Forked | subprocess.Popen[bytes], timeout: float = 10) -> None:
    """Send it SIGTERM, and SIGKILL if it does not end in time."""
    process.terminate()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout)


def kill_session(process: Forked | subprocess.Popen[bytes]) -> None:
    """Kill it and its children, and wait: an orderly end of Celery's worker takes two seconds."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def close_servers() -> None:
    """End the fork servers of this process."""
    for server in _servers.values():
        server.close()
    _servers.clear()
