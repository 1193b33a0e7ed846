"""Many command lines in a short time: one process imports beatd and forks for each, so that outputs are those of real
processes without the time that an import takes."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

DRIVER = """
import gc, json, os, select, signal, socket, sys, time
from importlib import import_module
from beatd.cli import COMMANDS, main
for spec in COMMANDS.values():
    import_module(spec.module)

def become(job):
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    time.tzset()
    for number, path in enumerate((os.devnull, job["stdout"], job["stderr"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    os.closerange(3, 64)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.path[0] = job["cwd"]
    sys.argv = ["beatd", *job["arguments"]]
    main(prog_name="beatd")

def watch(pid, within):
    deadline, number = time.monotonic() + within, signal.SIGTERM
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, number)
            deadline, number = time.monotonic() + 10, signal.SIGKILL
        time.sleep(0.005)

def serve(connection):
    job = json.loads(connection.makefile().readline())
    pid = os.fork()
    if not pid:
        become(job)
        os._exit(70)  # main exits
    connection.sendall(b"%d" % watch(pid, job["within"]))
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
        sys.exit()
    connection, _ = listener.accept()
    if not os.fork():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        serve(connection)
    connection.close()
"""

_AT_START = ("PYTHON", "LC_", "LANG")
"""Beginnings of variables that Python reads when it starts."""


def read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that change how Python starts: a process that has others needs a start of its own."""
    return {name: value for name, value in env.items() if name.startswith(_AT_START)}


class ForkServer:
    """``server.run("check", "beat.toml", cwd=…, env=…)``: a command line in a process of its own, a fork of the server.

    Threads may call it at the same time.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self.at_start = read_at_start(env)
        self._folder = tempfile.TemporaryDirectory(prefix="beatd-fork-")
        self._address = f"{self._folder.name}/socket"
        self._driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, self._address],
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._driver.stdout is not None
        assert self._driver.stdout.readline() == "ready\n", "the fork server has not started"

    def run(
        self, *arguments: str, cwd: Path, env: Mapping[str, str], within: float = 60, merged: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line to its end; ``merged``: standard error is part of standard output.

        After ``within`` seconds it gets SIGTERM, and ten seconds later SIGKILL.
        """
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder, socket.socket(socket.AF_UNIX) as connection:
            out, err = Path(folder, "stdout"), Path(folder, "stdout" if merged else "stderr")
            files = {"stdout": str(out), "stderr": str(err)}
            job = {"arguments": arguments, "cwd": str(cwd), "env": dict(env), "within": within, **files}
            connection.connect(self._address)
            connection.sendall(json.dumps(job).encode() + b"\n")
            code = int(connection.makefile().read())
            stdout, stderr = (path.read_text(errors="replace") for path in (out, err))
            return subprocess.CompletedProcess(arguments, code, stdout, "" if merged else stderr)

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._driver.send_signal(signal.SIGKILL)
        self._driver.communicate()
        self._folder.cleanup()
