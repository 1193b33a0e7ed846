"""The clock of a real daemon jumps: no run is made twice, what is missed is said in one message.

libfaketime gives one process a clock of its own, which a file moves; the monotonic clock goes on as it is.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import missing
from tests.receivers import receiver

pytestmark = pytest.mark.slow

CONFIG = """
[redis]
url = "{url}"
[notify.ops]
webhook = "{web}/hook"
on = ["missed", "overdue", "nobody_leads", "failure"]
interval = 0
[beat_schedule.interval]
task = "tasks.tick"
schedule = 1.0
queue = "interval"
[beat_schedule.cron]
task = "tasks.tick"
schedule = "*/2 * * * * *"
queue = "cron"
[beat_schedule.missed]
task = "tasks.tick"
schedule = "*/20 * * * *"
catch_up = "all"
catch_up_window = "2h"
queue = "missed"
"""


@pytest.fixture
def library():
    found = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if found is None:
        missing("libfaketime")
    return str(found)


@pytest.fixture
def web():
    with receiver() as made:
        yield made


def move(offset: timedelta, file: Path) -> None:
    """Set how far the clock is ahead; the file is whole whenever it is read."""
    file.with_suffix(".new").write_text(f"{offset.total_seconds():+.0f}")
    file.with_suffix(".new").rename(file)


@pytest.mark.parametrize(
    ("steps", "notices"),
    [
        ([timedelta(hours=1)], 1),
        ([timedelta(days=1)], 1),
        ([timedelta(hours=-1)], 0),
        ([timedelta(hours=-1), timedelta(hours=1)], 0),
    ],
    ids=["hour", "day", "back", "back-and-forth"],
)
def test_a_clock_that_jumps_doubles_no_run(library, start_beatd, redis_url, web, tmp_path, wait_until, steps, notices):
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=redis_url, web=web.url))
    offset, file = timedelta(), tmp_path / "offset"
    move(offset, file)
    env = {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"}
    alone = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    daemon = start_beatd("run", "--metrics-port", "0", **env, **alone)
    daemon.expect("Dispatched interval", times=3)
    for number, step in enumerate(steps, 1):
        offset += step
        move(offset, file)
        daemon.expect("The clock stepped by", times=number)
        sent = len(daemon.find("Dispatched interval")), len(daemon.find("Dispatched cron"))
        daemon.expect("Dispatched interval", times=sent[0] + 4)
        daemon.expect("Dispatched cron", times=sent[1] + 3)
    if notices:
        daemon.expect("Runs of interval after .* are not caught up")
        wait_until(lambda: web.of("/hook"), what="a message")
    [at] = daemon.expect(r"Metrics and health at (\S+)")
    families = text_string_to_metric_families(httpx.get(f"{at[1]}/metrics", timeout=10).text)
    samples = [sample for family in families for sample in family.samples]
    assert {sample.name for sample in samples if sample.value < 0} <= {"beatd_clock_offset_seconds"}
    assert daemon.end() == 0
    assert "Traceback" not in daemon.text
    with redis.Redis.from_url(redis_url) as store:
        for queue in ("interval", "cron", "missed"):
            dues = [json.loads(raw)["headers"]["beatd-due-at"] for raw in store.lrange(queue, 0, -1)]
            assert len(dues) == len(set(dues))
        missed = store.llen("missed")
    assert missed >= 3 if notices else missed <= 2  # a real run may fall due meanwhile, on either clock
    begun, ended = (datetime.fromisoformat(daemon.lines[n][:23]) for n in (0, -1))
    assert abs((ended - begun) - offset) < timedelta(minutes=5)
    assert len(web.of("/hook")) == notices
