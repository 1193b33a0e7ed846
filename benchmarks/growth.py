"""Growth: start, memory, lateness and costs, with more entries, runs, queues, results, shards, and processes.

    python benchmarks/growth.py [--quick]

Curves on logarithmic scales: what grows with the size is a straight line that rises by one decade for each decade, what
does not depend on it is flat. Memory and costs, which are processor time, are written to ``docs/sizing-*.svg``; start,
lateness and daemons, which say something on a quiet machine only, to ``benchmarks/results/growth-*.svg``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import cluster
import herd
import memory
import redis
import reload
import steady
import worker
from figures import Figure, curve, machine, number
from herd import fresh_redis

from beatd.store.client import connect

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = Path(__file__).parent / "results"
Points = list[tuple[float, float]]


def of_entries(sizes: Sequence[int], saturated: Sequence[int]) -> tuple[dict[str, Points], dict[str, Points]]:
    """Memory (MB) of the daemon, and of the store when every record is taken; and time to start (s)."""
    store, daemon, start = Points(), Points(), Points()
    for n in sizes:
        values = {one.what: one.value for one in _shown(reload.run("beatd", n, 0))}
        start.append((n, values["start to first message"]))
        daemon.append((n, values["memory after the start"]))
    for n in saturated:
        most = max(one.megabytes for one in memory.samples(n, 2_000, 80 * n))
        store.append((n, most))
        print(f"{n:,} entries: {number(most, 'MB')} in the store", flush=True)
    return {"daemon": daemon, "store": store}, {"start to first message": start}


def of_rates(rates: Sequence[int], seconds: float) -> dict[str, Points]:
    """Lateness and CPU over runs a second."""
    found: dict[str, Points] = {"lateness p50, ms": [], "lateness p99, ms": [], "CPU of the daemon, %": []}
    whats = ("lateness, p50", "lateness, p99", "CPU of the scheduler")
    for rate in rates:
        values = {one.what: one for one in _shown(steady.run("beatd", rate, seconds))}
        for points, what in zip(found.values(), whats, strict=True):
            points.append((rate, max(values[what].value, 0.001)))
    return found


def of_runs(entries: Sequence[int], queues: Sequence[int], results: Sequence[int], runs: int) -> dict[str, Points]:
    """Microseconds of a run, from its claim to the note of its end, by what there is more of."""
    return {
        "entries": [(n, cost(n)) for n in entries],
        "queues": [(n, cost(10_000, queues=n)) for n in queues],
        "results in the store": [(n, cost(10_000, results=n)) for n in results],
        "runs of an entry before": history_costs(1_000, runs),
        "shards, through the outbox": [(n, shard_cost(n)) for n in (1, 2, 4, 8)],
    }


def cost(entries: int, *, queues: int = 1, results: int = 0, runs: int = 100_000) -> float:
    """Microseconds of processor time, of the daemon's side and the server, for each of so many runs."""
    with fresh_redis() as url, connect(url, timeout_ms=30_000) as client:
        day = memory.Day(client, entries, 2_000, queues=queues)
        for start in range(0, results, 10_000):
            client.mset(
                {f"celery-task-meta-{number}": "r" * 200 for number in range(start, min(start + 10_000, results))}
            )
        day.go_on()
        rounds = max(runs // entries, 1)
        with spent(client) as seconds:
            for _ in range(rounds):
                day.go_on()
    return _said(f"{entries:,} entries, {queues:,} queues, {results:,} results", 1e6 * seconds[0] / (rounds * entries))


def shard_cost(shards: int) -> float:
    """Microseconds of a message through the outbox: claimed, read, and struck off."""
    with fresh_redis() as url, connect(url) as client:
        server = SimpleNamespace(pid=client.info("server")["process_id"])
        own, theirs, _ = cluster.cost(url, [server], shards, 40_000)
    return _said(f"{shards} shards", own + theirs)


def history_costs(entries: int, runs: int) -> Points:
    """The same, while the histories of the entries fill: by the runs that an entry has had."""
    points, at = Points(), 1
    with fresh_redis() as url, connect(url, timeout_ms=30_000) as client:
        day = memory.Day(client, entries, 2_000)
        for rounds in _doubled(runs):
            with spent(client) as seconds:
                for _ in range(rounds):
                    day.go_on()
            points.append((at, _said(f"runs {at:,} and on", 1e6 * seconds[0] / (rounds * entries))))
            at += rounds
    return points


@contextlib.contextmanager
def spent(client: redis.Redis, *, own: bool = True) -> Iterator[list[float]]:
    """The processor time (s) that the server, and this process unless ``own`` is off, take within the context."""

    def total() -> float:
        cpu = client.info("cpu")
        return (time.process_time() if own else 0.0) + float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])

    seconds, before = [0.0], total()
    yield seconds
    seconds[0] = total() - before


def _doubled(most: int) -> Iterator[int]:
    rounds = 4
    while rounds <= most:
        yield rounds
        rounds *= 2


def _said(what: str, microseconds: float) -> float:
    print(f"{what:60} {number(microseconds, 'µs')}", flush=True)
    return microseconds


def of_workers(processes: Sequence[int]) -> dict[str, Points]:
    """Microseconds of a task that does nothing, and of the server, by the number of processes of a worker."""
    found: dict[str, Points] = {"worker": [], "server": []}
    for n in processes:
        contender = worker.ALL["beatd"]
        contender = contender._replace(two=contender.two.replace("-c 2", f"-c {n}"))
        with fresh_redis() as url, connect(url) as client, tempfile.TemporaryDirectory() as folder:
            bench, costs = worker.Bench(contender, url, url, Path(folder)), []
            for tasks in (2_000, 42_000):  # what starting takes is in both
                bench.fill(worker.COLUMNS[0], "noop", tasks)
                with spent(client, own=False) as seconds:
                    bench.drain(worker.COLUMNS[0], tasks)
                costs.append((bench.cpu_s, seconds[0]))
        for points, few, many in zip(found.values(), *costs, strict=True):
            points.append((n, 1e6 * (many - few) / 40_000))
        _said(f"{n} processes: worker", found["worker"][-1][1])
        _said(f"{n} processes: server", found["server"][-1][1])
    return found


def of_daemons(daemons: Sequence[int], seconds: float) -> dict[str, Points]:
    """Processor time (% of a core) of server, leader, and a standby, by the number of daemons; 100 runs a second."""
    found: dict[str, Points] = {"server": [], "leader": [], "one standby": []}
    for n in daemons:
        with fresh_redis() as url, connect(url) as client, contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            running = [steady.start_beatd(url, 100, folder)]
            stack.callback(herd.end, running[0])
            while not client.llen("celery"):
                time.sleep(0.1)
            for _ in range(n - 1):
                running.append(steady.start_beatd(url, 100, folder))
                stack.callback(herd.end, running[-1])
            time.sleep(5 + n)
            before = [reload.cpu_seconds(one.pid) for one in running]
            with spent(client, own=False) as server:
                time.sleep(seconds)
            own = [reload.cpu_seconds(one.pid) - then for one, then in zip(running, before, strict=True)]
        for points, one in zip(found.values(), (server[0], own[0], sum(own[1:]) / max(n - 1, 1)), strict=True):
            points.append((n, 100 * one / seconds))
        print(f"{n} daemons: server {found['server'][-1][1]:.2f} %, leader {found['leader'][-1][1]:.2f} %", flush=True)
    return found


def _shown(figures: Iterable[Figure]) -> list[Figure]:
    taken = list(figures)
    for one in taken:
        print(f"{one.row:20} {one.what:24} {number(one.value, one.unit)}", flush=True)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="up to 100,000 entries and 10,000 runs a second")
    quick = parser.parse_args().quick
    decades = [10**each for each in range(2, 6 if quick else 7)]
    seconds = 4 if quick else 10
    in_memory, start = of_entries(decades, [100, 1_000, 4_000] if quick else [100, 1_000, 10_000])
    rates = of_rates([100, 1_000, 3_000, 10_000] if quick else [100, 1_000, 5_000, 20_000, 50_000], seconds)
    runs = of_runs(decades[:4], [1, 10, 100, 1_000], decades, 200 if quick else 1_000)
    tasks = of_workers([1, 2, 4, 8])
    daemons = of_daemons([1, 2, 4, 8], seconds)
    curves = {
        RESULTS / "growth-start.svg": ("Start", "entries", "seconds", start),
        RESULTS / "growth-rates.svg": ("Runs a second", "runs a second", ", ".join(rates), rates),
        RESULTS / "growth-daemons.svg": ("Daemons, 100 runs a second", "daemons", "% of a core", daemons),
        DOCS / "sizing-memory.svg": ("Memory", "entries", "MB", in_memory),
        DOCS / "sizing-runs.svg": ("Processor time of a run: daemon and server", "number", "µs", runs),
        DOCS / "sizing-workers.svg": ("Processor time of a task that does nothing", "processes", "µs", tasks),
    }
    RESULTS.mkdir(exist_ok=True)
    for file, (title, across, up, series) in curves.items():
        file.write_text(curve(title, across, up, series))
        for what, points in series.items():
            row = "  ".join(f"{x:,.0f}: {number(y, '').strip()}" for x, y in points)
            print(f"{what:28} {row}")
    facts = {"machine": machine(), **{file.stem: series for file, (*_, series) in curves.items()}}
    (RESULTS / "growth.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
