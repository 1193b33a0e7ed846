"""Soak: an hour of steady runs, with reloads, page and metrics open. Memory and lateness stay flat, all keys bounded.

    make soak ARGS="-k an_hour -s"

``BEATD_SOAK_SECONDS`` and ``BEATD_SOAK_RATE`` (runs a second) make it shorter or lighter. Every sample is printed.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import time
import urllib.request
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from tests.acceptance.test_store_bounds import BOUNDS, pattern_of

SECONDS, RATE = int(os.environ.get("BEATD_SOAK_SECONDS", "3600")), int(os.environ.get("BEATD_SOAK_RATE", "5000"))
SAMPLE_S, RELOAD_S = 5.0, min(60.0, SECONDS / 5)
WARM = 0.3
"""Share of the time after which caches and histories are full: memory is compared from there on."""

FLAT, SPARE_MB = 0.05, 5.0
"""Growth of memory between the first and the last third after that, at most: a share, or so many MB."""

DUE_AT = re.compile(rb'"beatd-due-at": ?"([^"]+)"')
TASKS = """
from beatd import App
app = App("proj", broker={url!r}, backend={url!r})

@app.task
def noop():
    pass
"""


class Sample(NamedTuple):
    """Memory (MB) by process and of the server, messages in the queue, and how long ago (s) the oldest was due."""

    at: float
    megabytes: dict[str, float]
    waiting: int
    late_s: float


def schedule(url: str, changed: int) -> str:
    """``RATE`` entries that are due each second, spread over it; ``changed`` makes each text another one."""
    lines = [f'[redis]\nurl = "{url}"\n']
    lines.append(f'[beat_schedule.changed]\ntask = "tasks.noop"\nschedule = "1h"\nargs = []\ntags = ["t{changed}"]\n')
    for number in range(RATE):
        every = f'{{ every = "1s", anchor = 2026-01-01T00:00:00.{number * 1000 // RATE:03}Z }}'
        lines.append(f'[beat_schedule.e{number}]\ntask = "tasks.noop"\nschedule = {every}\n')
    return "".join(lines)


def proportional_megabytes(pid: int) -> float:
    """Memory of a process and its children, with their share of what they have in common."""
    total, pids = 0.0, [pid]
    while pids:
        one = pids.pop()
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
            total += int(text.split("Pss:")[1].split()[0]) / 1024
            pids += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
    return total


def growth(values: Sequence[float]) -> float:
    """By how much the median of the last third of ``values`` is above that of the first."""
    third = max(len(values) // 3, 1)
    return statistics.median(values[-third:]) - statistics.median(values[:third])


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 300)
def test_an_hour_leaves_memory_and_lateness_flat_and_every_key_bounded(
    start_beatd: Any, beatd: Callable[..., Any], free_port: Any, redis_url: str, tmp_path: Path
) -> None:
    file, ports = tmp_path / "beat.toml", [free_port() for _ in range(3)]
    file.write_text(schedule(redis_url, 0))
    (tmp_path / "tasks.py").write_text(TASKS.format(url=redis_url))
    running = {f"daemon {n}": start_beatd("run", "--metrics-port", str(ports[n]), "-l", "warning") for n in (0, 1)}
    running |= {
        f"worker {n}": start_beatd("worker", "-A", "tasks", "-c", "1", "-n", f"w{n}@%h", "-l", "warning")
        for n in (0, 1)
    }
    running["page"] = start_beatd("web", "--port", str(ports[2]))
    watched = [
        f"http://127.0.0.1:{port}{path}" for port, path in zip(ports, ("/metrics", "/metrics", "/"), strict=True)
    ]
    samples: list[Sample] = []
    reloads, began = 0, time.monotonic()
    with redis.Redis.from_url(redis_url) as store:
        while (at := time.monotonic() - began) < SECONDS:
            if at >= RELOAD_S * (reloads + 1):
                reloads += 1
                (tmp_path / "new.toml").write_text(schedule(redis_url, reloads))
                (tmp_path / "new.toml").rename(file)
                assert beatd("reload").returncode == 0
            if at > SECONDS * 0.1:
                for url in watched:
                    assert urllib.request.urlopen(url, timeout=30).status == 200
            samples.append(_sample(store, running, at))
            print(samples[-1])
            time.sleep(max(0.0, began + at + SAMPLE_S - time.monotonic()))
        _audit(store)
        runs = sum(map(int, store.hvals("{beatd}:runs")))
    assert runs > 0.8 * RATE * (SECONDS - 10), "fewer runs than asked for"
    assert reloads >= 4, "too short for a reload each minute"
    warm = [sample for sample in samples if sample.at > SECONDS * WARM]
    for name in warm[0].megabytes:
        values = [sample.megabytes[name] for sample in warm]
        assert growth(values) < max(SPARE_MB, FLAT * statistics.median(values)), (name, values)
    assert growth([sample.late_s for sample in warm]) < 1.0, "lateness grows"
    assert warm[-1].waiting < 10 * RATE, "the workers do not keep up; try a lower BEATD_SOAK_RATE"


def _sample(store: Any, running: dict[str, Any], at: float) -> Sample:
    used = {name: proportional_megabytes(one.pid) for name, one in running.items()}
    used["server"] = store.info("memory")["used_memory"] / 1e6
    oldest, waiting = store.lindex("celery", -1), store.llen("celery")
    due = DUE_AT.search(oldest or b"")
    late_s = time.time() - datetime.fromisoformat(due[1].decode()).timestamp() if due else 0.0
    return Sample(round(at, 1), {name: round(each, 1) for name, each in used.items()}, waiting, round(late_s, 3))


def _audit(store: Any) -> None:
    """Every key has the type and the bound that ``docs/state.md`` gives it."""
    for raw in store.scan_iter(count=1000):
        kind = pattern_of(raw.decode())
        assert kind is not None, raw
        bound, left_ms = BOUNDS[kind], store.pttl(raw)
        if left_ms != -2:  # it has expired, or was taken, since
            assert (left_ms == -1) if bound.expires_ms is None else (0 < left_ms <= bound.expires_ms), (raw, left_ms)
