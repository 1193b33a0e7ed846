"""Many command lines in a short time: one process imports beatd and forks for each, so that outputs are those of real
processes without the time that an import takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tests.acceptance.conftest import environment

DRIVER = """
import json, os, signal, sys, time
from importlib import import_module
from beatd.cli import COMMANDS, main
for spec in COMMANDS.values():
    import_module(spec.module)

def child(job):
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    for number in (1, 2):
        os.dup2(os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["beatd", *job["arguments"]]
    sys.exit(main(prog_name="beatd"))

def await_child(pid, within):
    deadline, number = time.monotonic() + within, signal.SIGTERM
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, number)
            deadline, number = time.monotonic() + 10, signal.SIGKILL
        time.sleep(0.005)

for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if not pid:
        child(job)
    print(await_child(pid, job["within"]), flush=True)
"""


class Done(NamedTuple):
    """The end of one command line; ``code`` is negative for a signal."""

    code: int
    output: str


class ForkedCommands:
    """``commands.run("check", "beat.toml")`` in the folder; SIGTERM comes after ``within`` seconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, within: float = 30, **env: str) -> Done:
        self._count += 1
        output = self._folder / f"output-{self._count}"
        job: dict[str, Any] = {"cwd": str(self._folder), "output": str(output), "within": within}
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(json.dumps({**job, "arguments": arguments, "env": env}) + "\n")
        self._driver.stdin.flush()
        code = int(self._driver.stdout.readline())
        return Done(code, output.read_text(errors="replace"))

    def __enter__(self) -> ForkedCommands:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._driver.kill()
        self._driver.communicate()
