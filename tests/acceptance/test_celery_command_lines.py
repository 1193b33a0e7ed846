"""Command lines of Celery's documentation with ``beatd`` in place of ``celery``: they do the same."""

import os
import signal
from pathlib import Path

import pytest

from beatd import App

APP = """
from beatd import App
app = App("proj", broker="{url}", backend="{url}")
app.conf.beat_schedule = {{"tick": {{"task": "proj.add", "schedule": 30.0, "args": (1, 2)}}}}
@app.task(name="proj.add")
def add(x, y):
    return x + y
"""


@pytest.fixture
def proj(tmp_path, redis_url):
    """An app of the module ``proj``, and one more module with a task."""
    (tmp_path / "proj.py").write_text(APP.format(url=redis_url))
    (tmp_path / "more.py").write_text("from proj import app\n@app.task(name='more.task')\ndef task():\n    pass\n")
    return App("client", broker=redis_url, backend=redis_url, set_as_current=False)


WORKER = (
    "-A proj worker --loglevel=INFO --concurrency=1 -n worker1@%h -Ofair -P threads -E -Q celery,video,low -X low "
    "--without-gossip --without-mingle --without-heartbeat --prefetch-multiplier=1 "
    "--soft-time-limit=240 --max-tasks-per-child=100 --statedb=worker.state -I more -- task_time_limit=300"
)

ASKED = (
    ("-A proj inspect ping", "pong"),
    ("-A proj inspect active", "worker1@"),
    ("-A proj inspect registered", "more.task"),
    ("-A proj inspect stats --timeout=5", "max-concurrency: 1"),
    ("-A proj inspect active_queues", "video"),
    ("-A proj inspect conf -j", '"task_time_limit": 300'),
    ("-A proj inspect query_task 2f4e2a", "1 worker answered"),
    ("--app=proj inspect scheduled", "none"),
    ("inspect -A proj reserved", "none"),
    ("-A proj control rate_limit proj.add 10/m", "new rate limit set"),
    ("-A proj control time_limit proj.add 60 120", "time limits set"),
    ("-A proj control enable_events", "already enabled"),
    ("-A proj control add_consumer letters", "letters"),
    ("-A proj control cancel_consumer letters", "letters"),
    ("-A proj control pool_grow 1", "pool will grow"),
    ("-A proj control revoke 2f4e2a", "revoked"),
    ("-A proj call proj.add --args=[2,3] --queue=later", "-"),
    ("-A proj purge -f -Q later", "Purged 1 message"),
    ("-A proj events --dump --limit=1", "worker heartbeat"),
    ("-A proj list bindings", "video"),
    ("-A proj graph workers -t 10", '[label="thread 1", shape=ellipse]'),
    ("-A proj graph schedule", '"task proj.add" -> "queue celery";'),
    ("-A proj graph bootsteps", '"broker" -> "consumer";'),
    ("-A proj report", "software -> beatd"),
    ("-A proj shell", "app is 'proj'"),
    ("-A proj status", "worker1@"),
)


def longer(line):
    """More time to answer for workers: a second is the default, as in Celery, and a busy machine may need more."""
    asks = {"inspect", "control"} & {*line.split()}
    return ["--timeout=10"] if asks and "timeout" not in line else []


@pytest.mark.slow
def test_they_ask_and_control_workers(proj, beatd, start_beatd):
    worker = start_beatd(*WORKER.split())
    worker.expect("ready", timeout=30)
    for said in (r"\.> transport: +redis://", r"\.> results: ", r"\.> concurrency: 1 \(threads\)", r"  \. more\.task"):
        assert worker.find(said), worker.text
    assert worker.find("--without-gossip has no effect: beatd's workers do not gossip.")
    assert not worker.find("low ")
    for line, expected in ASKED:
        done = beatd(*line.split(), *longer(line))
        assert expected in done.stdout + done.stderr, (line, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, line
        assert done.returncode == (1 if line.endswith("status") else 0), (line, done.stdout, done.stderr)
    sent = proj.send_task("proj.add", (2, 3))
    assert sent.get(timeout=20) == 5
    assert beatd("-A", "proj", "result", sent.id).stdout.strip() == "5"
    assert worker.end() == 0


def test_beat_takes_the_options_of_a_unit_file(proj, start_beatd, tmp_path):
    line = "-A proj beat --pidfile=run/beat.pid --logfile=log/beat.log -l INFO -s last --max-interval 5 -S django"
    beat = start_beatd(*line.split())
    beat.expect("--schedule has no effect: the last runs are in the state store")
    beat.expect("--scheduler has no effect")
    beat.expect("--max-interval has no effect")
    log = tmp_path / "log/beat.log"
    beat._wait_until(lambda: log.exists() and "Leading" in log.read_text(), 20, "the log")
    assert (tmp_path / "run/beat.pid").read_text() == f"{beat.pid}\n"
    again = start_beatd(*line.split())
    assert again.wait(20) == 2
    assert again.find("belongs to process [0-9]+, which is alive")
    assert beat.end(signal.SIGTERM) == 0
    assert not (tmp_path / "run/beat.pid").exists()


def _handles_sigterm(pid):
    """True once the process has a handler; before that the signal ends it at once, and its pid file stays."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1


@pytest.mark.parametrize(
    "command", ["beat --detach", "worker -P solo --detach", "worker -P solo -ED", "worker -DEPsolo"]
)
def test_detached(command, proj, beatd, tmp_path, wait_until):
    started = beatd("-A", "proj", *command.split(), "--pidfile=it.pid", "--logfile=it.log", "-l", "WARNING")
    assert started.returncode == 0, started.stderr
    pid = int((tmp_path / "it.pid").read_text())
    try:
        assert f"Started with process id {pid}" in started.stdout
        taken = beatd("-A", "proj", *command.split(), "--pidfile=it.pid")
        assert taken.returncode == 2
        assert "which is alive" in taken.stderr
        wait_until(lambda: _handles_sigterm(pid), 20, "the process to have started")
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not (tmp_path / "it.pid").exists(), 20, "its end")


def test_wrong_words_are_answered_in_words(proj, beatd):
    for line, text in (
        ("-A proj beat --uid=nobody", "--uid is not supported: start it as that user"),
        ("-A proj beat -l loud", "expected debug, info, warning or error"),
        ("-A proj beat --umask=99", "expected an octal number such as 022"),
        ("-A proj worker -Q a -X a", "no queue is left to consume"),
        ("-A proj worker --time-limit=soon", "soon"),
    ):
        done = beatd(*line.split())
        assert done.returncode == 2, (line, done.stderr)
        assert text in done.stderr, (line, done.stderr)
        assert "Traceback" not in done.stderr, line
