"""Commands in a terminal of 80 columns, with long names: tables fit, and no name is cut apart from its line."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from beatd.cli.output import cell_len
from tests.forked import environment

ENTRY = "the-monthly-report-of-the-european-subsidiaries-number"
QUEUE = "invoices-of-the-european-customers"
CONFIG = """
app = "proj:app"
[redis]
url = "{url}"
[beat_schedule.{entry}-1]
task = "proj.reports.monthly.of_the_european_subsidiaries"
schedule = "*/5 8-18 * * mon-fri"
queue = "{queue}"
args = ["a long argument of this entry", "and another one, no less long than the first"]
[beat_schedule.{entry}-2]
task = "proj.reports.monthly.of_the_european_subsidiaries"
schedule = "@yearly"
"""
APP = """
from beatd import App
app = App("proj", broker="{url}")
@app.task(name="proj.reports.monthly.of_the_european_subsidiaries")
def monthly(*args):
    raise ValueError("no rows of the subsidiary, which is a long reason that takes more than eighty columns of a line")
"""
COMMANDS = (
    "status",
    "list",
    f"describe {ENTRY}-1",
    f"history {ENTRY}-2",
    "next -n 5",
    f"why {ENTRY}-1 now",
    "simulate --until +1d",
    "check",
    "doctor",
    "inspect active_queues -A proj -t 2",
    "inspect ping -A proj -t 2",
    "inspect --list",
    "list bindings",
    "dead-letters list",
)


def shown(words, cwd):
    """Return the lines of a command in a terminal of 80 columns."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = environment(NO_COLOR="1", TERM="xterm", LANG="C.UTF-8")
    command = [sys.executable, "-m", "beatd", *words.split()]
    with subprocess.Popen(command, stdin=there, stdout=there, stderr=there, cwd=cwd, env=env) as process:
        os.close(there)
        text = b""
        while True:
            try:
                data = os.read(here, 65_536)
            except OSError:  # the command has ended
                break
            text += data
        process.wait(60)
    os.close(here)
    return text.decode().splitlines()


@pytest.fixture
def place(tmp_path, redis_url, start_beatd, beatd, wait_until):
    """A fleet with long names, whose entries have failed."""
    (tmp_path / "proj.py").write_text(APP.format(url=redis_url))
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=redis_url, entry=ENTRY, queue=QUEUE))
    start_beatd("run").expect("in force", timeout=30)
    name = "the-worker-of-the-reports@a-host-with-a-rather-long-name.example"
    start_beatd("worker", "--config", "beat.toml", "-P", "solo", "-n", name, "-Q", f"celery,{QUEUE}").expect(
        "ready", timeout=30
    )
    assert beatd("trigger", f"{ENTRY}-2").returncode == 0
    wait_until(lambda: "failure" in beatd("history").stdout, 20, "the failure")
    return tmp_path


@pytest.mark.slow
def test_no_line_is_wider_than_80_columns(place):
    wide = []
    for words in COMMANDS:
        lines = shown(words, place)
        assert lines, words
        lines = [line for line in lines if not line.startswith("args = ")]  # TOML, to be copied
        wide += [f"{words}: {line}" for line in lines if cell_len(line) > 80 and len(line.split()) > 1]
    assert not wide, "\n".join(wide)
