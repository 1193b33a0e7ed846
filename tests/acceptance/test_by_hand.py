"""Runs by hand and past runs, as an operator meets them: trigger, backfill, history."""

import json
import signal
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta

import kombu
import pytest
import redis

from beatd.client import Schedules
from beatd.exceptions import RequestRefused
from beatd.message.protocol import open_envelope
from beatd.store.keys import Keys

CONFIG = """
[redis]
url = "{url}"
[beat_schedule.hourly]
task = "beatd.command"
schedule = "0 * 10,11 1 *"  # runs that are backfilled, and no other while the tests run
args = ["echo", "hourly"]
[beat_schedule.fails]
task = "beatd.command"
schedule = "@yearly"
args = ["false"]
[beat_schedule.often]
task = "beatd.command"
schedule = 0.5
args = ["sleep", "30"]
overlap = "skip"
queue = "nobody"
"""
KEYS = Keys("beatd")


@pytest.fixture
def file(tmp_path, redis_url):
    path = tmp_path / "beat.toml"
    path.write_text(CONFIG.format(url=redis_url))
    return path


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def daemon(start_beatd, file):
    daemon = start_beatd("run")
    daemon.expect("entries in force")
    return daemon


def dues(client, queue="celery"):
    return [open_envelope(raw).headers["beatd-due-at"] for raw in reversed(client.lrange(queue, 0, -1))]


def test_nobody_is_there(beatd, file, client):
    for words in (["trigger", "hourly"], ["backfill", "hourly", "--from", "-1d"]):
        done = beatd(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert "no daemon is alive" in done.stderr
    assert not client.keys("*")


def test_an_operators_day(beatd, daemon, file, client, redis_url, start_beatd, wait_until):
    """What is typed one after the other, with one daemon and one worker."""
    start_beatd("worker", "--config", str(file), "--builtin", "command", "-P", "solo").expect("ready")

    done = beatd("trigger", "hourly", "--wait")
    run_id, told = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert told.startswith("SUCCESS")
    assert "hourly" in told
    wait_until(lambda: client.get(KEYS.shard().finished + run_id), what="the worker to say how it ended")
    runs = json.loads(beatd("history", "hourly", "--json").stdout)["runs"]
    [run] = [run for run in runs if run["kind"] == "triggered"]
    assert (run["run_id"], run["outcome"]) == (run_id, "SUCCESS")
    assert run["runtime_ms"] >= 0

    done = beatd("trigger", "fails", "--wait", "20", "--json")
    assert done.returncode == 1
    failed = json.loads(done.stdout)
    assert failed["state"] == "FAILURE"
    wait_until(lambda: client.get(KEYS.shard().finished + failed["run_id"]), what="the worker to say how it ended")
    wait_until(lambda: client.hget(KEYS.shard().tally, "often"), what="a run that was skipped")
    shown = beatd("history", "--failed", "--skipped", "-n", "100").stdout
    assert "failure, triggered" in shown
    assert "skipped: overlap" in shown

    done = beatd("trigger", "hourli")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean hourly?" in done.stderr

    with Schedules(redis_url) as schedules:
        run = schedules.trigger("hourly", ["true"])
        since = datetime(2026, 1, 10, tzinfo=UTC)
        done = schedules.backfill("hourly", since, since + timedelta(hours=3), rate=50.0)
        assert (done.total, done.sent) == (3, 3)
        kinds = [(one.kind, one.run_id == run.run_id) for one in schedules.history("hourly", limit=4)]
        assert kinds == [("backfilled", False)] * 3 + [("triggered", True)]
        with pytest.raises(RequestRefused, match="no entry") as caught:
            schedules.trigger("nobody")
        assert caught.value.unknown

        first = schedules.trigger("hourly", request_id="ticket-7")
        second = beatd("trigger", "hourly", "--request-id", "ticket-7")
        assert second.stdout.strip() == first.run_id
        assert "nothing was sent now" in second.stderr
        with pytest.raises(RequestRefused, match="ticket-7 was used before, for a trigger of hourly"):
            schedules.trigger("fails", request_id="ticket-7")
    assert "Traceback" not in daemon.text


def test_a_day_is_backfilled_once(beatd, daemon, client):
    day = ["backfill", "hourly", "--from", "2026-01-10", "--to", "2026-01-11", "--rate", "100/s"]
    planned = beatd(*day, "--dry-run", "--json")
    assert (json.loads(planned.stdout)["sent"], client.llen("celery")) == (24, 0)
    assert "24 runs in the window, 24 sent" in beatd(*day).stdout
    assert dues(client) == [f"2026-01-10T{hour:02}:00:00.000+00:00" for hour in range(24)]
    again = beatd(*day)
    assert "24 were sent by hand before" in again.stdout
    assert client.llen("celery") == 24
    history = beatd("history", "hourly", "-n", "5")
    assert history.stdout.count("backfilled") == 6  # with the totals
    assert beatd(*day[:-2], "--max", "10").returncode == 1


def test_the_leader_is_killed_in_the_middle(start_beatd, beatd, daemon, client, wait_until):
    """Every run exactly once, in its order, and whoever waits for the end is told of it; the history is there."""
    asking = start_beatd("backfill", "hourly", "--from", "2026-01-10", "--to", "2026-01-12", "--rate", "8/s", "--json")
    wait_until(lambda: client.llen("celery") >= 5, 20, "the first runs")
    daemon.send(signal.SIGKILL)
    sent_before = client.llen("celery")
    assert sent_before < 48
    start_beatd("run").expect("entries in force")
    assert asking.wait(30) == 0
    assert json.loads(asking.text)["sent"] == 48
    assert dues(client) == sorted(set(dues(client)))
    assert len(dues(client)) == 48
    kinds = Counter(each["kind"] for each in json.loads(beatd("history", "hourly", "--json").stdout)["runs"])
    assert kinds == {"backfilled": 20}


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_ctrl_c_withdraws_what_is_left(start_beatd, beatd, daemon, client, wait_until, more):
    asking = start_beatd("backfill", "hourly", "--from", "2026-01-10", "--to", "2026-01-12", "--rate", "2/s", *more)
    wait_until(lambda: client.llen("celery") >= 2, 20, "the first runs")
    assert asking.end(signal.SIGINT) == 1
    assert "withdrawn after" in asking.text
    assert not client.exists(KEYS.shard().requests)
    daemon.expect("Backfill of hourly withdrawn")
    sent = client.llen("celery")
    assert 2 <= sent < 48
    changes = json.loads(beatd("audit", "--json").stdout)["changes"]
    assert [(each["action"], each["after"]["sent"]) for each in changes] == [("backfill", sent)]
    documents = [json.loads(line) for line in asking.text.splitlines() if line.startswith("{")]
    assert [(each["exit_code"], each["sent"], each["total"]) for each in documents] == [(1, sent, 48)] * len(more)


@pytest.mark.slow
def test_through_the_outbox_to_a_rabbitmq(beatd, file, redis_url, rabbitmq, start_beatd, wait_until):
    """The command reaches the store alone; the leader brings the runs to the broker, each once."""
    queue = f"by-hand-{uuid.uuid4().hex[:8]}"
    broker = f'[broker]\nurl = "{rabbitmq.url}"\ndefault_queue = "{queue}"\n'
    file.write_text(CONFIG.format(url=redis_url).replace("[beat_schedule.hourly]", f"{broker}[beat_schedule.hourly]"))
    start_beatd("run").expect("entries in force")
    run_id = beatd("trigger", "hourly").stdout.strip()
    day = ["backfill", "hourly", "--from", "2026-01-10", "--to", "2026-01-11", "--rate", "100/s"]
    assert "24 sent" in beatd(*day).stdout
    assert "0 sent" in beatd(*day).stdout
    found = {}

    def all_there():
        with kombu.Connection(rabbitmq.url, connect_timeout=5) as connection:
            channel = connection.channel()
            for message in iter(lambda: channel.basic_get(queue, no_ack=True), None):
                assert message.headers["id"] not in found
                found[message.headers["id"]] = message.headers["beatd-due-at"]
        return len(found) >= 25

    wait_until(all_there, 20, "25 messages")
    assert run_id in found
    assert sorted(found.values())[:24] == [f"2026-01-10T{hour:02}:00:00.000+00:00" for hour in range(24)]
