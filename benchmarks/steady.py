"""Steady load: R runs a second for some seconds, one entry for each run of a second; lateness seen from the broker.

    python benchmarks/steady.py [--rates 1000,10000,20000] [--seconds 10] [--peers apscheduler]

The entries are due one after the other within each second. Lateness is from the due time in a message to the moment at
which a reader has it, who waits for the first and takes what else there is. CPU time of the daemon is from /proc.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import redis
from figures import Figure, show
from herd import end, fresh_redis
from reload import cpu_seconds

DUE_AT = re.compile(rb'"beatd-due-at": ?"([^"]+)"')
WARM_S = 2.0


def start_beatd(url: str, rate: int, folder: Path) -> subprocess.Popen[bytes]:
    """``rate`` entries, each every second, with anchors that spread them."""
    lines = [f'[redis]\nurl = "{url}"\n[log]\nlevel = "warning"\n']
    for number in range(rate):
        anchor = f"2026-01-01T00:00:00.{number * 1000 // rate:03}Z"
        schedule = f'{{ every = "1s", anchor = {anchor} }}'
        lines.append(f'[beat_schedule.e{number}]\ntask = "tasks.noop"\nschedule = {schedule}\n')
    (folder / "beat.toml").write_text("".join(lines))
    return subprocess.Popen([sys.executable, "-m", "beatd", "--config", str(folder / "beat.toml")], cwd=folder)


APSCHEDULER = """
from datetime import datetime, timedelta, timezone
import redis
from apscheduler.schedulers.blocking import BlockingScheduler
client = redis.Redis.from_url({url!r})
every_run = {{"misfire_grace_time": None, "coalesce": False, "max_instances": 1000}}
scheduler = BlockingScheduler(timezone="UTC", job_defaults=every_run)
begin = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=3)
counts = [0] * {rate}
def push(number):
    due = begin + timedelta(seconds=counts[number] + number / {rate})
    counts[number] += 1
    client.lpush("celery", '{{"beatd-due-at": "' + due.isoformat(timespec="milliseconds") + '"}}')
for number in range({rate}):
    scheduler.add_job(push, "interval", seconds=1, start_date=begin + timedelta(seconds=number / {rate}), args=[number])
scheduler.start()
"""


def start_apscheduler(url: str, rate: int, folder: Path) -> subprocess.Popen[bytes]:
    (folder / "scheduler.py").write_text(APSCHEDULER.format(url=url, rate=rate))
    command = [sys.executable, "scheduler.py"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


CONTENDERS = {"beatd": start_beatd, "apscheduler": start_apscheduler}


def lateness(url: str, seconds: float) -> list[float]:
    """Lateness (ms) of the messages that come within so many seconds.

    Those that were due before have waited for the reader, which had the messages of its last period to look at.
    """
    client, late = redis.Redis.from_url(url), list[float]()
    taken: list[tuple[float, list[bytes]]] = []
    began = time.time()
    while time.time() < began + seconds:
        if first := client.brpop("celery", 1):
            taken.append((time.time(), [first[1]]))
            taken.append((time.time(), client.rpop("celery", 2_000) or []))
    for at, raws in taken:
        for raw in raws:
            found = DUE_AT.search(raw)
            if found and (due := datetime.fromisoformat(found[1].decode()).timestamp()) >= began:
                late.append((at - due) * 1000)
    return late


def run(name: str, rate: int, seconds: float) -> Iterator[Figure]:
    row, who = f"steady {rate:,}/s", "APScheduler" if name == "apscheduler" else name
    with fresh_redis() as url, tempfile.TemporaryDirectory() as folder:
        process = CONTENDERS[name](url, rate, Path(folder))
        try:
            client, patience = redis.Redis.from_url(url), time.time() + 60
            while not client.llen("celery") and time.time() < patience:
                time.sleep(0.05)
            lateness(url, WARM_S)
            cpu = cpu_seconds(process.pid)
            late = sorted(lateness(url, seconds))
            cpu = cpu_seconds(process.pid) - cpu
        finally:
            end(process)
    yield Figure(row, "runs a second", who, len(late) / seconds)
    for what, at in (("lateness, p50", 0.5), ("lateness, p99", 0.99), ("lateness, most", 1.0)):
        ms = late[min(int(len(late) * at), len(late) - 1)] if late else math.nan
        yield Figure(row, what, who, ms, "ms", more_is_better=False)
    yield Figure(row, "CPU of the scheduler", who, 100 * cpu / seconds, "%", more_is_better=False)


def figures(rates: Sequence[int], seconds: float, peers: Sequence[str]) -> Iterator[Figure]:
    """One round. Peers take part in the first rate."""
    for place, rate in enumerate(rates):
        for name in ("beatd", *(peers if place == 0 else ())):
            yield from run(name, rate, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rates", default="1000,10000,20000", help="runs a second, by commas")
    parser.add_argument("--seconds", type=float, default=10, help="for each rate (default: 10)")
    parser.add_argument("--peers", default="apscheduler", help="beside beatd at the first rate; empty for none")
    options = parser.parse_args()
    rates = [int(rate) for rate in options.rates.split(",")]
    show(figures(rates, options.seconds, list(filter(None, options.peers.split(",")))))


if __name__ == "__main__":
    main()
