"""From a bare clone to running tasks with one command, and the units of the service manager."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Terminal:
    """A command in a terminal of its own, in which keys can be pressed."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        self.text = ""
        self.pid, self._screen = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execvp(command[0], command)

    def expect(self, words: str, timeout: float) -> None:
        """Wait until the words are on the screen."""
        deadline = time.monotonic() + timeout
        while words not in self.text:
            assert time.monotonic() < deadline, f"waited {timeout} s in vain for {words!r}:\n{self.text[-4000:]}"
            assert self._read(), f"it ended without {words!r}:\n{self.text[-4000:]}"

    def press_ctrl_c(self) -> None:
        os.write(self._screen, b"\x03")

    def end(self, timeout: float) -> int:
        """Wait for the end; returns the exit code."""
        deadline = time.monotonic() + timeout
        while self._read():
            assert time.monotonic() < deadline, f"it goes on for more than {timeout} s:\n{self.text[-4000:]}"
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        """Take in what is there; False at the end."""
        if not select.select([self._screen], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # Linux says so when the last writer has gone
            return False
        self.text += data.decode("utf-8", "replace")
        return bool(data)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_one_command_in_a_bare_clone_runs_tasks(tmp_path: Path) -> None:
    clone = tmp_path / "beatd"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", clone], check=True, timeout=60)
    terminal = Terminal(["make", "run"], clone)
    terminal.expect("Embedded store started", 400)
    terminal.expect("succeeded in", 60)
    terminal.press_ctrl_c()
    begun = time.monotonic()
    assert terminal.end(10) == 0
    assert time.monotonic() - begun < 5
    again = Terminal(["make", "run"], clone)
    again.expect("Embedded store started", 10)
    assert "Installing" not in again.text
    again.press_ctrl_c()
    assert again.end(10) == 0


@pytest.mark.parametrize("named", [True, False])
def test_make_says_when_python_is_too_old(named: bool, tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    old = tmp_path / "old" / "python3"
    old.parent.mkdir()
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.18\nexit 1\n')
    old.chmod(0o755)
    for newer in ("python3.11", "python3.12", "python3.13"):
        (old.parent / newer).symlink_to(old)
    words = ["make", f"PYTHON={old}"] if named else ["make"]
    path = f"{old.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [*words, ".venv/bin/python"],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert f"beatd needs Python 3.11 or newer; {old if named else 'python3'} is Python 3.9.18." in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.slow
def test_make_says_what_to_do_without_a_package_index(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "packaging").mkdir()
    shutil.copy(ROOT / "packaging" / "requirements.lock", tmp_path / "packaging")
    done = subprocess.run(
        ["make", f"PYTHON={sys.executable}", "run"],
        cwd=tmp_path,
        env=os.environ | {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:1/", "PIP_RETRIES": "0"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode != 0
    assert "The packages could not be installed" in done.stderr
    assert "make PIP_INDEX_URL=" in done.stderr


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("unit", ["beatd.service", "beatd-worker.service"])
def test_systemd_has_nothing_to_say_against_the_units(unit: str, tmp_path: Path) -> None:
    text = (ROOT / "packaging" / "systemd" / unit).read_text()
    (tmp_path / unit).write_text(text.replace("/opt/beatd/bin/beatd", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / unit], capture_output=True, text=True, timeout=60, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "beatd" in line]
    assert ours == []
    assert done.returncode == 0
