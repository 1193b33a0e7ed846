"""``beatd top`` in a real terminal: a pseudo-terminal, read by a terminal emulator; real store, daemon and worker."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pyte
import pytest

from beatd.client import Schedules
from tests.forked import environment

CONFIG = """
app = "proj:app"
[redis]
url = "{url}"
[leader]
ttl = "10s"
"""
ENTRY = '[beat_schedule.{name}]\ntask = "{task}"\nschedule = "@yearly"\ntags = ["{task}"]\n'
APP = """
import time
from beatd import App

app = App("proj")


@app.task(name="fails")
def fails():
    raise ValueError("no rows")


@app.task(name="long")
def long():
    time.sleep(600)


@app.task(name="works")
def works():
    return 1
"""


class Terminal:
    """A command in a pseudo-terminal of some size."""

    def __init__(self, *arguments: str, cwd: Path, columns: int = 80, lines: int = 24) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.seen = b""
        self._master, self._slave = pty.openpty()
        self._size(columns, lines)
        self.before = termios.tcgetattr(self._slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "beatd", *arguments],
            cwd=cwd,
            env=environment(TERM="xterm-256color", LANG="C.UTF-8"),
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
        )
        self._lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:
                return
            with self._lock:
                self.seen += data
                self._stream.feed(data)

    @property
    def text(self) -> str:
        with self._lock:
            return "\n".join(line.rstrip() for line in self.screen.display)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        with self._lock:
            self.screen.resize(lines, columns)
        self._size(columns, lines)
        os.kill(self.process.pid, signal.SIGWINCH)

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def is_restored(self) -> bool:
        return termios.tcgetattr(self._slave) == self.before and b"\x1b[?1049l" in self.seen

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self._slave)
        os.close(self._master)


@pytest.fixture
def file(tmp_path, redis_url):
    (tmp_path / "proj.py").write_text(APP)
    path = tmp_path / "beat.toml"
    entries = [ENTRY.format(name=name, task=name) for name in ("fails", "long", "works")]
    entries += [ENTRY.format(name=f"many-{number:03}", task="works") for number in range(300)]
    path.write_text(CONFIG.format(url=redis_url) + "".join(entries))
    return path


@pytest.fixture
def top(file, tmp_path, wait_until):
    terminals = []

    def start(**size):
        terminals.append(Terminal("top", cwd=tmp_path, **size))
        terminal = terminals[-1]

        def expect(*texts, absent=()):
            def is_there():
                shown = terminal.text
                return all(text in shown for text in texts) and not any(text in shown for text in absent)

            try:
                wait_until(is_there, 40, f"{texts} on the screen")
            except BaseException:
                print(terminal.text)
                raise

        terminal.expect = expect
        return terminal

    yield start
    for each in terminals:
        each.close()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_operator_sees_and_acts(top, start_beatd, beatd, file, redis_url, wait_until):
    start_beatd("run").expect("entries in force")
    start_beatd("worker", "--config", str(file), "-c", "2").expect("ready")
    with Schedules(redis_url) as schedules:
        schedules.trigger("fails")
    wait_until(lambda: json.loads(beatd("list", "--failed", "--json").stdout)["entries"], 40, "the failure")
    screen = top()
    screen.expect("1 Entries (303, 1 failing)", "leads, 1 daemon alive", "! entry fails failed once", "ValueError")
    rows = [line for line in screen.text.splitlines() if line.startswith(("fails ", "long ", "works ", "many-"))]
    assert rows[0].startswith("fails")
    screen.press("/long")
    screen.expect("1 of 1", "/long", absent=["many-"])
    screen.press("\rr")
    screen.expect("y or n: Run long now?")
    screen.press("n")
    screen.expect("Nothing was changed")
    screen.press("ry")
    screen.expect("Sent run", "running")
    screen.press("p")
    screen.expect("Pause long; for how long")
    screen.press("2x\r")
    screen.expect("2x")
    screen.press("\x7f\x7f2h migration\r")
    screen.expect("Paused long until", "paused")
    [paused] = json.loads(beatd("list", "--paused", "--json").stdout)["entries"]
    assert (paused["name"], paused["paused"]["reason"]) == ("long", "migration")
    screen.press("uy")
    screen.expect("Resumed long")
    screen.press("2")
    screen.expect("[2 Runs]", "long", "running")
    screen.press("sy")
    screen.expect("Told the workers to end run", "revoked")
    screen.press("3")
    screen.expect("prefork", "celery")
    screen.press("4")
    screen.expect("[4 Queues]", "celery")
    screen.press("?")
    screen.expect("pause the selected entry")
    screen.press("xq")
    assert screen.process.wait(20) == 0
    wait_until(screen.is_restored, 10, "the terminal to be as before")
    actions = {one["action"] for one in json.loads(beatd("audit", "--json").stdout)["changes"]}
    assert {"trigger", "pause", "resume", "stop-run"} <= actions


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_sizes_a_store_that_is_away_and_the_end(top, redis_server, wait_until):
    screen = top(columns=120, lines=40)
    screen.expect("1 Entries (303)", "nobody leads", "many-030")
    assert all(len(line) <= 120 for line in screen.text.splitlines())
    screen.resize(80, 24)
    screen.expect("q quit", "many-005", absent=["many-030"])
    screen.press("G")
    screen.expect("303 of 303", "works")
    screen.press("g")
    screen.expect("1 of 303", "fails")
    screen.resize(30, 5)
    screen.expect("40 x 10 needed")
    screen.resize(80, 24)
    screen.expect("1 of 303")
    redis_server.kill()
    screen.expect("The store is away since", "fails")
    redis_server.start()
    screen.expect("1 Entries (303)", absent=["The store is away"])
    screen.process.send_signal(signal.SIGTERM)
    assert screen.process.wait(20) == 128 + signal.SIGTERM
    wait_until(screen.is_restored, 10, "the terminal to be as before")


def test_without_a_terminal_it_says_what_to_use(beatd, file):
    done = beatd("top")
    assert (done.returncode, done.stdout) == (2, "")
    assert "top needs a terminal" in done.stderr
