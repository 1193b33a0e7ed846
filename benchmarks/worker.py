"""Workers beside each other: how many tasks a second, and how long from delay to get.

    python benchmarks/worker.py [--only beatd,celery] [--tasks 20000] [--seconds 4]

Every contender has two processes and a Redis of its own (AOF, as in production), or a RabbitMQ; for sleeps 100 tasks
at a time. The queue is filled before its worker starts. Counted is what has run, in memory that all processes share
(``contenders/count.py``), from the first tenth to the last task, or for as long as ``--seconds`` allows. Messages are
acknowledged after the run, where the contender can do that (not huey).

noop: a task that does nothing; cpu: 1 ms of a core; sleep: 10 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
CONTENDERS = HERE / "contenders"
sys.path[:0] = [str(HERE.parent), str(CONTENDERS)]

import count  # noqa: E402
from herd import fresh_redis  # noqa: E402

from tests.rabbitmq import RabbitMQ, installed  # noqa: E402

BIN = Path(sys.executable).parent
START_WITHIN = 30.0


class Contender(NamedTuple):
    """Command lines of a worker: with two processes, and with a hundred tasks at a time."""

    module: str
    two: str
    hundred: str
    rate: int
    """About how many no-ops a second: as many are sent as it can run in the time."""
    rabbitmq: bool = False


CELERY = "celery -A celery_tasks worker -l error --without-gossip --without-mingle --without-heartbeat"
ALL = {
    "beatd": Contender(
        "beatd_tasks",
        "python -m beatd worker -A beatd_tasks -l error -c 2",
        "python -m beatd worker -A beatd_tasks -l error -P asyncio -c 100",
        20_000,
        rabbitmq=True,
    ),
    "beatd threads": Contender(
        "beatd_tasks", "", "python -m beatd worker -A beatd_tasks -l error -P threads -c 100", 9_000
    ),
    "celery": Contender("celery_tasks", f"{CELERY} -c 2", "", 1_000, rabbitmq=True),
    "celery threads": Contender("celery_tasks", f"{CELERY} -P threads -c 2", f"{CELERY} -P threads -c 100", 1_000),
    "dramatiq": Contender(
        "dramatiq_tasks",
        "dramatiq dramatiq_tasks --processes 2 --threads 8",
        "dramatiq dramatiq_tasks --processes 2 --threads 50",
        3_000,
    ),
    "taskiq": Contender(
        "taskiq_tasks",
        "taskiq worker taskiq_tasks:broker --workers 2 --log-level ERROR",
        "taskiq worker taskiq_tasks:broker --workers 2 --max-async-tasks 50 --log-level ERROR",
        2_000,
    ),
    "huey": Contender(
        "huey_tasks",
        "huey_consumer huey_tasks.huey -w 2 -k process -q -n",
        "huey_consumer huey_tasks.huey -w 100 -k thread -q -n",
        2_500,
    ),
    "saq": Contender("saq_tasks", "saq saq_tasks.settings --workers 2", "saq saq_tasks.settings --workers 2", 1_500),
}


class Bench:
    """One contender on one broker, in a folder of its own."""

    def __init__(self, name: str, redis_url: str, broker_url: str, folder: Path) -> None:
        self.contender = ALL[name]
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

    def rate(self, kind: str, n: int, seconds: float, *, results: bool, hundred: bool) -> float:
        """Tasks a second."""
        self._env |= {"BENCH_RESULTS": "1" if results else "", "BENCH_CONCURRENCY": "50" if hundred else "10"}
        count.make(self._count)
        self._run(f"import {self.contender.module} as tasks; tasks.fill({kind!r}, {n})")
        command = self.contender.hundred if hundred else self.contender.two
        with self._worker(command):
            return self._watch(n, seconds)

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

    def _watch(self, n: int, seconds: float) -> float:
        begun: tuple[float, int] | None = None
        give_up = time.monotonic() + START_WITHIN
        while True:
            now, done = time.monotonic(), count.total(self._count)
            if begun is None and done >= max(n // 10, 1):
                begun, give_up = (now, done), now + seconds
            if done >= n or now > give_up:
                break
            time.sleep(0.002)
        if begun is None:
            return 0.0
        return (done - begun[1]) / max(now - begun[0], 1e-9)

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


class Column(NamedTuple):
    """One measurement of all contenders."""

    title: str
    kind: str
    results: bool = False
    hundred: bool = False
    most: int = 1_000_000
    """Tasks a second that two cores, or the sleeps, allow."""


COLUMNS = (
    Column("noop", "noop"),
    Column("noop+result", "noop", results=True),
    Column("cpu 1 ms", "cpu", most=2_000),
    Column("sleep 10 ms", "nap", hundred=True, most=10_000),
)


def measure(name: str, column: Column, redis_url: str, broker_url: str, options: argparse.Namespace) -> str:
    """One cell of the table."""
    contender = ALL[name]
    if not (contender.hundred if column.hundred else contender.two):
        return ""
    n = max(200, min(options.tasks, int(min(contender.rate, column.most) * options.seconds)) // 100 * 100)
    kind = "anap" if name == "beatd" and column.hundred else column.kind
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(name, redis_url, broker_url, Path(folder))
        try:
            rate = bench.rate(kind, n, options.seconds, results=column.results, hundred=column.hundred)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return "failed"
    return f"{rate:,.0f}/s" if rate else "failed"


def round_trip(name: str, redis_url: str, broker_url: str, options: argparse.Namespace) -> str:
    """The last cell."""
    if not ALL[name].two:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            took = sorted(Bench(name, redis_url, broker_url, Path(folder)).round_trips(options.seconds / 2))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return "failed"
    return f"{took[len(took) // 2] * 1000:.1f} / {took[int(len(took) * 0.99)] * 1000:.1f} ms" if took else "failed"


def row(name: str, place: str, cells: list[str]) -> None:
    print(f"{name:15} {place:9}" + "".join(f"{cell:>13}" for cell in cells[:-1]) + f"{cells[-1]:>18}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(ALL), help=f"of {', '.join(ALL)}")
    parser.add_argument("--tasks", type=int, default=40_000, help="at most, for each measurement (default: 40000)")
    parser.add_argument("--seconds", type=float, default=3.0, help="at most, for each measurement (default: 3)")
    parser.add_argument("--broker", default="redis,rabbitmq", help="redis, rabbitmq, or both")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name in ALL]
    print(f"{os.cpu_count()} cores; Python {sys.version.split()[0]}; {datetime.now(UTC):%F}; 2 processes each")
    row("worker", "broker", [*(column.title for column in COLUMNS), "round trip p50/p99"])
    if "redis" in options.broker:
        for name in names:
            cells = []
            for column in COLUMNS:
                with fresh_redis() as url:
                    cells.append(measure(name, column, url, url, options))
            with fresh_redis() as url:
                row(name, "Redis", [*cells, round_trip(name, url, url, options)])
    if "rabbitmq" in options.broker and installed():
        node = RabbitMQ()
        try:
            node.start()
            for name in names:
                if ALL[name].rabbitmq:
                    on_rabbitmq(name, node, options)
        finally:
            node.close()


def on_rabbitmq(name: str, node: RabbitMQ, options: argparse.Namespace) -> None:
    cells = []
    for column in COLUMNS[:3]:
        with fresh_redis() as url:
            cells.append(measure(name, column, url, node.url, options))
        connection = node.connect()
        connection.channel().queue_purge("celery")
        connection.close()
    with fresh_redis() as url:
        row(name, "RabbitMQ", [*cells, "", round_trip(name, url, node.url, options)])


if __name__ == "__main__":
    main()
