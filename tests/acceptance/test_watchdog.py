"""A loop that hangs: the process lets go of its lease and ends, and a standby goes on."""

import subprocess
import sys

import pytest

CONFIG = """
[redis]
url = "{url}"
[leader]
ttl = "1m"
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.2
"""

HANGS = """
import pathlib, sys, threading
from beatd.beat import loop, watchdog
from beatd.cli import main

watchdog.Watchdog.__init__.__kwdefaults__["every"] = 0.5
turn = loop.ShardLoop.turn

def turn_or_hang(beat):
    if pathlib.Path("hang").exists():
        threading.Event().wait()
    return turn(beat)

loop.ShardLoop.turn = turn_or_hang
main(["--config", "beat.toml"])
"""


@pytest.fixture
def hanging(tmp_path, redis_url):
    """A daemon whose loop hangs as soon as there is a file ``hang``; its log goes to ``hanging.log``."""
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=redis_url))
    with (tmp_path / "hanging.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", HANGS], cwd=tmp_path, stdout=log, stderr=log)
    yield process
    process.kill()
    process.wait(10)


def test_a_daemon_whose_loop_hangs_ends_and_a_standby_leads_long_before_the_lease_would_end(
    hanging, start_beatd, tmp_path, wait_until
):
    log = tmp_path / "hanging.log"
    wait_until(lambda: "Dispatched tick" in log.read_text(), 30, "a run")
    standby = start_beatd("--config", "beat.toml")
    standby.expect("Standing by")
    (tmp_path / "hang").touch()
    standby.expect("Leading", timeout=30)  # the lease lasts a minute
    assert hanging.wait(30) == 1
    standby.expect("Dispatched tick")
    assert "turn_or_hang" in log.read_text(), "the log says where it hung"
    assert "Released the lease of shard 0" in log.read_text()
