"""Commands over a slow link: sequential round trips to the state store and broker until the answer is there."""

import json

import pytest

from tests.round_trips import RoundTrips

FILE = """
timezone = "UTC"
[redis]
url = "{url}"
[leader]
shards = {shards}
"""
ENTRY = '[beat_schedule.entry-{number}]\ntask = "first_tasks.{task}"\nschedule = "{schedule}"\n'
TASKS = """
from beatd import App

app = App("first_tasks")

@app.task
def works():
    return 1

@app.task
def fails():
    raise ValueError("no")
"""


@pytest.fixture(params=[1, 3])
def fleet(request, redis_server, redis_url, start_beatd, tmp_path, wait_until, server):
    shards = request.param
    entries = "".join(
        ENTRY.format(number=number, task="fails" if number % 2 else "works", schedule="1s" if number < 4 else "1h")
        for number in range(12)
    )
    (tmp_path / "first_tasks.py").write_text(TASKS)
    (tmp_path / "beat.toml").write_text(FILE.format(url=redis_url, shards=shards) + entries)
    daemon = start_beatd("run", "--config", "beat.toml")
    daemon.expect("Leading", times=shards)
    worker = start_beatd("worker", "-A", "first_tasks", "--config", "beat.toml", "--concurrency", "1")
    worker.expect("succeeded|task_succeeded|ready", timeout=30)
    wait_until(
        lambda: server.hlen("{beatd}:last_outcome") >= 4 or server.keys("*last_outcome*"), 30, "runs that have ended"
    )

    def write(link):
        url = f"redis://127.0.0.1:{link.port}/{redis_url.rpartition('/')[2]}"
        (tmp_path / "slow.toml").write_text(FILE.format(url=url, shards=shards) + entries)
        return "slow.toml"

    return write


def count(link):
    return max((number for number, _, _ in link.requests), default=0)


COMMANDS = {"status --json": 8,
    "status": 8,
    "list": 6,
    "next": 6,
    "history": 6,
    "history entry-1": 6,
    "why entry-1 now": 6,
    "describe entry-1": 6,
    "run-info": 6,
    "inspect ping --timeout 0.5": 6,
    "audit": 6,
    "diff": 6,
    "diff slow.toml": 6,
    "list --failed --overdue": 6,
}


def test_all(fleet, redis_server, beatd):
    table = {}
    for command, most in COMMANDS.items():
        words = command.split()
        with RoundTrips(redis_server.port, delay=0.1) as link:
            file = fleet(link)
            if command == "run-info":
                runs = json.loads(beatd("history", "entry-1", "--json", "--config", "beat.toml").stdout)["runs"]
                words.append(runs[-1]["run_id"])
            option = ["--config", file]
            done = beatd(*words, *option)
            table[command] = count(link), done.returncode
            print("=" * 20, command, count(link), done.returncode)
            print(done.stdout[-1500:], done.stderr[-1500:])
            print(link.listing())
    print(table)
    for c, t in table.items():
        print(f"TABLE {c}: {t}")
