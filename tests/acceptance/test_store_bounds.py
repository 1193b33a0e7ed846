"""Every key that a daemon, a worker and their commands write has a bound: a number, an expiry, or what it stands for.

``docs/state.md`` has the same table for people; a kind of key that is in neither fails here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


class Bound(NamedTuple):
    """Bound of a kind of key: its type, and its longest time to live (ms); None: it is bounded by what it holds."""

    type: str
    expires_ms: int | None = None


RESULT = Bound("string", DAY)
BOUNDS = {
    # one for each shard
    "{beatd}:0:lease": Bound("string", 15_000),
    "{beatd}:0:term": Bound("string"),
    "{beatd}:0:terms": Bound("list"),
    "{beatd}:0:claims": Bound("string"),
    "{beatd}:0:held": Bound("hash", 5 * MINUTE),
    "{beatd}:0:outbox": Bound("list"),
    # a field for each entry; an entry that left the schedule is forgotten after 30 days
    "{beatd}:last_due": Bound("hash"),
    "{beatd}:known": Bound("hash"),
    "{beatd}:limits": Bound("hash"),
    "{beatd}:runs": Bound("hash"),
    "{beatd}:running": Bound("hash"),
    "{beatd}:tally": Bound("hash"),
    "{beatd}:history:<entry>": Bound("string"),
    "{beatd}:outcomes:<entry>": Bound("list"),
    "{beatd}:last_outcome": Bound("hash"),
    "{beatd}:ended": Bound("hash"),
    "{beatd}:gone": Bound("zset"),
    "{beatd}:schedules": Bound("hash"),
    "{beatd}:paused": Bound("hash"),
    # a field for each daemon
    "{beatd}:daemons": Bound("hash"),
    # a number
    "{beatd}:revision": Bound("hash"),
    "{beatd}:changes": Bound("zset"),
    "{beatd}:dead_letters": Bound("list"),
    "{beatd}:audit": Bound("list"),
    "{beatd}:audited_digest": Bound("string"),
    "{beatd}:format": Bound("string"),
    "{beatd}:tag": Bound("string"),
    # an expiry
    "{beatd}:gaps": Bound("hash", 7 * DAY),
    "{beatd}:orders": Bound("hash", MINUTE),
    "{beatd}:answers:<id>": Bound("hash", MINUTE),
    "{beatd}:requests": Bound("hash", DAY),
    "{beatd}:answered:<id>": Bound("string", DAY),
    "{beatd}:sent:<run id>": Bound("string", DAY),
    "{beatd}:refused:<run id>": Bound("string", DAY),
    "{beatd}:finished:<run id>": Bound("string", DAY),
    "{beatd}:started:<run id>": Bound("string", DAY),
    "{beatd}:overdue": Bound("hash", 5 * MINUTE),
    "{beatd}:too_long": Bound("hash", 5 * MINUTE),
    "{beatd}:recovered": Bound("zset", HOUR),
    "{beatd}:undelivered": Bound("hash", 7 * DAY),
    "{beatd}:alerts:<target>": Bound("hash", 7 * DAY),
    "{beatd}:notices": Bound("hash", 7 * DAY),
    "{beatd}:notices_due": Bound("zset", 7 * DAY),
    "{beatd}:pinged": Bound("hash", 7 * DAY),
    "{beatd}:led": Bound("string", 7 * DAY),
    "{beatd}:revoked": Bound("zset", DAY),
    "{beatd}:dead_letters_size": Bound("string", DAY),
    "{beatd}:worker:<id>:alive": Bound("string", 9_000),
    # what is under way
    "{beatd}:worker:<id>:unacked": Bound("hash"),
    "{beatd}:workers": Bound("set"),
    "{beatd}:parked": Bound("zset"),
    # Celery's and kombu's names
    "celery": Bound("list"),
    "celery-task-meta-<task id>": RESULT,
    "celery-taskset-meta-<group id>": RESULT,
    "_kombu.binding.<exchange>": Bound("set"),
}
PARTS = {
    "<entry>": "[^:]+",
    "<target>": "[^:]+",
    "<id>": ".+",
    "<run id>": "[0-9a-f-]{36}",
    "<task id>": "[0-9a-f-]{36}",
}
PARTS |= {"<group id>": r"[0-9a-f-]{36}(\.[jtsdc])?", "<exchange>": r"[\w.]+"}

RARE = {"{beatd}:0:outbox", "{beatd}:refused:<run id>", "{beatd}:0:held", "{beatd}:gone", "{beatd}:requests", "celery"}
RARE |= {
    "{beatd}:worker:<id>:unacked",
    "_kombu.binding.<exchange>",
    "{beatd}:started:<run id>",
    "{beatd}:running",
    "{beatd}:overdue",
    "{beatd}:too_long",
    "{beatd}:audited_digest",
    "{beatd}:notices",
    "{beatd}:notices_due",
    "{beatd}:pinged",
    "{beatd}:recovered",
    "{beatd}:undelivered",
}
"""Kinds that need another broker or a fault, or are there for moments."""

TASKS = """
from beatd import App, chord
app = App("proj", broker={url!r}, backend={url!r})

@app.task
def add(x, y=1):
    return x + y

@app.task
def boom():
    raise ValueError("boom")

@app.task
def total(numbers):
    return sum(numbers)
"""
CALLS = """
from tasks import add, app, boom, total
from beatd import chord, group
chord([add.s(1), add.s(2)])(total.s())
group([add.s(1), add.s(2)]).apply_async().save()
boom.delay()
add.apply_async((1,), countdown=600)
app.control.revoke([add.apply_async((1,), countdown=600).id])
"""
FILE = """
[redis]
url = "{url}"
[notify.ops]
command = ["true"]
[beat_schedule]
often = {{ task = "tasks.add", args = [1], schedule = "100ms", overlap = "skip" }}
missed = {{ task = "tasks.add", args = [1], schedule = "1m", max_runs = 1000 }}
fails = {{ task = "tasks.boom", schedule = "1s" }}
"""


def pattern_of(key: str) -> str | None:
    """Return the kind of a key; None for one that nobody has bounded."""
    for pattern in BOUNDS:
        expression = re.escape(pattern)
        for part, text in PARTS.items():
            expression = expression.replace(re.escape(part), text)
        if re.fullmatch(expression, key, re.DOTALL):
            return pattern
    return None


def test_every_key_has_a_bound(
    start_beatd: Any, beatd: Callable[..., Any], server: Any, redis_url: str, tmp_path: Path, wait_until: Any
) -> None:
    (tmp_path / "beat.toml").write_text(FILE.format(url=redis_url))
    (tmp_path / "tasks.py").write_text(TASKS.format(url=redis_url))
    daemon = start_beatd("run")
    worker = start_beatd("worker", "-A", "tasks", "-P", "threads", "-c", "2", "-n", "w@h")
    daemon.expect("in force")
    worker.expect("ready")
    subprocess.run([sys.executable, "-c", CALLS], cwd=tmp_path, check=True, timeout=60)
    server.lpush("celery", "no message")
    for words in (
        ["trigger", "missed", "--wait"],
        ["backfill", "missed", "--from=-10m"],
        ["pause", "missed"],
        ["add", "more", "--task", "tasks.add", "--schedule", "1s", "--args", "[1]"],
        ["reload"],
        ["inspect", "ping", "-b", redis_url, "-d", "w@h", "-t", "20"],
    ):
        done = beatd(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    wait_until(lambda: server.exists("{beatd}:dead_letters", "{beatd}:revoked", "{beatd}:parked") == 3, 20)
    wait_until(lambda: server.exists("{beatd}:alerts:ops"), 20)
    found = {key: server.type(key) for key in server.scan_iter(count=1000)}
    kinds = {key: pattern_of(key) for key in found}
    assert [key for key, kind in kinds.items() if kind is None] == []
    for key, kind in kinds.items():
        bound, left_ms = BOUNDS[kind or ""], server.pttl(key)
        if left_ms == -2:  # it has expired, or was taken, since
            continue
        assert found[key] == bound.type, key
        assert (left_ms == -1) if bound.expires_ms is None else (0 < left_ms <= bound.expires_ms), (key, left_ms)
    assert BOUNDS.keys() - set(kinds.values()) <= RARE


def test_the_documentation_has_the_same_kinds() -> None:
    text = (Path(__file__).parents[2] / "docs" / "state.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    documented = {key: row for row in rows for key in re.findall(r"`([^`]+)`", row[1])}
    for pattern, bound in BOUNDS.items():
        assert pattern in documented, pattern
        assert bound.type in documented[pattern][2], pattern
        assert documented[pattern][3].strip(), pattern
