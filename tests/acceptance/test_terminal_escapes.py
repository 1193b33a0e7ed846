"""Names from elsewhere cannot control the terminal: every listing shows escape sequences as text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from beatd.cli import main

RED, CLEAR, TITLE, CSI = "\x1b[31m", "\x1b[2J", "\x1b]0;owned\x07", "\x9b31m"
NODE, TASK, QUEUE, ENTRY = f"celery@{RED}host", f"task{CLEAR}{CSI}", f"queue{TITLE}", f"entry{RED}{CSI}"

TASKS = """
import time
from beatd import App
app = App("proj", broker={url!r}, backend={url!r})

@app.task(name={task!r}, rate_limit="100/s")
def run(*args, **kwargs):
    if "fail" in args:
        raise ValueError({task!r})
    time.sleep(30 if "long" in args else 0)
    return {task!r}
"""
FILE = """
[redis]
url = "{url}"
[beat_schedule.entry]
task = "t"
queue = "plain"
schedule = "10m"
"""
INSPECT = (
    *("ping", "stats", "active", "reserved", "scheduled", "registered", "revoked", "conf", "active_queues", "report"),
    *("clock", "memdump", "query_task"),
)
COMMANDS = (
    *(["status"], ["list"], ["next", "-n", "3"], ["history"], ["history", "--failed"], ["export"]),
    *(["dead-letters", "list"], ["history", ENTRY], ["trigger", "entry"], ["pause", "no*"], ["check"]),
)


def controls(text: str) -> set[str]:
    """Return the characters that a terminal could obey."""
    return {char for char in text if not char.isprintable()} - {"\n"}


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True])
def test_no_listing_passes_escape_sequences_on(
    as_json: bool, start_beatd: Any, monkeypatch: pytest.MonkeyPatch, redis_url: str, tmp_path: Path, wait_until: Any
) -> None:
    (tmp_path / "tasks.py").write_text(TASKS.format(url=redis_url, task=TASK))
    (tmp_path / "beat.toml").write_text(FILE.format(url=redis_url))
    table = {"task": TASK, "schedule": 0.5, "queue": QUEUE, "args": [RED], "kwargs": {"a": CSI}}
    with redis.Redis.from_url(redis_url) as client:
        client.hset("{beatd}:schedules", mapping={ENTRY: json.dumps(table), f"broken{RED}": json.dumps({"task": RED})})
        client.lpush(QUEUE, f"no message {RED}")
        worker = start_beatd("worker", "-A", "tasks", "-n", NODE, "-Q", QUEUE, "-P", "threads", "-c", "2")
        worker.expect("ready")
        daemon = start_beatd("run")
        daemon.expect("in force")
        call = f"from tasks import app; s = app.send_task; q = {QUEUE!r}; t = {TASK!r}"
        for arguments in ("('long',)", "('fail',)", "(1,), countdown=600"):
            call += f"; i = s(t, {arguments}, queue=q).id"
        call += "; app.control.revoke([i + t])"
        run_python(call, tmp_path)
        wait_until(lambda: client.llen("{beatd}:dead_letters"), 15, "a dead letter")
    more = ["--json"] if as_json else []
    shown = ""
    monkeypatch.chdir(tmp_path)
    for words in (*COMMANDS, *(["inspect", name, "-b", redis_url] for name in INSPECT)):
        options = more if words[0] not in ("export", "check") else []
        done = CliRunner().invoke(main, [*words, *options], color=True)  # as on a terminal: click removes nothing
        plain = done.output.replace("\x1b[1m", "").replace("\x1b[0m", "")  # its own headings are bold
        assert controls(plain) == set(), words
        assert "internal error" not in done.output, words
        shown += done.output
    escape = "\\u001b" if as_json else "\\x1b"
    names = (f"task{escape}[2J", f"celery@{escape}[31mhost", f"entry{escape}[31m")
    assert all(name in shown for name in names)
    for process in (worker, daemon):
        assert controls(process.text) == set()


def run_python(code: str, cwd: Path) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=cwd, check=True, timeout=60)
