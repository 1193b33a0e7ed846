"""``beatd multi``: workers that go on when their terminal is gone, and that are found, told and started again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import redis
from celery import Celery

APP = """
from beatd import App
app = App("proj", broker={url!r}, backend={url!r})
@app.task
def who(): return __import__("os").getppid()
"""


@pytest.fixture
def multi(tmp_path, beatd, redis_url):
    """``multi("start", "1-2", …)`` in a folder with an app ``proj``; what it has started is killed in the end."""
    (tmp_path / "proj.py").write_text(APP.format(url=redis_url))

    def run(*words: str, **env: str):
        return beatd("multi", *words, XDG_STATE_HOME=str(tmp_path / "state"), **env)

    yield run
    run("kill", *(path.stem for path in (tmp_path / "state" / "beatd" / "multi").glob("*.json")))


def running(done) -> dict[str, int]:
    """Names of nodes → process ids, from what a command has printed."""
    lines = (line.split(": ", 1) for line in done.stdout.splitlines())
    return {name.partition("@")[0]: int(text.rpartition(" ")[2]) for name, text in lines if "pid" in text}


def test_nodes_are_started_found_restarted_and_stopped(tmp_path, multi, redis_url, wait_until):
    begun = multi("start", "1-2", "-A", "proj", "-c", "1", "--pidfile=run/%n.pid", "-f:2", "logs/%n%I.log")
    assert begun.returncode == 0, begun.stderr
    pids = running(begun)
    assert set(pids) == {"celery1", "celery2"}
    assert int((tmp_path / "run" / "celery1.pid").read_text()) == pids["celery1"]
    client = Celery("proj", broker=redis_url, backend=redis_url)
    answers = {client.send_task("proj.who").get(timeout=30) for _ in range(30)}
    assert answers <= set(pids.values())
    wait_until((tmp_path / "logs" / "celery2-1.log").exists, 20, "a log file for each process")
    log = tmp_path / "logs" / "celery2.log"
    wait_until(lambda: "ready" in log.read_text(), 20, "the second node, though the first has run the tasks")
    assert running(multi("status")) == pids
    assert "runs already" in multi("start", "1", "-A", "proj", "--pidfile=run/%n.pid").stdout

    again = multi("restart", "1")
    assert again.returncode == 0, again.stderr
    assert running(again)["celery1"] != pids["celery1"]
    assert int((tmp_path / "run" / "celery1.pid").read_text()) == running(again)["celery1"]
    assert "--app=proj --concurrency=1" in multi("show", "1").stdout

    done = multi("stopwait", "1-2")
    assert (done.returncode, done.stdout.count("stopped")) == (0, 2), done.stderr
    assert not (tmp_path / "run" / "celery1.pid").exists()
    assert multi("status").returncode == 2  # as many as are down


def test_a_node_that_was_killed_is_not_taken_for_one_that_runs(multi, tmp_path, wait_until):
    pid = running(multi("start", "1", "-A", "proj", "-c", "1"))["celery1"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "down" in multi("status", "1").stdout, 20, "the node to be down")
    pidfile = tmp_path / "state" / "beatd" / "multi" / "celery1.pid"
    assert pidfile.exists()  # stale
    pidfile.write_text(f"{os.getpid()}\n")
    assert "does not run" in multi("kill", "1").stdout
    assert running(multi("restart", "1"))["celery1"] != pid


@pytest.mark.parametrize(
    "words", [("--broker", "{url}"), ("--broker={url}",), ("-b{url}", "--result-backend={url}"), ("-Eb", "{url}")]
)
def test_urls_are_in_no_command_line(multi, redis_url, words):
    secret = redis_url.replace("redis://", "redis://someone:top-secret@")
    with redis.Redis.from_url(redis_url) as server:
        server.execute_command("ACL", "SETUSER", "someone", "on", ">top-secret", "~*", "&*", "+@all")
    begun = multi("start", "1", "-A", "proj", "-c", "1", "-P", "solo", *(word.format(url=secret) for word in words))
    assert begun.returncode == 0, begun.stderr
    (pid,) = running(begun).values()
    line = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"--hostname=" in line
    assert b"top-secret" not in line
    assert f"BEATD_BROKER_URL={secret}" in Path(f"/proc/{pid}/environ").read_text().split("\0")


def test_what_is_remembered_is_for_the_user_only(multi, tmp_path):
    assert multi("start", "1", "-A", "proj", "-c", "1", "-b", "redis://:secret@localhost:1/0").returncode == 0
    folder = tmp_path / "state" / "beatd" / "multi"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / f"celery1@{os.uname().nodename}.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("start", "1", "-A", "nowhere"), 1, "no module named 'nowhere'"),
        (("start",), 2, "name the nodes"),
        (("start", "1", "--concurency", "3"), 2, "did you mean --concurrency?"),
        (("begin", "1"), 2, "No such command"),
    ],
)
def test_mistakes_are_answered_in_words(multi, tmp_path, words, code, message):
    done = multi(*words)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path(tmp_path).glob("state/beatd/multi/*.json"))
