"""Workers beside each other: how many tasks a second, and how long from delay to get.

    python benchmarks/worker.py [--only beatd,celery] [--seconds 3]

Every contender has two processes and a Redis of its own (AOF, as in production), or a RabbitMQ; for sleeps 100 tasks
at a time. The queue is filled before its worker starts, and filling is not measured. Counted is what has run, in memory
that all processes share (``contenders/count.py``), from the first tenth to the last task: no rate is assumed. If the
last one comes too soon, the measurement is made again with as many tasks as the contender has shown to run in
``--seconds``. Messages are acknowledged after the run, where the contender can do that (not huey).

noop: a task that does nothing; runs: the same as runs of the schedule; cpu: 1 ms of a core; sleep: 10 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
CONTENDERS = HERE / "contenders"
sys.path[:0] = [str(HERE.parent), str(CONTENDERS)]

import count  # noqa: E402
import redis  # noqa: E402
from figures import LIMIT, Figure, show  # noqa: E402
from herd import fresh_redis  # noqa: E402

from tests.rabbitmq import RabbitMQ, installed  # noqa: E402

BIN = Path(sys.executable).parent
START_WITHIN = 30.0
LAST_WITHIN = 60.0
"""Seconds from the first tenth to the last task."""
FEWEST, MOST = 1_000, 400_000
"""Tasks of a measurement."""


class Contender(NamedTuple):
    """Command lines of a worker: with two processes, and with a hundred tasks at a time."""

    module: str
    two: str
    hundred: str
    rabbitmq: bool = False


CELERY = "celery -A celery_tasks worker -l error --without-gossip --without-mingle --without-heartbeat"
ALL = {
    "beatd": Contender(
        "beatd_tasks",
        "python -m beatd worker -A beatd_tasks -l error -c 2",
        "python -m beatd worker -A beatd_tasks -l error -P asyncio -c 100",
        rabbitmq=True,
    ),
    "beatd threads": Contender("beatd_tasks", "", "python -m beatd worker -A beatd_tasks -l error -P threads -c 100"),
    "celery": Contender("celery_tasks", f"{CELERY} -c 2", "", rabbitmq=True),
    "celery threads": Contender("celery_tasks", f"{CELERY} -P threads -c 2", f"{CELERY} -P threads -c 100"),
    "dramatiq": Contender(
        "dramatiq_tasks",
        "dramatiq dramatiq_tasks --processes 2 --threads 8",
        "dramatiq dramatiq_tasks --processes 2 --threads 50",
    ),
    "taskiq": Contender(
        "taskiq_tasks",
        "taskiq worker taskiq_tasks:broker --workers 2 --log-level ERROR",
        "taskiq worker taskiq_tasks:broker --workers 2 --max-async-tasks 50 --log-level ERROR",
    ),
    "huey": Contender(
        "huey_tasks",
        "huey_consumer huey_tasks.huey -w 2 -k process -q -n",
        "huey_consumer huey_tasks.huey -w 100 -k thread -q -n",
    ),
    f"{LIMIT}: bare loop": Contender("bare_tasks", "python bare_tasks.py", ""),
    "saq": Contender("saq_tasks", "saq saq_tasks.settings --workers 2", "saq saq_tasks.settings --workers 2"),
}


class Column(NamedTuple):
    """One measurement of all contenders."""

    row: str
    kind: str
    results: bool = False
    hundred: bool = False
    is_scheduled: bool = False
    fewest: int = FEWEST


COLUMNS = (
    Column("worker: no-op", "noop"),
    Column("worker: no-op with results", "noop", results=True),
    Column("worker: runs of the schedule", "noop", results=True, is_scheduled=True),
    Column("worker: 1 ms of CPU", "cpu"),
    Column("worker: 100 sleeps of 10 ms at a time", "nap", hundred=True),
)


class Bench:
    """One contender on one broker, in a folder of its own."""

    def __init__(self, contender: Contender, redis_url: str, broker_url: str, folder: Path) -> None:
        self.contender = contender
        self.cpu_s = 0.0
        """Processor time (s) of the last worker and its processes, from its start to its end."""
        self._count = folder / "count"
        self._log = folder / "log"
        self._env = {
            **os.environ,
            "BENCH_REDIS": redis_url,
            "BENCH_BROKER": broker_url,
            "BENCH_COUNT": str(self._count),
            "PYTHONPATH": f"{CONTENDERS}:{HERE.parent}",
            "PYTHONWARNINGS": "ignore",
        }

    def rate(self, column: Column, kind: str, n: int) -> tuple[float, float]:
        """Tasks a second of ``n`` that were in the queue before the worker began, and the seconds they took."""
        self.fill(column, kind, n)
        return self.drain(column, n)

    def fill(self, column: Column, kind: str, n: int) -> None:
        """Send ``n`` messages."""
        self._env |= {
            "BENCH_RESULTS": "1" if column.results else "",
            "BENCH_CONCURRENCY": "50" if column.hundred else "10",
        }
        count.make(self._count)
        fill = f"fill_runs({kind!r}, {n})" if column.is_scheduled else f"fill({kind!r}, {n})"
        self._run(f"import {self.contender.module} as tasks; tasks.{fill}")

    def drain(self, column: Column, n: int) -> tuple[float, float]:
        """Have a worker run them: tasks a second, and the seconds they took."""
        with self._worker(self.contender.hundred if column.hundred else self.contender.two):
            return self._watch(n)

    def round_trips(self, seconds: float) -> list[float]:
        """How long single calls took, one after the other (seconds)."""
        self._env |= {"BENCH_RESULTS": "1"}
        count.make(self._count)
        with self._worker(self.contender.two):
            code = f"""
import time, {self.contender.module} as tasks
for _ in range(20): tasks.round_trip()
until = time.monotonic() + {seconds}
while time.monotonic() < until:
    began = time.perf_counter(); tasks.round_trip(); print(time.perf_counter() - began)
"""
            return [float(line) for line in self._run(code).split()]

    def large(self, megabytes: int) -> float:
        """Seconds of a call with a large argument."""
        self._env |= {"BENCH_RESULTS": "1"}
        count.make(self._count)
        with self._worker(self.contender.two):
            code = f"import {self.contender.module} as tasks; tasks.round_trip(); print(tasks.large({megabytes}))"
            return float(self._run(code))

    def _watch(self, n: int) -> tuple[float, float]:
        begun: tuple[float, int] | None = None
        give_up = time.monotonic() + START_WITHIN
        while (done := count.total(self._count)) < n:
            now = time.monotonic()
            if begun is None and done >= n // 10:
                begun, give_up = (now, done), now + LAST_WITHIN
            if now > give_up:
                raise RuntimeError(f"{done:,} of {n:,} tasks had run when it was given up")
            time.sleep(0.005)
        now = time.monotonic()
        if begun is None:
            return n / 0.005, 0.0
        return (done - begun[1]) / max(now - begun[0], 1e-9), now - begun[0]

    def _run(self, code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], env=self._env, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-500:])
        return done.stdout

    @contextlib.contextmanager
    def _worker(self, command: str) -> Iterator[None]:
        program, *words = command.split()
        before = _children_s()
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [BIN / program, *words], env=self._env, cwd=CONTENDERS, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.cpu_s = _children_s() - before


def _children_s() -> float:
    """Processor time (s) of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(name: str, column: Column, redis_url: str, broker_url: str, seconds: float) -> float:
    """Tasks a second: measured again with more of them until they last for half of ``seconds``."""
    kind = "anap" if name == "beatd" and column.hundred else column.kind
    n = column.fewest
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(ALL[name], redis_url, broker_url, Path(folder))
        while True:
            try:
                rate, took = bench.rate(column, kind, n)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                print(f"{name}: {error}", file=sys.stderr)
                return math.nan
            if took >= seconds / 2 or n == MOST:
                return rate
            n = min(MOST, max(2 * n, min(int(rate * seconds), 20 * n)) // 100 * 100)


def takes_part(name: str, column: Column, *, on_rabbitmq: bool = False) -> bool:
    contender = ALL[name]
    if on_rabbitmq and (not contender.rabbitmq or column.hundred or column.is_scheduled):
        return False
    if name.startswith(LIMIT) and column.kind != "noop":
        return False
    if column.is_scheduled and name != "beatd":
        return False
    return bool(contender.hundred if column.hundred else contender.two)


def on_redis(names: Sequence[str], columns: Sequence[Column], seconds: float) -> Iterator[Figure]:
    """One round on Redis: all contenders of a row one after the other."""
    for column in columns:
        for name in names:
            if takes_part(name, column):
                with fresh_redis() as url:
                    yield Figure(column.row, "tasks a second", name, measure(name, column, url, url, seconds))


def trips(names: Sequence[str], seconds: float) -> Iterator[Figure]:
    """Round trips and a large argument on Redis."""
    for name in names:
        if not ALL[name].two or name.startswith(LIMIT):
            continue
        with fresh_redis() as url, tempfile.TemporaryDirectory() as folder:
            bench = Bench(ALL[name], url, url, Path(folder))
            took = sorted(_tried(name, partial(bench.round_trips, seconds)) or [])
        if took:
            for what, at in (("p50", 0.5), ("p99", 0.99)):
                ms = took[int(len(took) * at)] * 1000
                yield Figure("delay to get", what, name, ms, "ms", more_is_better=False)
    for what, at in (("p50", 0.5), ("p99", 0.99)):
        yield Figure("delay to get", what, f"{LIMIT}: two round trips", _two_trips(at), "ms", more_is_better=False)
    for name in [one for one in names if one in ("beatd", "celery")]:
        with fresh_redis() as url, tempfile.TemporaryDirectory() as folder:
            seconds_taken = _tried(name, partial(Bench(ALL[name], url, url, Path(folder)).large, 5))
        if seconds_taken is not None:
            yield Figure("an argument of 5 MB", "call to result", name, seconds_taken, "s", more_is_better=False)


def _tried(name: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return None


def _two_trips(at: float) -> float:
    with fresh_redis() as url, redis.Redis.from_url(url) as client:
        took = []
        for _ in range(2_000):
            began = time.perf_counter()
            client.lpush("celery", b"m" * 800)
            client.rpop("celery")
            took.append(time.perf_counter() - began)
    return sorted(took)[int(len(took) * at)] * 1000


def on_rabbitmq(node: RabbitMQ, names: Sequence[str], columns: Sequence[Column], seconds: float) -> Iterator[Figure]:
    """One round on RabbitMQ."""
    for column in columns:
        for name in names:
            if not takes_part(name, column, on_rabbitmq=True):
                continue
            with fresh_redis() as url:
                rate = measure(name, column, url, node.url, seconds)
            yield Figure(column.row.replace("worker", "worker on RabbitMQ"), "tasks a second", name, rate)
            connection = node.connect()
            connection.channel().queue_purge("celery")
            connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(ALL), help=f"of {', '.join(ALL)}")
    parser.add_argument("--seconds", type=float, default=3.0, help="about, for each measurement (default: 3)")
    parser.add_argument("--broker", default="redis,rabbitmq", help="redis, rabbitmq, or both")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name in ALL]
    if "redis" in options.broker:
        show(on_redis(names, COLUMNS, options.seconds))
        show(trips(names, options.seconds))
    if "rabbitmq" in options.broker and installed():
        node = RabbitMQ()
        try:
            node.start()
            show(on_rabbitmq(node, names, COLUMNS[:2], options.seconds))
        finally:
            node.close()


if __name__ == "__main__":
    main()
