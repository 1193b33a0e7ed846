"""Signals without a meaning, storms of signals and limits of the system: said in a sentence, and no run is missed."""

import signal
import subprocess
import sys

import httpx
import pytest

from beatd import App
from beatd.process_signals import UNUSED

CONFIG = """
[redis]
url = "{url}"
[beat_schedule.tick]
task = "beatd.command"
schedule = 0.2
args = ["true"]
"""


@pytest.fixture(autouse=True)
def file(tmp_path, redis_url):
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=redis_url))


COMMANDS = {
    "daemon": (("run",), "Dispatched tick", "beatd stopped"),
    "worker": (("worker", "--config", "beat.toml", "--builtin", "command", "-c", "1"), "succeeded|ready", "shutdown"),
    "solo": (("worker", "--config", "beat.toml", "--builtin", "command", "-P", "solo"), "succeeded|ready", "shutdown"),
    "page": (("web", "--port", "0", "--metrics-port", "0"), r"Status page at (http\S+)", "stopped"),
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_signal_without_a_meaning_is_said_and_ends_nothing(start_beatd, kind):
    words, ready, end = COMMANDS[kind]
    process = start_beatd(*words)
    [found] = process.expect(ready)[:1]
    if kind == "page":  # it says where it is before it answers
        assert httpx.get(f"{found[1]}healthz", timeout=10).status_code == 200
    for number in UNUSED:
        process.send(number)
        process.expect(f"{signal.Signals(number).name} has no meaning here and is ignored")
    assert process.end(signal.SIGTERM) == 0
    process.expect(end)


def test_a_storm_of_signals_is_one_stop(start_beatd):
    daemon = start_beatd("run")
    daemon.expect("Dispatched tick")
    for _ in range(300):
        daemon.send(signal.SIGHUP)
    daemon.expect("Dispatched tick", times=len(daemon.find("Dispatched tick")) + 5)
    for _ in range(300):
        daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    assert len(daemon.find("SIGTERM: stopping")) == 1
    assert not daemon.find("Traceback")


NO_THREADS = "ulimit -s 4000000; ulimit -v 3000000; exec"
"""The stack of each thread would need more memory than the process may have."""


WORKER = ("worker", "--config", "beat.toml", "--builtin", "command", "-P", "threads")


@pytest.mark.parametrize("words", [("run",), ("web", "--port", "0"), WORKER])
def test_a_system_without_threads_is_a_sentence(words, tmp_path):
    command = ["bash", "-c", f'{NO_THREADS} "$@"', "bash", sys.executable, "-m", "beatd", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Error: the system gives this process no more memory, or no more threads: raise its limits" in done.stderr
    assert "internal error" not in done.stderr
    assert "Traceback" not in done.stderr


LEFT = """
import atexit, threading, time
from beatd import App

app = App("proj", broker={url!r})

@app.task
def thread():
    threading.Thread(target=time.sleep, args=(600,), name="left-behind", daemon=False).start()

@app.task
def function():
    atexit.register(time.sleep, 600)
"""
KEPT = {"thread": "these threads of tasks do not end: left-behind", "function": "a function of atexit does not end"}


@pytest.mark.slow
@pytest.mark.parametrize("task", KEPT)
def test_a_worker_ends_although_a_task_keeps_its_process(start_beatd, tmp_path, redis_url, task):
    (tmp_path / "proj.py").write_text(LEFT.format(url=redis_url))
    worker = start_beatd("worker", "-A", "proj", "-P", "threads", "-c", "1")
    with App("proj", broker=redis_url) as app:
        app.send_task(f"proj.{task}")
    worker.expect("succeeded")
    assert worker.end(signal.SIGTERM, timeout=30) == 0
    worker.expect(f"The worker has stopped, and {KEPT[task]}; ending the process")


@pytest.mark.slow
def test_an_import_that_hangs_is_said_and_can_be_stopped(start_beatd, tmp_path):
    (tmp_path / "proj.py").write_text("import queue\n\nqueue.Queue().get()\n")
    worker = start_beatd("worker", "-A", "proj")
    worker.expect(r"Importing proj takes longer than 10 s; it is at \S+/proj\.py:3", timeout=30)
    assert worker.end(signal.SIGTERM) == -signal.SIGTERM
