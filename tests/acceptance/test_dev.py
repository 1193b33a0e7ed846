"""``beatd dev`` as a newcomer uses it: it works within seconds, survives accidents, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_for

Start = Callable[..., Any]

FILE = """
app = "tasks:app"
[redis]
url = "embedded"
[leader]
ttl = "2s"
[beat_schedule.add]
task = "tasks.add"
schedule = 0.5
args = [2, 3]
[beat_schedule.tell-the-time]
task = "beatd.command"
schedule = "2s"
args = ["echo", "hello"]
[beat_schedule.each-hour]
task = "tasks.add"
schedule = "1h"
args = [20, 3]
"""
TASKS = """
import time
from beatd import App
app = App("tasks")

@app.task
def add(x, y):
    return x + y

@app.task
def sleep():
    print("sleeping", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "beat.toml").write_text(FILE)
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


def processes_in(directory: Path) -> dict[int, str]:
    """The processes that still work in this directory, or for it: pid → command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode().replace("\0", " ")
                place = (entry / "cwd").readlink()
            except OSError:
                continue
            if words and place.is_relative_to(directory):
                found[int(entry.name)] = words
    return found


def pid_of(directory: Path, words: str) -> int:
    """The oldest process of the project with these words in its command line."""
    return min(pid for pid, command in processes_in(directory).items() if words in command)


def due_times(text: str) -> list[float]:
    """The times (Unix s) at which runs of ``add`` were due."""
    found = re.findall(r"Dispatched add \(.*due_at=(\S+T\S+)", text)
    return [datetime.fromisoformat(each).timestamp() for each in found]


def start_sleeping(project: Path, start_beatd: Start) -> Any:
    """Start it with a task that sleeps for a minute, and wait until that runs."""
    text = FILE.replace('task = "tasks.add"\nschedule = 0.5\nargs = [2, 3]', 'task = "tasks.sleep"\nschedule = 1.0')
    (project / "beat.toml").write_text(text)
    beatd = start_beatd("dev")
    beatd.expect("sleeping")
    return beatd


def assert_ends(beatd: Any, number: signal.Signals, project: Path) -> None:
    """It ends at that signal, and no process is left."""
    assert beatd.end(number, timeout=30) == 0
    wait_for(lambda: not processes_in(project), 10, "the end of all processes")


def test_tasks_run_within_seconds_and_ctrl_c_leaves_nothing(project: Path, start_beatd: Start) -> None:
    beatd = start_beatd("dev", "--builtin", "command")
    beatd.expect(r"entr(y|ies) in .*; Ctrl-C stops")
    beatd.expect(r"^worker \| .*tasks\.add\S* succeeded.*: 5\b", times=3)
    beatd.expect(r"^worker \| .*beatd\.command\S* succeeded", times=1)
    assert_ends(beatd, signal.SIGINT, project)
    assert "Traceback" not in beatd.text
    ends = [rf"({name} .*stopped|The {name} does not stop)" for name in ("worker", "daemon")]
    assert re.search(rf"{ends[0]}(.|\n)*{ends[1]}(.|\n)*dev.*Embedded store stopped", beatd.text)


@pytest.mark.slow
def test_started_again_it_goes_on_where_it_stopped(project: Path, start_beatd: Start) -> None:
    first = start_beatd("dev")
    first.expect(r"Dispatched add", times=2)
    assert first.end() == 0
    second = start_beatd("dev")
    second.expect(r"Dispatched add", times=3)
    assert second.end() == 0
    before, after = due_times(first.text), due_times(second.text)
    phases = {round(second % 0.5, 3) % 0.5 for second in before + after}
    assert len(phases) == 1, "the grid is where it was first laid"
    assert not set(before) & set(after)
    assert "Dispatched each-hour" not in first.text + second.text


@pytest.mark.slow
def test_a_task_that_takes_long_does_not_hold_up_the_end(project: Path, start_beatd: Start) -> None:
    beatd = start_sleeping(project, start_beatd)
    assert_ends(beatd, signal.SIGTERM, project)


@pytest.mark.slow
def test_a_second_ctrl_c_kills(project: Path, start_beatd: Start) -> None:
    beatd = start_sleeping(project, start_beatd)
    beatd.send(signal.SIGINT)
    beatd.expect("Stopping… press Ctrl-C again to force")
    assert_ends(beatd, signal.SIGINT, project)
    assert beatd.find("The worker does not stop; killing it")
    assert not beatd.find("Cold shutdown"), "without the second signal the worker is told twice before it is killed"


@pytest.mark.slow
def test_children_that_die_are_started_again(project: Path, start_beatd: Start) -> None:
    beatd = start_beatd("dev")
    beatd.expect(r"tasks\.add\S* succeeded")
    for name, words in (("worker", "beatd worker"), ("daemon", "beatd run")):
        succeeded = len(beatd.find(r"tasks\.add\S* succeeded"))
        os.kill(pid_of(project, words), signal.SIGKILL)
        beatd.expect(rf"The {name} was killed \(SIGKILL\); restarting it in 1 s")
        beatd.expect(r"tasks\.add\S* succeeded", times=succeeded + 3)
    assert beatd.end() == 0


@pytest.mark.slow
def test_the_store_may_be_killed_too(project: Path, start_beatd: Start) -> None:
    beatd = start_beatd("dev")
    beatd.expect(r"tasks\.add\S* succeeded")
    os.kill(pid_of(project, "store.sock"), signal.SIGKILL)
    beatd.expect("Embedded store restarted")
    succeeded = len(beatd.find(r"tasks\.add\S* succeeded"))
    beatd.expect(r"tasks\.add\S* succeeded", times=succeeded + 3)
    assert beatd.end() == 0
    wait_for(lambda: not processes_in(project), 10, "the end of all processes")


def test_an_edit_is_in_force_at_once(project: Path, start_beatd: Start) -> None:
    beatd = start_beatd("dev")
    beatd.expect("entries in force")
    (project / "new.toml").write_text(
        FILE + '[beat_schedule.new]\ntask = "tasks.add"\nschedule = 0.1\nargs = [40, 4]\n'
    )
    (project / "new.toml").rename(project / "beat.toml")
    beatd.expect(r"succeeded.*: 44\b")
    (project / "beat.toml").write_text('[beat_schedule.new]\ntask = "tasks.add"\nschedule = "soon"\n')
    beatd.expect(r"beat\.toml:3:1: .*schedule")
    seen = len(beatd.find(r": 44\b"))
    beatd.expect(r": 44\b", times=seen + 5)
    assert beatd.end() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_children_do_not_outlive_a_killed_dev(project: Path, start_beatd: Start, wait_until: Any) -> None:
    beatd = start_beatd("dev")
    beatd.expect(r"tasks\.add\S* succeeded")
    beatd.end(signal.SIGKILL)
    wait_until(lambda: not processes_in(project), 10, "the children's end")


def test_without_a_worker_only_the_daemon_runs(project: Path, start_beatd: Start) -> None:
    beatd = start_beatd("dev", "--no-worker")
    beatd.expect("Dispatched add")
    assert not beatd.find(r"^worker")
    assert beatd.end() == 0


def test_without_a_file_it_tells_how_to_begin(beatd: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = beatd("dev")
    assert done.returncode == 2
    assert "There is no schedule yet" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_app_that_cannot_be_imported_is_the_only_error(
    beatd: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = beatd("dev", "-A", "nowhere")
    assert done.returncode == 2
    assert "no module named 'nowhere'" in done.stderr
    assert "There is no schedule yet" not in done.stderr


def test_a_broken_file_is_told_at_once(project: Path, beatd: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    (project / "beat.toml").write_text('[beat_schedule.a]\nschedule = "61 * * * *"\n')
    done = beatd("dev")
    assert done.returncode == 2
    assert "beat.toml:1:" in done.stderr
    assert "beat.toml:2:" in done.stderr
    assert "Traceback" not in done.stderr
