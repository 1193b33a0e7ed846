"""Commands and the page over a slow link: sequential round trips to state store and broker until they answer."""

import json

import httpx
import pytest

from beatd.client import Schedules
from tests.round_trips import RoundTrips

DELAY_S = 0.1

FILE = """
[redis]
url = "{url}"
[leader]
shards = {shards}
"""
ENTRY = '[beat_schedule.entry-{number}]\ntask = "some_tasks.{task}"\nschedule = "{schedule}"\noverlap = "skip"\n'
TASKS = """
from beatd import App

app = App("some_tasks")

@app.task
def works():
    return 1

@app.task
def fails():
    raise ValueError("no")
"""

ROUND_TRIPS = {
    "status": 6,
    "status --json": 6,
    "list": 5,
    "list --failed --overdue": 5,
    "next": 4,
    "history": 6,
    "history --failed": 6,
    "history entry-1": 5,
    "why entry-1 now": 5,
    "why entry-1 now --connect": 6,
    "describe entry-1": 5,
    "run-info": 5,
    "inspect stats": 6,
    "audit": 3,
    "diff": 3,
    "diff beat.toml": 3,
}
"""Round trips of commands. Two of them connect and authenticate."""

PAGE = {"/": 6, "/entries/entry-1": 6, "/fleet": 6}
"""Round trips of the first load of a page."""


@pytest.fixture(
    params=[pytest.param((1, 1, 12), id="small"), pytest.param((3, 2, 50), id="larger", marks=pytest.mark.slow)]
)
def slow_file(request, redis_server, redis_url, start_beatd, tmp_path, wait_until, server):
    """``slow_file(link)``: the file of an installation of that many shards, workers and entries, with runs that have
    failed, a runtime entry and a pause; daemons and workers are at the store itself, who reads the file at the link."""
    shards, workers, count = request.param
    entries = "".join(
        ENTRY.format(number=n, task="fails" if n % 2 else "works", schedule="1s" if n < 4 else "1h")
        for n in range(count)
    )
    (tmp_path / "some_tasks.py").write_text(TASKS)
    (tmp_path / "beat.toml").write_text(FILE.format(url=redis_url, shards=shards) + entries)
    with Schedules(redis_url) as schedules:
        schedules.put("of-the-store", task="some_tasks.works", schedule="1h")
        schedules.pause("entry-2")
    start_beatd("run").expect("Leading", times=shards)
    for number in range(workers):
        start_beatd("worker", "-A", "some_tasks", "--config", "beat.toml", "-c", "1", "-n", f"w{number}@here")
    wait_until(lambda: server.hlen("{beatd}:last_outcome") >= 3, 30, "runs that have ended")

    def write(link):
        url = f"redis://127.0.0.1:{link.port}/{redis_url.rpartition('/')[2]}"
        (tmp_path / "slow.toml").write_text(FILE.format(url=url, shards=shards) + entries)
        return "slow.toml"

    return write


def trips(link):
    return max((number for number, _, _ in link.requests), default=0)


def test_commands_take_few_round_trips(slow_file, redis_server, beatd, start_beatd):
    runs = json.loads(beatd("history", "entry-1", "--json", "--config", "beat.toml").stdout)["runs"]
    found = {}
    for command in ROUND_TRIPS:
        more = [runs[-1]["run_id"]] if command == "run-info" else []
        with RoundTrips(redis_server.port, delay=DELAY_S) as link:
            running = start_beatd(*command.split(), *more, "--config", slow_file(link))
            link.client = running.pid
            assert running.wait(60) == 0, running.text
            found[command] = trips(link)
        assert found[command] > 0
        print(command, found[command], link.listing(), sep="\n")
    assert {command: number for command, number in found.items() if number > ROUND_TRIPS[command]} == {}


def test_the_first_load_of_a_page_takes_few_round_trips(slow_file, redis_server, start_beatd):
    found = {}
    for path in PAGE:
        with RoundTrips(redis_server.port, delay=DELAY_S) as link:
            page = start_beatd("web", "--port", "0", "--config", slow_file(link))
            link.client = page.pid
            url = page.expect(r"Status page at (http://\S+)/")[0][1]
            assert trips(link) == 0
            assert httpx.get(url + path, timeout=30, trust_env=False).status_code == 200
            found[path] = trips(link)
            print(path, found[path], link.listing(), sep="\n")
            page.end()
    assert {path: number for path, number in found.items() if number > PAGE[path]} == {}
