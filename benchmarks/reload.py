"""A large schedule: how long it takes to start, to take in a change, and whether runs are late meanwhile.

    python benchmarks/reload.py [-n 100000] [--reloads 5] [--peers celery,apscheduler]

N entries that are not due, and 50 that are due each second. Everything is seen from outside: messages as they come out
of a fresh Redis, memory and CPU time from /proc. Start-up ends with the first message. A change is one line in the
middle of the file which makes an entry run every 100 ms; it is in force when that entry's first message comes.
Lateness is from the due time in a message's headers to its arrival; the worst one is shown for quiet seconds, and for
those in which the file was read again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import redis
from figures import Figure, show
from herd import end, fresh_redis

sys.path.insert(0, str(Path(__file__).parent))

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled, too

TICKING = 50
"""Entries that are due each second."""

EVERY_DAY = '"{} {} * * *"'
PROBE = '"100ms"'
PATIENCE = 120
"""Seconds that a contender has to start, or to take a change in."""


def beat_toml(url: str, n: int, changed: int | None = None) -> str:
    tables = [f'timezone = "Europe/Berlin"\n[redis]\nurl = "{url}"\n[log]\nlevel = "warning"\n\n']
    for i in range(n):
        schedule = PROBE if i == changed else EVERY_DAY.format(i % 60, 3 + i // 60 % 3)
        queue = f"probe-{i}" if i == changed else f"queue-{i % 7}"
        tables.append(
            f'[beat_schedule.entry-{i}]\ntask = "proj.tasks.task_{i % 40}"\nschedule = {schedule}\n'
            f'args = [{i}, "x"]\nqueue = "{queue}"\n\n'
        )
    tables.append('[beat_schedule.ready]\ntask = "ready"\nschedule = 0.1\nqueue = "ready"\nmax_runs = 1\n\n')
    tick = '[beat_schedule.tick-{}]\ntask = "tick"\nschedule = "* * * * * *"\nqueue = "ticks"\n\n'
    tables += map(tick.format, range(TICKING))
    return "".join(tables)


CELERY_APP = """
from celery import Celery
from celery.schedules import crontab
app = Celery("tasks", broker={url!r})
app.conf.beat_schedule = {{
    f"entry-{{i}}": {{"task": f"proj.tasks.task_{{i % 40}}", "schedule": crontab(minute=i % 60, hour=3 + i // 60 % 3),
                      "args": (i, "x"), "options": {{"queue": f"queue-{{i % 7}}"}}}} for i in range({n})
}}
app.conf.beat_schedule["ready"] = {{"task": "ready", "schedule": 0.1, "options": {{"queue": "ready"}}}}
"""

APSCHEDULER = """
import redis
from apscheduler.schedulers.blocking import BlockingScheduler
broker = redis.Redis.from_url({url!r})
scheduler = BlockingScheduler(timezone="Europe/Berlin")
for i in range({n}):
    scheduler.add_job(print, "cron", id=f"entry-{{i}}", minute=i % 60, hour=3 + i // 60 % 3, args=[i, "x"])
scheduler.add_job(broker.lpush, "interval", id="ready", seconds=0.1, args=["ready", "x"])
scheduler.start()
"""


def start_beatd(url: str, n: int, folder: Path) -> subprocess.Popen[bytes]:
    (folder / "beat.toml").write_text(beat_toml(url, n))
    return subprocess.Popen([sys.executable, "-m", "beatd", "--config", str(folder / "beat.toml")], cwd=folder)


def start_celery(url: str, n: int, folder: Path) -> subprocess.Popen[bytes]:
    (folder / "large_app.py").write_text(CELERY_APP.format(url=url, n=n))
    command = [sys.executable, "-m", "celery", "-A", "large_app", "beat", "-l", "error", "-s", str(folder / "state")]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)


def start_apscheduler(url: str, n: int, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-c", APSCHEDULER.format(url=url, n=n)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)


CONTENDERS: dict[str, Callable[[str, int, Path], subprocess.Popen[bytes]]] = {
    "beatd": start_beatd,
    "celery": start_celery,
    "apscheduler": start_apscheduler,
}


def megabytes(pid: int, what: str = "VmRSS") -> int:
    """Memory of a process; ``VmHWM`` is the most that it ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) // 1024


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watch(threading.Thread):
    """Takes the ticks out of their queue; ``seen`` has (arrival, lateness) in seconds."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[float, float]] = []
        self._client = redis.Redis.from_url(url, socket_timeout=None)

    def run(self) -> None:
        with contextlib.suppress(redis.ConnectionError):
            while True:
                if (popped := self._client.brpop(["ticks"], timeout=5)) is None:
                    continue
                now = time.time()
                due_at = json.loads(popped[1])["headers"]["beatd-due-at"]
                self.seen.append((now, now - datetime.fromisoformat(due_at).timestamp()))

    def worst(self, since: float, until: float) -> float:
        return max((late for at, late in self.seen if since <= at <= until), default=float("nan"))


def start_up(url: str, started: float) -> float:
    """Seconds to the first message; not a number if it takes too long."""
    if redis.Redis.from_url(url, socket_timeout=None).brpop(["ready"], timeout=PATIENCE) is None:
        return math.nan
    return time.time() - started


def reload_once(url: str, n: int, changed: int, file: Path) -> float:
    """Seconds from the write to the first message of the entry that was changed."""
    client = redis.Redis.from_url(url, socket_timeout=None)
    text = beat_toml(url, n, changed)
    file.with_suffix(".new").write_text(text)
    written = time.time()
    file.with_suffix(".new").rename(file)
    if client.brpop([f"probe-{changed}"], timeout=PATIENCE) is None:
        return float("nan")
    return time.time() - written


def reloads(process: subprocess.Popen[bytes], url: str, n: int, times: int, folder: Path) -> Iterator[Figure]:
    """Changes of one entry, while others tick."""
    row, watch = f"{n:,} entries", Watch(url)
    watch.start()
    time.sleep(1)
    quiet = time.time()
    time.sleep(2)
    began = time.time()
    cpu = cpu_seconds(process.pid)
    took = []
    for number in range(times):
        took.append(reload_once(url, n, n // 2 + number, folder / "beat.toml"))
        time.sleep(2)
    busy = (cpu_seconds(process.pid) - cpu) / times
    late, late_before = watch.worst(began, time.time()) * 1000, watch.worst(quiet, began) * 1000
    yield Figure(row, "one change in force after", "beatd", statistics.median(took), "s", more_is_better=False)
    yield Figure(row, "CPU for one change", "beatd", busy, "s", more_is_better=False)
    yield Figure(row, "worst lateness while it changes", "beatd", late, "ms", more_is_better=False)
    yield Figure(row, "worst lateness before", "beatd", late_before, "ms", more_is_better=False)
    yield Figure(row, "memory after the changes", "beatd", megabytes(process.pid), "MB", more_is_better=False)
    yield Figure(row, "memory at its peak", "beatd", megabytes(process.pid, "VmHWM"), "MB", more_is_better=False)


def commands(folder: Path, n: int) -> Iterator[Figure]:
    for command in ("check", "next"):
        before = os.times()
        words = [sys.executable, "-m", "beatd", command, "--config", "beat.toml"]
        subprocess.run(words, cwd=folder, capture_output=True, check=True)
        took = os.times().elapsed - before.elapsed
        yield Figure(f"{n:,} entries", f"beatd {command}", "beatd", took, "s", more_is_better=False)


def run(name: str, n: int, times: int) -> Iterator[Figure]:
    """Start one contender; for beatd, change an entry ``times`` times."""
    row, who = f"{n:,} entries", {"celery": "celery beat", "apscheduler": "APScheduler"}.get(name, name)
    with fresh_redis() as url, tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        started = time.time()
        process = CONTENDERS[name](url, n, folder)
        try:
            seconds = start_up(url, started)
            yield Figure(row, "start to first message", who, seconds, "s", more_is_better=False)
            yield Figure(row, "CPU of the start", who, cpu_seconds(process.pid), "s", more_is_better=False)
            yield Figure(row, "memory after the start", who, megabytes(process.pid), "MB", more_is_better=False)
            if name == "beatd" and times:
                yield from reloads(process, url, n, times, folder)
        finally:
            end(process)
        if name == "beatd" and times:
            yield from commands(folder, n)


def figures(n: int, times: int, peers: Sequence[str]) -> Iterator[Figure]:
    """One round."""
    for name in ("beatd", *peers):
        yield from run(name, n, times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-n", type=int, default=100_000, help="entries (default: 100000)")
    parser.add_argument("--reloads", type=int, default=5, help="how often one entry is changed (default: 5)")
    parser.add_argument("--peers", default="celery,apscheduler", help="contenders beside beatd; empty for none")
    options = parser.parse_args()
    show(figures(options.n, options.reloads, list(filter(None, options.peers.split(",")))))


if __name__ == "__main__":
    main()
