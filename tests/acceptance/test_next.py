"""``beatd next`` as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

FILE = """
timezone = "Europe/Berlin"

[beat_schedule.nightly]
task = "t.nightly"
schedule = "30 2 * * *"
jitter = "5m"

[beat_schedule.off]
task = "t.off"
schedule = 1
enabled = false
"""

Done = subprocess.CompletedProcess[str]
BeatdNext = Callable[..., Done]
COMMAND = [sys.executable, "-c", "from beatd.cli import main; main(prog_name='beatd')", "next", "--offline"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "beat.toml").write_text(FILE)
    return tmp_path


@pytest.fixture
def beatd_next(beatd: Callable[..., Done]) -> BeatdNext:
    """``beatd_next("-n", "2", cwd=folder)``: ``beatd next`` from the file alone."""
    return partial(beatd, "next", "--offline")


def test_json_has_local_time_utc_and_jitter(folder: Path, beatd_next: BeatdNext) -> None:
    done = beatd_next("nightly", "-n", "2", "--from", "2026-03-28T12:00:00", "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = json.loads(done.stdout)
    assert first["due_at"] == "2026-03-29T01:00:00.000+00:00"
    assert first["due_at_local"] == "2026-03-29T03:00:00.000+02:00"
    assert first["note"] == "moved out of the skipped hour"
    assert first["due_at"] < first["fires_at"] < "2026-03-29T01:05:00.001+00:00"
    assert (second["due_at"], second["note"]) == ("2026-03-30T00:30:00.000+00:00", None)
    assert second["run_id"] != first["run_id"]
    again = beatd_next("nightly", "-n", "2", "--from", "2026-03-28T11:00:00Z", "--json", cwd=folder)
    assert again.stdout == done.stdout


def test_the_table_keeps_one_line_for_each_run_in_a_pipe(folder: Path, beatd_next: BeatdNext) -> None:
    done = beatd_next("--from", "2026-01-01", "-n", "3", cwd=folder)
    assert done.returncode == 0
    header, _rule, *rows = done.stdout.splitlines()
    assert header.split() == ["entry", "due", "(local)", "due", "(UTC)", "jitter"]
    assert [row.split()[:3] for row in rows] == [["nightly", f"2026-01-0{day}", "02:30:00"] for day in (1, 2, 3)]


def test_the_table_fits_80_columns_and_respects_no_color(folder: Path) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm-256color", "NO_COLOR": "1"}
    arguments = [*COMMAND, "--from", "2026-03-28", "-n", "3"]
    with subprocess.Popen(arguments, cwd=folder, env=environment, stdout=slave, stderr=slave) as process:
        os.close(slave)
        said = b""
        while chunk := _read(master):
            said += chunk
        assert process.wait(timeout=60) == 0
    os.close(master)
    lines = said.decode().splitlines()
    assert len(lines) >= 5
    assert max(map(len, lines)) <= 80
    assert b"\x1b" not in said


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way to say that the other end is closed
        return b""


def test_an_entry_that_is_not_enabled(folder: Path, beatd_next: BeatdNext) -> None:
    done = beatd_next("off", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "Not enabled.\n")
    assert json.loads(beatd_next("off", "--json", cwd=folder).stdout) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nighly"], 'there is no entry "nighly"; did you mean nightly?'),
        (["--from", "tomorrow"], "expected a time such as 2026-12-31T23:59:00"),
        (["-n", "0"], "is not in the range"),
        (["--config", "none.toml"], "none.toml: no such file"),
    ],
)
def test_wrong_use(folder: Path, arguments: list[str], said: str, beatd_next: BeatdNext) -> None:
    done = beatd_next(*arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
