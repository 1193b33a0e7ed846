"""Failover: from the moment the leader is killed or told to stop to the next message in the broker.

    python benchmarks/failover.py [--kills 50] [--slow 5] [--peers redbeat]

Two schedulers run side by side, with one entry that is due ten times a second; what counts is ``LLEN`` of the queue.
Each time the leader ends, the standby takes over and another one is started as its standby. ``--slow`` is the number of
kills for what takes 15 s each.

RedBeat's lock lasts 25 minutes by default, and its standby looks every five: it is measured with a lock of 5 s that is
looked at every second, a setting that its users choose at the price of daemons that exit when they lose it.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import redis
from herd import fresh_redis

Start = Callable[[], "subprocess.Popen[bytes]"]

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

LIMIT = 60.0
"""Seconds after which a contender is said not to have taken over."""


def beatd(folder: Path, url: str, ttl: int) -> Start:
    """How to start another daemon."""
    config = folder / "beat.toml"
    config.write_text(BEATD.format(url=url, ttl=ttl))
    return lambda: _run([sys.executable, "-m", "beatd", "--config", str(config)], folder)


def redbeat(folder: Path, url: str, ttl: int) -> Start:
    """How to start another RedBeat."""
    (folder / "tasks.py").write_text(REDBEAT.format(url=url, ttl=ttl))
    command = [sys.executable, "-m", "celery", "-A", "tasks", "beat", "-S", "redbeat.RedBeatScheduler"]
    return lambda: _run([*command, "--pidfile="], folder)


def _run(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    with (folder / f"log-{time.monotonic_ns()}").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": path})


def measure(start: Start, client: redis.Redis, number: signal.Signals, kills: int, ready: float) -> Iterator[float]:
    """Seconds without a message, kill by kill; ``ready`` is what a standby is given to be one."""
    leader = start()
    _next_message(client)
    standby = start()
    try:
        for _ in range(kills):
            time.sleep(ready)
            leader.send_signal(number)
            ended = time.monotonic()
            if number is signal.SIGKILL:
                leader.wait()
            _next_message(client)
            yield time.monotonic() - ended
            leader.wait(30)
            leader, standby = standby, start()
    finally:
        for process in (leader, standby):
            process.kill()
            process.wait()


def _next_message(client: redis.Redis) -> None:
    before, deadline = client.llen("celery"), time.monotonic() + LIMIT
    while client.llen("celery") <= before:
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing came within {LIMIT:g} s")
        time.sleep(0.002)


def report(name: str, seconds: list[float]) -> None:
    """One line of the distribution."""
    if not seconds:
        return
    ordered = sorted(seconds)
    p90 = ordered[min(len(ordered) - 1, round(0.9 * len(ordered)))]
    middle = statistics.median(ordered)
    print(f"{name:38} {len(ordered):4} {ordered[0]:8.2f} {middle:8.2f} {p90:8.2f} {ordered[-1]:8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--slow", type=int, default=5)
    parser.add_argument("--peers", nargs="*", choices=("redbeat",), default=["redbeat"])
    given = parser.parse_args()
    rows = [
        ("beatd, SIGTERM", beatd, 15, signal.SIGTERM, given.kills, 2.5),
        ("beatd, SIGKILL, lease of 5 s", beatd, 5, signal.SIGKILL, given.kills, 2.5),
        ("beatd, SIGKILL, lease of 15 s (default)", beatd, 15, signal.SIGKILL, given.slow, 2.5),
    ]
    if "redbeat" in given.peers:
        rows.append(("RedBeat, SIGTERM, lock of 5 s", redbeat, 5, signal.SIGTERM, given.slow, 5))
        rows.append(("RedBeat, SIGKILL, lock of 5 s", redbeat, 5, signal.SIGKILL, given.slow, 5))
    print(f"{'seconds without a message':38} {'n':>4} {'least':>8} {'median':>8} {'p90':>8} {'most':>8}")
    for name, contender, ttl, number, kills, ready in rows:
        seconds: list[float] = []
        with tempfile.TemporaryDirectory(prefix="beatd-failover-") as folder, fresh_redis() as url:
            start = contender(Path(folder), url, ttl)
            try:
                with redis.Redis.from_url(url) as client:
                    for each in measure(start, client, number, kills, ready):
                        seconds.append(each)  # noqa: PERF402 - what was measured is kept if the next one fails
            except TimeoutError as error:
                print(f"{name}: {error}")
        report(name, seconds)


if __name__ == "__main__":
    main()
