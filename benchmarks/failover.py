"""Failover: from the moment the leader is killed or told to stop to the next message in the broker.

    python benchmarks/failover.py [--kills 50] [--slow 20] [--peers redbeat]

Two schedulers run side by side, with one entry that is due ten times a second; what counts is ``LLEN`` of the queue.
Each time the leader ends, the standby takes over and another one is started as its standby. ``--slow`` is the number of
kills for what takes 10 to 20 s each: the default lease, and RedBeat. All of it takes about 40 minutes.

RedBeat's lock lasts 25 minutes by default, and its standby looks every five: it is measured with a lock of 5 s that is
looked at every second, a setting that its users choose at the price of daemons that exit when they lose it.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import redis
from figures import Figure
from herd import fresh_redis


class Running(NamedTuple):
    """A scheduler's process, and what it has written."""

    process: subprocess.Popen[bytes]
    log: Path

    def says(self, text: bytes) -> None:
        """Wait until it has said so."""
        deadline = time.monotonic() + LIMIT
        while text not in self.log.read_bytes():
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not say {text.decode()!r} within {LIMIT:g} s")
            time.sleep(0.05)


class Contender(NamedTuple):
    """How to start another process, and what it says when it waits for the leader's end."""

    start: Callable[[], Running]
    stands_by: bytes


BEATD = """
[redis]
url = "{url}"
[leader]
ttl = "{ttl}s"
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.1
"""

REDBEAT = """
from celery import Celery
app = Celery("tasks", broker="{url}")
app.conf.update(
    redbeat_redis_url="{url}", redbeat_lock_timeout={ttl}, beat_max_loop_interval=1, worker_hijack_root_logger=False,
    beat_schedule={{"tick": {{"task": "tasks.tick", "schedule": 0.1}}}},
)
"""

WIDTH, BINS, BARS = 40, 20, " ▁▂▃▄▅▆▇█"

LIMIT = 60.0
"""Seconds after which a contender is said not to have taken over."""


def beatd(folder: Path, url: str, ttl: int) -> Contender:
    """beatd with a lease of ``ttl`` seconds."""
    config = folder / "beat.toml"
    config.write_text(BEATD.format(url=url, ttl=ttl))
    command = [sys.executable, "-m", "beatd", "--config", str(config)]
    return Contender(lambda: _run(command, folder), b"Standing by")


def redbeat(folder: Path, url: str, ttl: int) -> Contender:
    """RedBeat with a lock of ``ttl`` seconds."""
    (folder / "tasks.py").write_text(REDBEAT.format(url=url, ttl=ttl))
    command = [sys.executable, "-m", "celery", "-A", "tasks", "beat", "-S", "redbeat.RedBeatScheduler"]
    return Contender(lambda: _run([*command, "--pidfile=", "-l", "debug"], folder), b"Acquiring lock")


Start = Callable[[Path, str, int], Contender]


def _run(command: list[str], folder: Path) -> Running:
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    file, env = folder / f"log-{time.monotonic_ns()}", os.environ | {"PYTHONPATH": path}
    with file.open("wb") as log:
        return Running(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=env), file)


def measure(contender: Contender, client: redis.Redis, number: signal.Signals, kills: int) -> Iterator[float]:
    """Seconds without a message, kill by kill."""
    leader = contender.start()
    _next_message(client)
    standby = contender.start()
    try:
        for _ in range(kills):
            standby.says(contender.stands_by)
            time.sleep(random.uniform(1, 2))
            leader.process.send_signal(number)
            ended = time.monotonic()
            if number is signal.SIGKILL:
                leader.process.wait()
            _next_message(client)
            yield time.monotonic() - ended
            leader.process.wait(30)
            leader, standby = standby, contender.start()
    finally:
        for one in (leader, standby):
            one.process.kill()
            one.process.wait()


def _next_message(client: redis.Redis) -> None:
    before, deadline = client.llen("celery"), time.monotonic() + LIMIT
    while client.llen("celery") <= before:
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing came within {LIMIT:g} s")
        time.sleep(0.002)


def report(name: str, seconds: list[float]) -> None:
    """One line for the distribution: in numbers, and as a picture."""
    if not seconds:
        return
    ordered = sorted(seconds)
    at = [ordered[min(len(ordered) - 1, round(share * len(ordered)))] for share in (0, 0.5, 0.9, 1)]
    columns = " ".join(f"{each:8.2f}" for each in at)
    print(f"{name:{WIDTH}} {len(ordered):4} {columns}  {picture(ordered)}", flush=True)


def picture(ordered: list[float]) -> str:
    """How many fell into each twentieth of the range from 0 to the next round number above the largest."""
    top = next(top for top in (0.5, 1, 2, 5, 10, 20, 50, 100) if top > ordered[-1])
    counts = Counter(int(each / top * BINS) for each in ordered)
    heights = (math.ceil(counts[number] / max(counts.values()) * (len(BARS) - 1)) for number in range(BINS))
    return f"|{''.join(BARS[height] for height in heights)}| 0–{top:g} s"


def seconds_of(start: Start, ttl: int, number: signal.Signals, kills: int) -> list[float]:
    """Seconds without a message, kill by kill; those that were measured if one takes too long."""
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="beatd-failover-") as folder, fresh_redis() as url:
        try:
            with redis.Redis.from_url(url) as client:
                for each in measure(start(Path(folder), url, ttl), client, number, kills):
                    seconds.append(each)  # noqa: PERF402 - what was measured is kept if the next one fails
        except TimeoutError as error:
            print(error, file=sys.stderr)
    return seconds


def figures(kills: int, *, peers: bool = True) -> Iterator[Figure]:
    """One round: the medians, and the most of each."""
    rows = (("leader told to stop", signal.SIGTERM), ("leader killed", signal.SIGKILL))
    for row, number in rows:
        for who, start, ttl in (("beatd", beatd, 15), ("RedBeat, lock of 5 s", redbeat, 5))[: 1 + peers]:
            seconds = seconds_of(start, ttl, number, kills) or [math.nan]
            yield Figure(row, "no message for, median", who, statistics.median(seconds), "s", more_is_better=False)
            yield Figure(row, "no message for, at most", who, max(seconds), "s", more_is_better=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--slow", type=int, default=20)
    parser.add_argument("--peers", nargs="*", choices=("redbeat",), default=["redbeat"])
    given = parser.parse_args()
    rows: list[tuple[str, Start, int, signal.Signals, int]] = [
        ("beatd, SIGTERM", beatd, 15, signal.SIGTERM, given.kills),
        ("beatd, SIGKILL, lease of 5 s", beatd, 5, signal.SIGKILL, given.kills),
        ("beatd, SIGKILL, lease of 15 s (default)", beatd, 15, signal.SIGKILL, given.slow),
    ]
    if "redbeat" in given.peers:
        rows.append(("RedBeat, SIGTERM, lock of 5 s", redbeat, 5, signal.SIGTERM, given.slow))
        rows.append(("RedBeat, SIGKILL, lock of 5 s", redbeat, 5, signal.SIGKILL, given.slow))
    print(f"{'seconds without a message':{WIDTH}} {'n':>4} {'least':>8} {'median':>8} {'p90':>8} {'most':>8}")
    for name, start, ttl, number, kills in rows:
        report(name, seconds_of(start, ttl, number, kills))


if __name__ == "__main__":
    main()
