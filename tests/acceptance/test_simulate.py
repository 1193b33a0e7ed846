"""``beatd simulate`` as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

Beatd = Callable[..., "subprocess.CompletedProcess[str]"]

FILE = """
timezone = "Europe/Berlin"

[beat_schedule.nightly]
task = "t.nightly"
schedule = "30 2 * * *"

[beat_schedule.often]
task = "t.often"
schedule = "*/10 * * * *"
blackout = "22:00-06:00"
max_runtime = "15m"

[beat_schedule.interval]
task = "t.interval"
schedule = "1h"
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path) -> None:
    (tmp_path / "beat.toml").write_text(FILE)


def test_text(beatd: Beatd) -> None:
    done = beatd("simulate", "--from", "2026-03-29", "--to", "2026-03-30")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("2026-03-29 00:00:00 to 2026-03-30 00:00:00 Europe/Berlin: ")
    assert "runs of 3 entries, 42 more not sent" in lines[0]
    assert max(map(len, lines[:40])) <= 120
    assert any(line.split() == ["often", "96", "42", "blackout", "95"] for line in lines)
    assert any(line.split() == ["nightly", "1", "1"] for line in lines)
    assert 'often: 95, first at 2026-03-29 06:10:00 CEST; max_runtime 15m, overlap = "allow"' in done.stdout
    assert done.stdout.count("note: intervals without an anchor count from the start of the window") == 1


def test_json_and_svg(beatd: Beatd, tmp_path: Path) -> None:
    done = beatd("simulate", "--from", "2026-03-29", "--to", "+1d", "--json", "--svg", "chart.svg")
    said = json.loads(done.stdout)
    assert (said["from"], said["to"]) == ("2026-03-28T23:00:00.000+00:00", "2026-03-29T23:00:00.000+00:00")
    assert {each["entry"]: each["runs"] for each in said["entries"]} == {"interval": 23, "nightly": 1, "often": 96}
    assert sum(said["columns"]["runs"]) == said["runs"] == 120
    assert said["busiest"][0]["entries"] == {"interval": 1, "nightly": 1}
    assert ElementTree.parse(tmp_path / "chart.svg").getroot().tag.endswith("svg")


def test_every_run_with_its_marks(beatd: Beatd) -> None:
    arguments = ("simulate", "--runs", "--from", "2026-03-29 02:00", "--to", "+7h", "--entry")
    assert beatd(*arguments, "nightly").stdout == ("2026-03-29 03:00:00 CEST  nightly  moved out of the skipped hour\n")
    runs = [json.loads(line) for line in beatd(*arguments, "often", "--json").stdout.splitlines()]
    assert [run["skip"] for run in runs] == ["blackout"] * 18 + [None] * 24


def test_a_year_shows_a_bar_in_a_terminal_and_only_there(beatd: Beatd, tmp_path: Path) -> None:
    arguments = ["simulate", "--from", "2026-01-01", "--to", "2027-01-01"]
    assert beatd(*arguments).stderr == ""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "beatd", *arguments],
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        stdout=subprocess.DEVNULL,
        stderr=slave,
    ) as process:
        os.close(slave)
        said = b""
        while chunk := _read(master):
            said += chunk
        assert process.wait(60) == 0
    os.close(master)
    assert b"simulating" in said


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way to say that the other end is closed
        return b""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "2026-01-02", "--to", "2026-01-01"], "--to is not later than --from"),
        (
            ["--from", "someday"],
            '"someday": expected a time such as 2026-12-31T23:59:00 or 23:59 (today), a date, "now"',
        ),
        (["--to", "+1y"], '"1y": "y" is not a unit of time'),
        (["--entry", "nigtly"], 'there is no entry "nigtly"; did you mean nightly?'),
        (["--to", "+3650d", "--limit", "1000"], "the window holds at least 87,600 runs (87,600 of interval)"),
        (["--svg", "no/such/folder.svg"], "No such file or directory"),
        (["--svg", "beat.toml"], "beat.toml is there already and is no SVG file; name another file"),
    ],
)
def test_wrong_use(beatd: Beatd, arguments: list[str], said: str) -> None:
    done = beatd("simulate", *arguments)
    assert (done.returncode in {1, 2}, done.stdout) == (True, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
