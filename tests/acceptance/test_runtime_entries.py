"""Entries and pauses at run time, beside real daemons: from the command line to the broker."""

import json
import signal
from base64 import b64decode
from datetime import datetime

import pytest
import redis

from beatd.client import Schedules
from beatd.store.client import connect
from beatd.store.daemon_registry import Registry
from beatd.store.keys import Keys

CONFIG = """
[redis]
url = "{url}"
[leader]
ttl = "10s"
renew = "500ms"
[defaults]
catch_up = "all"
catch_up_max = 100_000
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.3
queue = "ticks"
[beat_schedule.pulse]
task = "tasks.pulse"
schedule = 0.1
queue = "pulses"
"""


@pytest.fixture
def file(tmp_path, redis_url):
    path = tmp_path / "beat.toml"
    path.write_text(CONFIG.format(url=redis_url))
    return str(path)


@pytest.fixture
def broker(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def schedules(redis_url):
    with Schedules(redis_url) as made:
        yield made


def due_ms(broker, queue):
    """When the runs in a queue were due, the first one first."""
    headers = (json.loads(raw)["headers"] for raw in reversed(broker.lrange(queue, 0, -1)))
    return [round(datetime.fromisoformat(each["beatd-due-at"]).timestamp() * 1000) for each in headers]


def now_ms(broker):
    seconds, microseconds = broker.time()
    return seconds * 1000 + microseconds // 1000


def test_an_entry_is_added_listed_and_removed(start_beatd, beatd, file, broker, wait_until):
    daemon = start_beatd("--config", file)
    daemon.expect("Leading")
    done = beatd("add", "hello", "--task", "tasks.hello", "--schedule", "0.2", "--queue", "hellos", "--args", '["x"]')
    assert (done.returncode, done.stdout, done.stderr) == (0, "Added hello\n", "")
    wait_until(lambda: broker.llen("hellos") >= 2, what="messages of the entry")
    (args, _, _) = json.loads(b64decode(json.loads(broker.lindex("hellos", 0))["body"]))
    assert args == ["x"]
    listed = {each["name"]: each for each in json.loads(beatd("list", "--json").stdout)["entries"]}
    assert {name: each["source"] for name, each in listed.items()} == {
        "hello": "runtime",
        "pulse": "file",
        "tick": "file",
    }
    assert listed["hello"]["runs"] >= 2
    assert listed["hello"]["last_due_at"] < listed["hello"]["next_due_at"]
    assert beatd("remove", "hello").stdout == "Removed hello\n"
    daemon.expect("Runtime changes: −hello")
    gone_ms = now_ms(broker)
    wait_until(lambda: due_ms(broker, "pulses")[-1] > gone_ms + 1_000, what="the other entry to go on")
    assert due_ms(broker, "hellos")[-1] <= gone_ms


def test_a_pause_outlives_restart_and_failover_and_resuming_catches_nothing_up(
    start_beatd, beatd, file, broker, schedules, wait_until
):
    def is_silent(daemon):
        daemon.expect("Leading", timeout=30)
        sent = broker.llen("pulses")
        wait_until(lambda: broker.llen("pulses") > sent + 3, timeout=30, what="the change to be taken in")
        before = broker.llen("ticks")
        wait_until(lambda: broker.llen("pulses") > sent + 13, timeout=30, what="the other entry to go on")
        return broker.llen("ticks") == before

    first = start_beatd("--config", file)
    first.expect("Leading")
    wait_until(lambda: broker.llen("ticks") > 1)
    done = beatd("pause", "ti*", "--reason", "migration", "--by", "anna")
    assert (done.returncode, done.stdout) == (0, "Paused tick\n")
    first.expect("Runtime changes: paused tick")
    assert is_silent(first)
    second = start_beatd("--config", file)
    second.expect("Standing by")
    first.send(signal.SIGKILL)
    assert is_silent(second)
    second.end(signal.SIGTERM)
    third = start_beatd("--config", file)
    assert is_silent(third)
    seen = json.loads(beatd("status", "--json").stdout)["runtime"]
    assert (seen["paused"]["tick"]["by"], seen["paused"]["tick"]["reason"]) == ("anna", "migration")
    assert beatd("pause", "tick").stdout == "tick is already paused\n"
    before = len(due_ms(broker, "ticks"))
    resumed_ms = round(float("{}.{:06}".format(*broker.time())) * 1000)
    assert schedules.resume("tick")
    wait_until(lambda: broker.llen("ticks") >= before + 3)
    dues = due_ms(broker, "ticks")
    assert all(due > resumed_ms - 300 for due in dues[before:]), "nothing of the pause is made up for"
    assert {(due - dues[0]) % 300 for due in dues} == {0}, "and it keeps its phase"


def test_what_was_paused_and_resumed_while_nobody_was_there_is_not_caught_up(
    start_beatd, file, broker, schedules, wait_until
):
    daemon = start_beatd("--config", file)
    daemon.expect("Leading")
    wait_until(lambda: broker.llen("ticks") > 1 and broker.llen("pulses") > 1)
    daemon.end(signal.SIGTERM)
    sent = broker.llen("ticks"), broker.llen("pulses")
    schedules.pause("tick")
    began_ms = due_ms(broker, "pulses")[-1]
    wait_until(lambda: broker.time()[0] * 1000 > began_ms + 2_000)
    schedules.resume("tick")
    resumed_ms = broker.time()[0] * 1000
    start_beatd("--config", file).expect("Leading")
    wait_until(lambda: broker.llen("ticks") > sent[0] + 2 and broker.llen("pulses") > sent[1] + 20)
    assert due_ms(broker, "ticks")[sent[0]] >= resumed_ms, "runs that were due during the pause are not caught up"
    assert due_ms(broker, "pulses")[sent[1]] < resumed_ms, "what was missed of the other is"


def test_daemons_have_the_same_schedule_and_raise_no_alarm(start_beatd, file, redis_url, schedules, wait_until):
    daemons = [start_beatd("--config", file) for _ in range(3)]
    for daemon in daemons:
        daemon.expect("Leading|Standing by")
    for number in range(30):
        schedules.put(f"n{number}", task="t", schedule="@daily")
        schedules.pause(f"n{number % 5}")
    with connect(redis_url) as client:
        registry = Registry(client, Keys())

        def all_told():
            alive = registry.look(shards=1).alive.values()
            told = {(each.revision, each.runtime, each.paused) for each in alive}
            return len(alive) == 3 and told == {(35, 30, 5)}

        wait_until(all_told, timeout=20, what="all three to have taken it over")
        assert len({each.digest for each in registry.look(shards=1).alive.values()}) == 1
    assert not any(daemon.find("is not that of") for daemon in daemons)


def test_what_is_wrong_in_the_store_is_said_and_hurts_nothing_else(
    start_beatd, beatd, file, broker, schedules, wait_until
):
    daemon = start_beatd("--config", file)
    daemon.expect("Leading")
    broker.hset("{beatd}:schedules", mapping={"junk": b"\xff", "half": '{"task": "t"}', b"\xfe": "[]"})
    schedules.put("pulse", task="t", schedule=1)
    schedules.put("good", task="t", schedule=0.1, queue="goods")
    wait_until(lambda: broker.llen("goods") > 0, what="the good one among them")
    daemon.expect("runtime:junk: not a JSON document")
    daemon.expect("runtime:half: beat_schedule.half: schedule is missing")
    daemon.expect("Entry pulse is in .*beat.toml:14 and in the state store; the first counts")
    shown = beatd("list").stdout
    assert "! pulse is also in the state store; the one in" in shown
    assert "! not in force: runtime:half: beat_schedule.half: schedule is missing" in shown
    assert not daemon.find("Traceback")
