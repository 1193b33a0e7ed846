"""The broker is a RabbitMQ: whatever happens to it or to the daemon, no run is lost, and repeats have the same id."""

import itertools
import json
import signal
import socket
import subprocess
import sys
from collections import Counter
from datetime import datetime

import kombu
import pytest

from beatd.broker.amqp_publisher import AmqpPublisher
from beatd.message.protocol import build, open_envelope
from tests.celery_process import celeries

pytestmark = pytest.mark.slow

CONFIG = """
[redis]
url = "{store}"
[broker]
url = "{broker}"
[leader]
ttl = "2s"
renew = "500ms"
[log]
format = "json"
level = "debug"
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.2
catch_up = "all"
catch_up_max = 1000
queue = "{queue}"
"""


@pytest.fixture
def config(tmp_path, rabbitmq, redis_url, queue):
    """``config(more="…", broker=…)`` writes the file, and returns what the command line says of it."""

    def write(more="", broker=rabbitmq.url):
        (tmp_path / "beat.toml").write_text(CONFIG.format(store=redis_url, broker=broker, queue=queue) + more)
        return "--config", str(tmp_path / "beat.toml")

    return write


@pytest.fixture
def take(rabbitmq):
    """``take(queue)``: every message in it, the oldest first, as kombu's messages."""

    def messages(queue):
        with kombu.Connection(rabbitmq.url, connect_timeout=5) as connection:
            channel = connection.channel()
            return list(iter(lambda: channel.basic_get(queue, no_ack=True), None))

    return messages


@pytest.fixture
def depth(rabbitmq):
    """``depth(queue)``: how many messages are in it; 0 while the broker is away."""

    def count(queue):
        try:
            with kombu.Connection(rabbitmq.url, connect_timeout=5) as connection:
                return connection.channel().queue_declare(queue, passive=True).message_count
        except (OSError, *kombu.Connection(rabbitmq.url).channel_errors):
            return 0

    return count


def events(daemon, name):
    return [json.loads(match.string) for match in daemon.find(rf'"event": ?"{name}"')]


def assert_no_run_is_missing(messages, step=200):
    """Repeats are allowed here, with the same id; returns how many there were."""
    due_of = {message.headers["id"]: message.headers["beatd-due-at"] for message in messages}
    due = sorted(round(datetime.fromisoformat(text).timestamp() * 1000) for text in due_of.values())
    assert len(set(due)) == len(due_of), "a run came under two ids"
    steps = Counter(later - earlier for earlier, later in itertools.pairwise(due))
    assert set(steps) == {step}, f"runs are missing: {steps}"
    return len(messages) - len(due_of)


def test_runs_arrive_once_and_in_order(start_beatd, config, depth, take, queue, wait_until):
    daemon = start_beatd(*config())
    wait_until(lambda: depth(queue) >= 10, timeout=20, what="ten messages")
    assert daemon.end() == 0
    messages = take(queue)
    assert assert_no_run_is_missing(messages) == 0
    assert [message.headers["beatd-due-at"] for message in messages] == sorted(
        message.headers["beatd-due-at"] for message in messages
    )
    dispatched = events(daemon, "run_dispatched")
    assert len(dispatched) == len(messages), "dispatched is what the broker has"
    assert all(0 <= each["lateness_ms"] < 60_000 for each in dispatched)


KILLED_AT = {
    "due": "from beatd.beat.dispatcher import Dispatcher as kind; verb, after = 'dispatch', False",
    "not advanced": "from beatd.beat.heap import DueHeap as kind; verb, after = 'advance', False",
    "advanced": "from beatd.beat.heap import DueHeap as kind; verb, after = 'advance', True",
    "claimed": "from beatd.broker.amqp_publisher import AmqpPublisher as kind; verb, after = 'publish_many', False",
    "written": "from beatd.broker.amqp_publisher import ConfirmChannel as kind; verb, after = '_write', True",
    "confirmed": "from beatd.broker.amqp_publisher import AmqpPublisher as kind; verb, after = 'publish_many', True",
    "struck off": "from beatd.store.outbox import Outbox as kind; verb, after = 'strike', True",
}
KILLER = """
import os, signal, sys
{place}
real, calls = getattr(kind, verb), iter(range(1000))

def deadly(*args, **kwargs):
    last = next(calls) == 8
    if last and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    outcome = real(*args, **kwargs)
    if last:
        os.kill(os.getpid(), signal.SIGKILL)
    return outcome

setattr(kind, verb, deadly)
from beatd.cli import main
sys.argv[0] = "beatd"
main()
"""


@pytest.mark.parametrize("point", KILLED_AT)
def test_a_daemon_killed_at_any_point_leaves_no_gap(
    start_beatd, config, client, depth, take, queue, wait_until, tmp_path, point
):
    (tmp_path / "killer.py").write_text(KILLER.format(place=KILLED_AT[point]))
    arguments = config()
    command = [sys.executable, str(tmp_path / "killer.py"), *arguments]
    with (tmp_path / "killed.log").open("wb") as log:
        killed = subprocess.run(command, stdout=log, stderr=log, timeout=60, check=False, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, (tmp_path / "killed.log").read_text()
    left = client.llen("{beatd}:0:outbox")
    if point != "due":  # late runs wait in the outbox until the last of them is claimed: a slow machine may have some
        assert (left == 0) == (point == "struck off")
    heir = start_beatd(*arguments)
    heir.expect('"event": ?"run_dispatched"', times=10, timeout=20)
    heir.end()
    repeats = assert_no_run_is_missing(take(queue))
    assert repeats == (left if point == "confirmed" else 0) or (point == "written" and repeats <= left)
    assert sum(each["count"] for each in events(heir, "leftovers_dispatched")) == left


def test_a_broker_that_is_killed_and_restarted_loses_nothing(
    start_beatd, config, rabbitmq, client, depth, take, queue, wait_until
):
    daemon = start_beatd(*config())
    unconfirmed = 0
    for end in (rabbitmq.kill, rabbitmq.stop):
        before = depth(queue)
        wait_until(lambda before=before: depth(queue) >= before + 5, timeout=30, what="messages")
        end()
        daemon.expect('"event": ?"broker_unavailable"')
        unconfirmed += client.llen("{beatd}:0:outbox")
        rabbitmq.start()
        before = depth(queue)
    wait_until(lambda: depth(queue) >= before + 10, timeout=30, what="messages after the last restart")
    assert daemon.process.poll() is None
    daemon.end()
    repeats = assert_no_run_is_missing(take(queue))
    assert repeats <= unconfirmed, "only what the broker had not confirmed when it ended may have come twice"


def test_a_blocked_broker_delays_runs_and_doubles_none(
    start_beatd, config, rabbitmq, client, depth, take, queue, wait_until
):
    daemon = start_beatd(*config())
    wait_until(lambda: depth(queue) >= 5, timeout=20, what="messages")
    rabbitmq.ctl("set_vm_memory_high_watermark", "0")
    try:
        daemon.expect('"event": ?"broker_blocked"')
        daemon.expect('"event": ?"broker_unavailable"', times=2, timeout=40)
        assert client.llen("{beatd}:0:outbox") <= 60, "no more is claimed than what one turn found due"
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.6")
    daemon.expect('"event": ?"broker_unblocked"')
    before = depth(queue)
    wait_until(lambda: depth(queue) >= before + 10, timeout=30, what="messages after the alarm")
    daemon.end()
    assert assert_no_run_is_missing(take(queue)) == 0


def test_a_broker_that_comes_late_gets_what_was_due_since(
    start_beatd, config, rabbitmq, depth, take, queue, wait_until
):
    rabbitmq.stop()
    daemon = start_beatd(*config())
    daemon.expect('"event": ?"broker_unavailable"', times=2, timeout=40)
    rabbitmq.start()
    wait_until(lambda: depth(queue) >= 20, timeout=30, what="messages")
    daemon.end()
    assert assert_no_run_is_missing(take(queue)) == 0


def test_what_waited_for_a_broker_that_is_given_up_goes_to_the_next_one(start_beatd, config, client, queue, wait_until):
    """A fleet whose RabbitMQ is gone for good takes the state store as its broker: nothing stays in the outbox."""
    first = start_beatd(*config(broker="amqp://guest:guest@127.0.0.1:1//"))
    wait_until(lambda: client.llen("{beatd}:0:outbox"), timeout=20, what="a run in the outbox")
    first.expect('"event": ?"broker_unavailable"', times=2, timeout=40)
    first.end()
    waiting = {open_envelope(raw).id for raw in client.lrange("{beatd}:0:outbox", 0, -1)}
    heir = start_beatd(*config(broker=store_url(client)))
    wait_until(lambda: client.llen(queue) >= 10, timeout=20, what="ten messages")
    heir.end()
    assert not client.exists("{beatd}:0:outbox")
    messages = [open_envelope(raw) for raw in reversed(client.lrange(queue, 0, -1))]
    assert waiting <= {message.id for message in messages}
    assert assert_no_run_is_missing(messages) == 0
    assert len(events(heir, "leftovers_dispatched")) == 1


def store_url(client):
    place = client.get_connection_kwargs()
    return f"redis://{place['host']}:{place['port']}/{place['db']}"


def test_what_no_queue_gets_is_an_error_and_in_nobodys_way(start_beatd, config, client, depth, take, queue, wait_until):
    more = f'[beat_schedule.lost]\ntask = "tasks.lost"\nschedule = 0.5\nexchange = "{queue}-x"\nrouting_key = "k"\n'
    daemon = start_beatd(*config(more))
    daemon.expect('"event": ?"run_refused"', times=3)
    wait_until(lambda: depth(queue) >= 10, timeout=20, what="the messages of the other entry")
    daemon.end()
    assert assert_no_run_is_missing(take(queue)) == 0
    [refused, *_] = events(daemon, "run_refused")
    assert refused["entry"] == "lost"
    assert "no such exchange" in refused["reason"]
    letters = [json.loads(raw) for raw in client.lrange("{beatd}:dead_letters", 0, -1)]
    assert len(letters) == len(events(daemon, "run_refused"))
    assert json.loads(letters[0]["message"])["headers"]["task"] == "tasks.lost"


def test_an_exchange_gets_what_is_sent_to_it(start_beatd, config, rabbitmq, depth, take, queue, wait_until):
    exchange = kombu.Exchange(f"{queue}-topic", type="topic")
    with kombu.Connection(rabbitmq.url) as connection:
        kombu.Queue(f"{queue}-all", exchange, routing_key="reports.#")(connection.channel()).declare()
    routed = f'[beat_schedule.routed]\ntask = "t"\nschedule = 0.2\nexchange = "{queue}-topic"\n'
    routed += 'routing_key = "reports.daily"\n'
    daemon = start_beatd(*config(routed))
    wait_until(lambda: depth(f"{queue}-all") >= 3, timeout=20, what="messages through the exchange")
    daemon.end()
    [message, *_] = take(f"{queue}-all")
    assert message.delivery_info["exchange"] == f"{queue}-topic"
    assert message.delivery_info["routing_key"] == "reports.daily"
    assert message.headers["beatd-entry"] == "routed"


@pytest.mark.parametrize(
    ("broker", "said"),
    [
        ("amqp://guest:hidden-word@127.0.0.1:{port}//", "it refuses the user or the password"),
        ("amqp://guest:guest@127.0.0.1:{port}/nowhere", "vhost nowhere not found"),
        ("amqp://guest:hidden-word@127.0.0.1:1//", "refused"),
        ("amqp://guest:hidden-word@127.0.0.1:{silent}//", "timed out"),
    ],
    ids=["password", "vhost", "port", "silent"],
)
def test_a_broker_that_cannot_be_used_is_said_again_and_again(start_beatd, config, rabbitmq, broker, said):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = broker.format(port=rabbitmq.port, silent=silent.getsockname()[1])
        daemon = start_beatd(*config(broker=url))
        daemon.expect('"event": ?"broker_unavailable"', times=2, timeout=60)
        assert said in daemon.text
        assert "hidden-word" not in daemon.text
        assert daemon.end() == 0


APP = """
import json
from celery import Celery
from celery.schedules import schedule

app = Celery("proj", broker={broker!r}, backend={store!r})
app.conf.task_default_queue = {queue!r}
app.conf.beat_schedule = {{
    "report": {{
        "task": "proj.report",
        "schedule": schedule(1.0),
        "args": (1, "zwei"),
        "kwargs": {{"format": "pdf"}},
        "options": {{"expires": 30, "headers": {{"tenant": "a"}}, "priority": 3}},
    }},
}}

@app.task(bind=True, name="proj.report")
def report(self, *args, **kwargs):
    self.backend.client.rpush("seen", json.dumps([args, kwargs, self.request.id, self.request.headers["beatd-entry"]]))
    return len(args)
"""
REPORT = """
[beat_schedule.report]
task = "proj.report"
schedule = 1.0
args = [1, "zwei"]
kwargs = {{ format = "pdf" }}
queue = "{queue}-reports"
expires = 30
headers = {{ tenant = "a" }}
priority = 3
"""


@pytest.fixture
def celery(tmp_path, rabbitmq, redis_url, queue):
    """``celery("worker", …)``: a real Celery process with the app above, on a queue of its own."""
    app = APP.format(broker=rabbitmq.url, store=redis_url, queue=f"{queue}-reports")
    (tmp_path / "proj.py").write_text(app)
    with celeries(tmp_path) as start:
        yield start


def test_a_celery_worker_runs_what_the_daemon_sent(celery, start_beatd, config, client, queue, wait_until):
    celery.worker("-P", "solo", "-l", "warning")
    start_beatd(*config(REPORT.format(queue=queue)))
    wait_until(lambda: client.llen("seen") >= 2, timeout=40, what="Celery's worker to run the task twice")
    args, kwargs, task_id, entry = json.loads(client.lindex("seen", 0))
    assert (args, kwargs, entry) == ([1, "zwei"], {"format": "pdf"}, "report")
    wait_until(lambda: client.get(f"celery-task-meta-{task_id}"), timeout=10, what="the result")
    assert json.loads(client.get(f"celery-task-meta-{task_id}"))["result"] == 2


def test_the_message_is_celery_beats_but_for_the_extra_headers(
    celery, start_beatd, config, depth, take, queue, tmp_path, wait_until
):
    reports = f"{queue}-reports"
    beat = celery("beat", "-l", "warning", "-s", str(tmp_path / "state"))
    wait_until(lambda: depth(reports), timeout=40, what="Celery beat's message")
    beat.terminate()
    theirs = take(reports)[0]
    daemon = start_beatd(*config(REPORT.format(queue=queue)))
    wait_until(lambda: depth(reports), timeout=20, what="beatd's message")
    daemon.end()
    ours = take(reports)[0]

    extra = {"beatd-entry", "beatd-due-at", "beatd-after", "periodic_task_name"}
    assert ours.headers.keys() - extra == theirs.headers.keys()
    assert {name: type(value) for name, value in ours.headers.items() if name not in extra | {"ignore_result"}} == {
        name: type(value) for name, value in theirs.headers.items() if name != "ignore_result"
    }
    assert ours.properties.keys() == theirs.properties.keys()
    same = {"content_type", "content_encoding", "delivery_mode", "priority"}
    assert {name: ours.properties[name] for name in same} == {name: theirs.properties[name] for name in same}
    assert 25_000 < int(ours.properties["expiration"]) <= 30_000
    assert json.loads(ours.body) == json.loads(theirs.body)
    assert {name: ours.delivery_info[name] for name in ("exchange", "routing_key")} == {
        name: theirs.delivery_info[name] for name in ("exchange", "routing_key")
    }


WORK = """
import os, redis
from beatd import App

app = App("proj")
log = redis.Redis.from_url(os.environ["LOG"])

@app.task(name="tasks.tick", bind=True, acks_late=True)
def tick(self):
    log.rpush("executed", self.request.id)
    log.blpop("go", timeout=60)
"""


def test_a_repeat_that_comes_while_its_run_is_at_work_is_dropped(
    start_beatd, config, rabbitmq, redis_url, client, depth, queue, tmp_path, wait_until
):
    (tmp_path / "proj.py").write_text(WORK)
    headers = {"beatd-entry": "tick", "beatd-due-at": "2026-09-21T14:13:20.000+00:00"}
    publisher = AmqpPublisher(rabbitmq.url)
    for run_id in ("a", "a", "b", "a"):
        publisher.publish(build("tasks.tick", task_id=run_id, headers=headers), queue=queue)
    publisher.close()
    worker = start_beatd("worker", *config(), "-A", "proj", "-Q", queue, "-c", "2", LOG=redis_url)
    worker.expect("Dropping tasks.tick.a.: this run is running", timeout=30)
    client.rpush("go", "a", "b")
    worker.expect("Dropping tasks.tick.a.: this run", times=2, timeout=30)
    worker.expect("succeeded", times=2)
    assert worker.end() == 0
    assert sorted(client.lrange("executed", 0, -1)) == [b"a", b"b"]
    assert depth(queue) == 0
