"""All benchmarks side by side: beatd, its peers, and what the server does without them, in the same minutes.

    python benchmarks/suite.py [--quick] [--only herd,worker] [--rounds 3]

Each round measures every row once; the table has medians and spreads. Results are in ``benchmarks/results``: a table in
Markdown, pictures, and the figures as JSON, under the name ``full`` or ``quick``. ``--quick`` takes about five minutes,
with fewer peers and shorter measurements: good for a comparison, too little for a record.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import failover
import herd
import memory
import outbox
import pages
import reload
import schedules
import steady
import worker
from figures import Figure, show, write

from tests.rabbitmq import RabbitMQ, installed

RESULTS = Path(__file__).parent / "results"


def herds(quick: bool) -> Iterator[Figure]:
    yield from herd.figures(10_000, 5 if quick else 20)
    if not quick:
        yield from herd.figures(100_000, 60, peers=())


def shards(quick: bool) -> Iterator[Figure]:
    for number in (1, 4) if quick else (1, 2, 4, 8):
        rate = herd.run("beatd", 10_000, 60, more=f"[leader]\nshards = {number}\n").rate
        yield Figure(f"herd of 10,000 in {number} shards", "messages a second", "beatd", rate)


def steady_load(quick: bool) -> Iterator[Figure]:
    rates = (1_000, 10_000) if quick else (1_000, 10_000, 20_000, 50_000)
    yield from steady.figures(rates, 4 if quick else 10, ["apscheduler"])


def open_pages(quick: bool) -> Iterator[Figure]:
    yield from pages.figures(10_000, 10, 1_000, 4, 1 if quick else 3)


def confirmed(quick: bool) -> Iterator[Figure]:
    with_node = RabbitMQ()
    try:
        with_node.start()
        yield from outbox.figures(with_node, 10_000, 5 if quick else 20)
        names = ["beatd"] if quick else ["beatd", "celery"]
        yield from worker.on_rabbitmq(with_node, names, worker.COLUMNS[:2], 1 if quick else 3)
    finally:
        with_node.close()


def steps(quick: bool) -> Iterator[Figure]:
    yield from schedules.figures(1 if quick else 5, 3 if quick else len(schedules.CASES))


def large_schedule(quick: bool) -> Iterator[Figure]:
    yield from reload.figures(100_000, 1 if quick else 3, () if quick else ("celery", "apscheduler"))
    if not quick:
        yield from reload.figures(1_000_000, 2, ())


def leaders(quick: bool) -> Iterator[Figure]:
    yield from failover.figures(2 if quick else 20, peers=not quick)


def workers(quick: bool) -> Iterator[Figure]:
    names = ["beatd", "celery", next(name for name in worker.ALL if name.startswith("limit"))]
    columns = worker.COLUMNS[:3] if quick else worker.COLUMNS
    yield from worker.on_redis(names if quick else list(worker.ALL), columns, 1 if quick else 3)
    yield from worker.trips(names if quick else list(worker.ALL), 1)


def store(quick: bool) -> Iterator[Figure]:
    entries = 1_000 if quick else 10_000
    yield from memory.figures(entries, 2_000, 80 * entries)


ROWS: dict[str, Callable[[bool], Iterable[Figure]]] = {
    "herd": herds,
    "steady": steady_load,
    "pages": open_pages,
    "outbox": confirmed,
    "schedules": steps,
    "large": large_schedule,
    "failover": leaders,
    "worker": workers,
    "memory": store,
    "shards": shards,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="five minutes instead of an hour")
    parser.add_argument("--only", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, help="default: 3; with --quick 1")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - ROWS.keys():
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    rounds, found, began = options.rounds or (1 if options.quick else 3), list[Figure](), time.monotonic()
    remarks = [f"rounds: {rounds}"]
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 2:
        remarks.append(f"**the machine was busy when it began (load {load:.1f}): compare within a row only**")
        print(remarks[-1], flush=True)
    for name in wanted:
        if name == "outbox" and not installed():
            remarks.append("not measured, as there is no RabbitMQ here: outbox")
            continue
        for _ in range(rounds):
            try:
                for one in ROWS[name](options.quick):
                    show([one])
                    found.append(one)
            except Exception as error:  # noqa: BLE001 - an hour of figures is not lost to a server that did not start
                why = str(error).partition("\n")[0][:200]
                print(f"{name}: {type(error).__name__}: {why}", flush=True)
                remarks.append(f"{name} was not measured to its end: {why}")
    remarks.append(f"took {(time.monotonic() - began) / 60:.0f} minutes")
    print(f"written: {write(found, RESULTS, 'quick' if options.quick else 'full', remarks)}")


if __name__ == "__main__":
    main()
