"""Growth: what start, memory, lateness and herds become with more entries, more runs a second, and more shards.

    python benchmarks/growth.py [--quick]

Curves on logarithmic scales: what grows with the size is a straight line that rises by one decade for each decade, what
does not depend on it is flat. Memory is written to ``docs/sizing-memory.svg``; start, lateness and cost of a message,
which say something on a quiet machine only, to ``benchmarks/results/growth-*.svg``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import herd
import memory
import reload
import steady
from figures import Figure, curve, machine, number

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


def of_shards(shards: Sequence[int], n: int) -> dict[str, Points]:
    """Microseconds of a message in a herd, by the number of shards on one server."""
    points = []
    for number_ in shards:
        rate = herd.run("beatd", n, 60, more=f"[leader]\nshards = {number_}\n").rate
        points.append((float(number_), 1e6 / rate if rate > 0 else 0.0))
        print(f"{number_} shards: {number(rate, '/s')}", flush=True)
    return {"µs a message": points}


def _shown(figures: Iterable[Figure]) -> list[Figure]:
    taken = list(figures)
    for one in taken:
        print(f"{one.row:20} {one.what:24} {number(one.value, one.unit)}", flush=True)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="up to 100,000 entries and 10,000 runs a second")
    quick = parser.parse_args().quick
    sizes = [100, 1_000, 10_000, 100_000, *(() if quick else (1_000_000,))]
    in_memory, start = of_entries(sizes, [100, 1_000, 4_000] if quick else [100, 1_000, 10_000])
    rates = of_rates([100, 1_000, 3_000, 10_000] if quick else [100, 1_000, 5_000, 20_000, 50_000], 4 if quick else 10)
    curves = {
        RESULTS / "growth-start.svg": ("Start", "entries", "seconds", start),
        RESULTS / "growth-rates.svg": ("Runs a second", "runs a second", ", ".join(rates), rates),
        RESULTS / "growth-shards.svg": ("Shards on one server", "shards", "µs", of_shards([1, 2, 4, 8], 10_000)),
        DOCS / "sizing-memory.svg": ("Memory", "entries", "MB", in_memory),
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
