"""Threads of a daemon and of a worker end with it: none may touch what was closed, or keep a file open."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forked import environment

CODE = """
import json, sys, threading
from beatd.cli import main
try:
    main(args=sys.argv[1:], prog_name="beatd")
except SystemExit:
    pass
print("LEFT", json.dumps(sorted(one.name for one in threading.enumerate() if one is not threading.main_thread())))
"""
PROCESS = {"signals", "end"}
"""Threads of the process itself: they handle signals, and force its end if a thread of a task does not let it end."""

BEAT = """
[redis]
url = "{url}"
[metrics]
listen = "127.0.0.1:{port}"
[leader]
shards = 2
[notify.hook]
url = "http://127.0.0.1:9/"
[blackout]
holidays = {{ ics = "http://127.0.0.1:9/calendar.ics" }}
[beat_schedule.tick]
task = "tasks.run"
schedule = 0.2
ping = "http://127.0.0.1:9/ping"
[beat_schedule.nightly]
task = "tasks.run"
schedule = "30 4 * * *"
blackout = ["holidays"]
"""
TASKS = """
from beatd import App
app = App("tasks", broker={url!r}, backend={backend!r})

@app.task(name="tasks.run", soft_time_limit=60, time_limit=90, ignore_result=False)
def run():
    print("ran")
"""


@pytest.fixture
def left(tmp_path: Path, wait_until: Any) -> Iterator[Callable[..., list[str]]]:
    """``left("run", until="Leading")`` runs a command until its log has these words; returns its threads at its end."""
    started: list[subprocess.Popen[bytes]] = []

    def threads(*words: str, until: tuple[str, ...], **more: str) -> list[str]:
        log = tmp_path / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", CODE, *words], cwd=tmp_path, env=environment(**more), stdout=file, stderr=file
            )
        started.append(process)
        wait_until(lambda: all(each in log.read_text() for each in until), 40, f"{until} in the log")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
        said = log.read_text().rpartition("LEFT ")[2]
        return [name for name in json.loads(said) if name not in PROCESS]

    yield threads
    for each in started:
        each.kill()
        each.wait()


def test_a_daemon_leaves_no_threads(left: Any, redis_url: str, tmp_path: Path, free_port: Any) -> None:
    (tmp_path / "beat.toml").write_text(BEAT.format(url=redis_url, port=free_port()))
    until = ("starting", "Leading shard 0", "Leading shard 1", "metrics_started")
    assert left("run", "--log-format", "json", until=until) == []


@pytest.mark.parametrize("pool", ["threads", "asyncio", "solo", "prefork"])
@pytest.mark.parametrize("results", ["redis", "file"])
def test_a_worker_leaves_no_threads(left: Any, redis_url: str, tmp_path: Path, pool: str, results: str) -> None:
    (tmp_path / "beat.toml").write_text(BEAT.format(url=redis_url, port=0))
    (tmp_path / "results").mkdir()
    backend = redis_url if results == "redis" else f"file://{tmp_path}/results"
    (tmp_path / "tasks.py").write_text(TASKS.format(url=redis_url, backend=backend))
    words = ("worker", "-A", "tasks", "-P", pool, "-c", "2", "-B", "--config", "beat.toml", "-E")
    assert left(*words, "--log-format", "json", until=("worker_connected", "succeeded in")) == []
    assert "worker_stopped" in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_a_worker_and_a_daemon_of_a_rabbitmq_leave_no_threads(
    left: Any, redis_url: str, rabbitmq: Any, tmp_path: Path, free_port: Any
) -> None:
    broker = f'[broker]\nurl = "{rabbitmq.url}"\ndefault_queue = "threads-{free_port()}"\n[metrics]'
    (tmp_path / "beat.toml").write_text(BEAT.format(url=redis_url, port=free_port()).replace("[metrics]", broker))
    (tmp_path / "tasks.py").write_text(TASKS.format(url=rabbitmq.url, backend=redis_url))
    words = ("worker", "-A", "tasks", "-P", "threads", "-c", "2", "-B", "--config", "beat.toml", "-E")
    assert left(*words, until=("ready.", "succeeded in")) == []
    assert left("run", until=("Leading shard 0", "Leading shard 1")) == []
