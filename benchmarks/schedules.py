"""What a step to the next run costs: beatd beside croniter, cronsim, celery and APScheduler, in one process.

    python benchmarks/schedules.py [--repeat 5]

Each library walks the same expression from the same start, run after run, as its scheduler does. A figure is the best
of the repeats, in microseconds per step. Only the ratios travel from machine to machine.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger
from celery.schedules import crontab as celery_crontab
from croniter import croniter
from cronsim import CronSim
from figures import Figure
from rich.console import Console
from rich.table import Table

from beatd.schedules import crontab, latest, parse

START = datetime(2026, 3, 1, 10, 3, tzinfo=UTC)
#: Expression, zone, steps of one walk.
CASES = [
    ("*/5 * * * *", "UTC", 300),
    ("*/5 * * * *", "Europe/Berlin", 300),
    ("30 7 * * mon", "UTC", 100),
    ("30 7 * * mon", "Europe/Berlin", 100),
    ("0 0 * * *", "UTC", 300),
    ("0 0 * * *", "Europe/Berlin", 300),
    ("0 9-17 * * mon-fri", "Europe/Berlin", 300),
    ("0 0 1 * *", "Europe/Berlin", 60),
    ("0 0 29 2 *", "UTC", 5),
    ("0 0 29 2 *", "Europe/Berlin", 5),
]
Step = Callable[[], object]
Walk = Callable[[str, ZoneInfo], Iterator[object]]


def beatd_ms(text: str, zone: ZoneInfo) -> Iterator[object]:
    after, t = parse(text, timezone=zone.key).next_after_ms, int(START.timestamp() * 1000)
    while True:
        t = after(t) or 0
        yield t


def beatd(text: str, zone: ZoneInfo) -> Iterator[object]:
    after, t = parse(text, timezone=zone.key).next_after, START
    while True:
        t = after(t) or START
        yield t


def with_croniter(text: str, zone: ZoneInfo) -> Iterator[object]:
    walk = croniter(text, START.astimezone(zone))
    while True:
        yield walk.get_next(datetime)


def with_cronsim(text: str, zone: ZoneInfo) -> Iterator[object]:
    return CronSim(text, START.astimezone(zone))


def with_celery(text: str, zone: ZoneInfo) -> Iterator[object]:
    minute, hour, dom, month, dow = text.split()
    t = START.astimezone(zone)
    schedule = celery_crontab(minute, hour, dow, dom, month, nowfun=lambda: t)
    schedule.tz = zone
    while True:
        last, delta, _ = schedule.remaining_delta(t)
        t = last + delta
        yield t


def with_apscheduler(text: str, zone: ZoneInfo) -> Iterator[object]:
    trigger, t = CronTrigger.from_crontab(text, timezone=zone), START.astimezone(zone)
    while True:
        t = trigger.get_next_fire_time(t, t)
        yield t


WALKS: dict[str, Walk] = {
    "beatd, ms": beatd_ms,
    "beatd": beatd,
    "croniter": with_croniter,
    "cronsim": with_cronsim,
    "celery": with_celery,
    "APScheduler": with_apscheduler,
}


def microseconds(walk: Walk, text: str, zone: ZoneInfo, steps: int, repeat: int) -> float:
    """The best time of a step; the walk is built anew for each repeat, outside of the measured time."""
    best = float("inf")
    for _ in range(repeat):
        step = walk(text, zone).__next__
        step()
        started = time.perf_counter()
        for _ in range(steps):
            step()
        best = min(best, (time.perf_counter() - started) / steps)
    return best * 1e6


def steps_table(repeat: int) -> Table:
    table = Table(title="next run, µs per step (best of repeats)")
    for column in ("expression", "zone", *WALKS):
        table.add_column(column, justify="left" if column in ("expression", "zone") else "right")
    table.add_column("best peer / beatd", justify="right")
    for text, name, steps in CASES:
        zone = ZoneInfo(name)
        figures = [microseconds(walk, text, zone, steps, repeat) for walk in WALKS.values()]
        ratio = min(figures[2:]) / figures[1]
        table.add_row(text, name, *(f"{figure:.1f}" for figure in figures), f"{ratio:.0f} x")
    return table


def timed(work: Callable[[], object], repeat: int) -> float:
    best = float("inf")
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def other_table(repeat: int) -> Table:
    """What start-up and catch-up cost."""
    table = Table(title="beatd, the rest")
    table.add_column("what")
    table.add_column("figure", justify="right")
    texts = [f"{i % 60} {i // 60 % 24} {i // 1440 % 28 + 1} * *" for i in range(10_000)]
    cold = timed(lambda: [parse(text) for text in texts], repeat) / len(texts)
    table.add_row("parse, 10,000 different strings", f"{cold * 1e6:.1f} µs each")
    kept = parse("*/5 * * * *")
    table.add_row(
        "parse, a string that is known",
        f"{timed(lambda: [parse(kept.notation) for _ in range(1000)], repeat) * 1e3:.1f} µs",
    )
    table.add_row(
        "crontab(), Celery's way",
        f"{timed(lambda: [crontab('30', '7', 'mon') for _ in range(1000)], repeat) * 1e3:.1f} µs",
    )
    tracemalloc.start()
    schedules = [parse(text, timezone="Europe/Berlin") for text in texts]
    table.add_row(
        "memory of a schedule that nobody shares", f"{tracemalloc.get_traced_memory()[0] / len(schedules):.0f} bytes"
    )
    tracemalloc.stop()
    for text in ("* * * * *", "0 9 * * mon-fri"):
        schedule = parse(text, timezone="Europe/Berlin")
        for days in (1, 365):
            until = START + timedelta(days=days)
            took = timed(lambda s=schedule, u=until: latest(s, after=START, until=u), repeat * 5)
            table.add_row(f"latest missed run of {text}, {days} days down", f"{took * 1e6:.0f} µs")
    return table


def figures(repeat: int, cases: int) -> Iterator[Figure]:
    """One round of the first cases."""
    for text, name, steps in CASES[:cases]:
        zone = ZoneInfo(name)
        for who, walk in WALKS.items():
            if who != "beatd, ms":
                took = microseconds(walk, text, zone, steps, repeat)
                yield Figure(f"next run of {text} in {name}", "one step", who, took, "µs", more_is_better=False)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--repeat", type=int, default=5)
    repeat = arguments.parse_args().repeat
    console = Console(width=150)
    console.print(steps_table(repeat))
    console.print(other_table(repeat))


if __name__ == "__main__":
    main()
