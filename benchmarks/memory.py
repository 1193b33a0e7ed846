"""Memory of the store: a day of runs, compressed. What grows with runs would grow here, too.

    python benchmarks/memory.py [--entries 10000] [--rate 2000] [--runs 400000] [--document]

The scripts of the daemon and of the worker are driven directly, with a clock that is told the time: claims of every
run, and reports of their ends with a typical record. Queues are emptied at once. A day at ``--rate`` has 86,400 times
as many runs; it is enough to go on until every bound is reached, and to see that nothing grows from there.
``--document``: each run stores its result under its id as well, as ``keep_result`` has it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import redis
from figures import Figure, curve, number
from herd import fresh_redis

from beatd.model import run_id
from beatd.store.claims import Claim, Claims
from beatd.store.client import connect
from beatd.store.history import Cells
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.outcomes import Ended, Outcomes
from beatd.store.result_document import document
from beatd.store.run_record import RunRecord, encoded
from beatd.timestamps import iso_ms

NOW = 1_790_000_000_000
BATCH = 500


class Sample(NamedTuple):
    """The store after so many runs."""

    runs: int
    keys: int
    megabytes: float


class Day:
    """Runs of ``entries``, each of them due at the same instants, to ``queues`` queues."""

    def __init__(self, client: redis.Redis, entries: int, rate: int, *, queues: int = 1) -> None:
        keys = Keys()
        leases = Leases(client, keys, daemon_id="d", ttl_ms=10**9)
        self._lease = leases.value(leases.take([0])[0])
        self._client, self._claims, self._outcomes = client, Claims(client, keys), Outcomes(client, keys)
        self._queues = [f"queue-{number}" for number in range(queues)]
        self._names = [f"team-{number % 20}-report-{number}" for number in range(entries)]
        self._period_ms = max(1, entries * 1000 // rate)
        self._cells, self.due_ms = Cells(), NOW

    def go_on(self, *, with_document: bool = False) -> None:
        """One run of each entry, from its claim to its end."""
        after_ms, self.due_ms = self.due_ms, self.due_ms + self._period_ms
        cell = self._cells.sent(self.due_ms, self.due_ms, self.due_ms + 3)
        to_queues = list(zip(self._names, itertools.cycle(self._queues)))
        batches = [to_queues[at : at + BATCH] for at in range(0, len(to_queues), BATCH)]
        claims = ([Claim(name, self.due_ms, to, b"m" * 800, "", cell) for name, to in each] for each in batches)
        for _ in self._claims.claim(claims, lease_value=self._lease):
            pass
        self._client.delete(*self._queues)
        ended = [self._end(name, after_ms) for name in self._names]
        self._outcomes.note(ended)
        if with_document:
            pipeline = self._client.pipeline(transaction=False)
            for end in ended:
                text = document(end.run_id, "SUCCESS", None, date_done=end.due_at)
                pipeline.setex(f"celery-task-meta-{end.run_id}", 86_400, text)
            pipeline.execute()

    def _end(self, name: str, after_ms: int) -> Ended:
        due_ms, end_ms = self.due_ms, self.due_ms + 25
        record = RunRecord(
            run_id=run_id(name, due_ms),
            state="SUCCESS",
            end_ms=end_ms,
            start_ms=due_ms + 12,
            worker="celery@worker-7.example.com",
            task="reports.tasks.build",
            kwargs="{'region': 'emea', 'format': 'pdf'}",
            result="{'rows': 1520}",
        )
        due_at = iso_ms(due_ms)
        return Ended(record.run_id, name, due_at, "SUCCESS", 0.013, encoded(record), end_ms=end_ms, after_ms=after_ms)


def samples(entries: int, rate: int, runs: int, *, with_document: bool = False) -> Iterator[Sample]:
    """The store, ten times on the way."""
    with fresh_redis() as url, connect(url, timeout_ms=30_000) as client:
        day, rounds = Day(client, entries, rate), max(runs // entries, 10)
        for each in range(1, rounds + 1):
            day.go_on(with_document=with_document)
            if each % (rounds // 10) == 0:
                yield Sample(each * entries, client.dbsize(), client.info("memory")["used_memory"] / 1e6)


def figures(entries: int, rate: int, runs: int) -> Iterator[Figure]:
    """The last samples, and what a run adds to them."""
    row = f"store: {rate:,} runs/s of {entries:,} entries"
    for who, with_document in (("beatd", False), ("beatd, keep_result (extrapolated)", True)):
        taken = list(samples(entries, rate, runs, with_document=with_document))
        middle, last = taken[-3], taken[-1]
        megabytes = max(one.megabytes for one in taken)
        if with_document:
            more = rate * 86_400 - last.runs
            megabytes += more * (last.megabytes - middle.megabytes) / (last.runs - middle.runs)
        keys = (last.keys - middle.keys) / (last.runs - middle.runs)
        yield Figure(row, "memory after a day", who, megabytes, "MB", more_is_better=False)
        yield Figure(row, "keys a run", who, keys, "keys", more_is_better=False)


def picture(entries: int, rate: int, runs: int) -> str:
    """Memory over runs."""
    series = {
        "results in outcomes": [(one.runs, one.megabytes) for one in samples(entries, rate, runs)],
        "keep_result": [(one.runs, one.megabytes) for one in samples(entries, rate, runs, with_document=True)],
    }
    return curve(f"Memory of the store, {entries:,} entries", "runs", "MB", series)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=2_000, help="runs a second (default: 2000)")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--document", action="store_true", help="with keep_result")
    parser.add_argument("--svg", type=Path, help="write a picture instead")
    options = parser.parse_args()
    if options.svg:
        options.svg.write_text(picture(options.entries, options.rate, options.runs))
        return
    for one in samples(options.entries, options.rate, options.runs, with_document=options.document):
        print(f"{one.runs:>12,} runs   {one.keys:>10,} keys   {number(one.megabytes, 'MB')}", flush=True)


if __name__ == "__main__":
    main()
