"""The worker on RabbitMQ: restarts, deaths, messages before their time, prefetching, queue arguments."""

from __future__ import annotations

import json
import signal
import uuid
from datetime import UTC, datetime, timedelta

import amqp
import pytest
import redis

from beatd import broker
from beatd.broker import Address, OutgoingMessage
from beatd.message.protocol import build

pytestmark = pytest.mark.slow

PROJECT = """
import os, time
import redis
from beatd import App

app = App("proj", broker={broker!r})
app.conf.update({conf!r})
server = redis.Redis.from_url({store!r})

@app.task(acks_late=True, ignore_result=True)
def mark(name):
    server.hincrby("ran", name, 1)

@app.task(acks_late=True, ignore_result=True)
def mark_later(name):
    while not server.exists("go"):
        time.sleep(0.05)
    server.hincrby("ran", name, 1)

@app.task(acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def nap(name, seconds):
    server.rpush("begun", name)
    time.sleep(seconds)
    server.hincrby("ran", name, 1)

@app.task(ignore_result=True)
def early_nap(name, seconds):
    server.rpush("begun", name)
    time.sleep(seconds)

@app.task(bind=True, max_retries=3, ignore_result=True)
def again(self, name, wanted):
    server.hincrby("tried", name, 1)
    if self.request.retries < wanted:
        raise self.retry(countdown=0.3)
    server.hincrby("ran", name, 1)
"""


@pytest.fixture
def server(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def project(tmp_path, rabbitmq, redis_url, queue):
    def write(broker_url=rabbitmq.url, **conf):
        settings = {"state_store": redis_url, "task_default_queue": queue, **conf}
        (tmp_path / "proj.py").write_text(PROJECT.format(broker=broker_url, store=redis_url, conf=settings))

    return write


@pytest.fixture
def publish(rabbitmq, queue):
    made = broker.open(rabbitmq.url)

    def send(task, *calls, **fields):
        parcels = [
            OutgoingMessage(build(f"proj.{task}", str(uuid.uuid4()), args, **fields), Address(queue)) for args in calls
        ]
        for start in range(0, len(parcels), made.batch):
            assert made.publish_many(parcels[start : start + made.batch]) == []

    yield send
    made.close()


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def made_with(rabbitmq, queue, arguments) -> bool:
    """Whether the queue is there and has these arguments: RabbitMQ refuses to declare it with others."""
    connection = rabbitmq.connect()
    try:
        connection.channel().queue_declare(queue, passive=True)
        connection.channel().queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
    except (amqp.NotFound, amqp.PreconditionFailed):
        return False
    finally:
        connection.close()
    return True


def ran(server) -> dict[str, int]:
    return {name.decode(): int(count) for name, count in server.hgetall("ran").items()}


@pytest.mark.parametrize("count", [1_500, pytest.param(5_000, marks=pytest.mark.soak)])
def test_the_broker_is_killed_among_thousands_of_tasks(
    count, start_beatd, project, publish, rabbitmq, server, wait_until
):
    project()
    publish("nap", ("slow", 8))
    publish("mark", *((str(number),) for number in range(count // 2)))
    publish("mark_later", *((str(number),) for number in range(count // 2, count)))
    worker = start_beatd("worker", "-A", "proj", "-c", "2", "-l", "warning")
    wait_until(lambda: server.hlen("ran") > 200, 30, "some tasks")
    rabbitmq.kill()
    assert server.hlen("ran") < count
    server.set("go", "on")
    rabbitmq.start()
    wait_until(lambda: server.hlen("ran") == count + 1, 60, "all tasks")
    assert worker.find("A server is away")
    assert server.lrange("begun", 0, -1) == [b"slow"]  # it came again while it was at work
    assert sum(times - 1 for times in ran(server).values()) < 300  # no more than was under way


def test_messages_before_their_time_wait_in_the_store_and_survive_the_worker(
    start_beatd, project, publish, rabbitmq, queue, server, wait_until
):
    project()
    first = start_beatd("worker", "-A", "proj", "-c", "1", "-l", "warning")
    publish("mark", ("far",), eta=in_seconds(3600))
    wait_until(lambda: server.zcard("{beatd}:waiting") == 1, 30, "the worker to take messages")
    publish("mark", *((f"eta-{n}",) for n in range(20)), eta=in_seconds(8))
    wait_until(lambda: server.zcard("{beatd}:waiting") == 21, 20, "the messages in the store")
    first.send(signal.SIGKILL)
    assert ran(server) == {}
    start_beatd("worker", "-A", "proj", "-c", "1", "-l", "warning")
    wait_until(lambda: ran(server) == {f"eta-{n}": 1 for n in range(20)}, 30, "their time")
    assert server.zcard("{beatd}:waiting") == 1
    assert server.zcard("{beatd}:lent") == 0


def test_retries_wait_in_the_store(start_beatd, project, publish, server, wait_until):
    project()
    start_beatd("worker", "-A", "proj", "-c", "1", "-l", "warning")
    publish("again", ("it", 2))
    wait_until(lambda: ran(server) == {"it": 1}, 30, "the third attempt")
    assert server.hget("tried", "it") == b"3"


def test_long_tasks_leave_the_others_to_others(start_beatd, project, publish, server, wait_until):
    project()
    publish("mark", *((str(number),) for number in range(300)))  # short ones: it has many sent ahead
    first = start_beatd("worker", "-A", "proj", "-c", "1", "-l", "warning")
    wait_until(lambda: server.hlen("ran") == 300, 30, "the short ones")
    publish("nap", *((f"long-{number}", 5) for number in range(120)))
    wait_until(lambda: server.llen("begun") == 1, 20, "a long one to begin")
    second = start_beatd("worker", "-A", "proj", "-c", "2", "-l", "warning")
    wait_until(lambda: server.llen("begun") >= 3, 20, "others to begin elsewhere")
    for worker in (first, second):
        worker.send(signal.SIGQUIT)


def test_a_task_waits_behind_no_long_one_that_was_acknowledged_early(start_beatd, project, publish, server, wait_until):
    """When the first is acknowledged, RabbitMQ sends the second to the same worker."""
    project()
    first = start_beatd("worker", "-A", "proj", "-c", "1", "-l", "warning")
    publish("early_nap", ("first", 120), ("second", 120))
    wait_until(lambda: server.llen("begun") == 1, 20, "the first to begin")
    second = start_beatd("worker", "-A", "proj", "-c", "1", "-l", "warning")
    wait_until(lambda: server.llen("begun") == 2, 40, "the other one to begin elsewhere")
    for worker in (first, second):
        worker.send(signal.SIGQUIT)


def test_queues_are_made_as_configured_and_failover_goes_to_the_next_host(
    start_beatd, project, publish, rabbitmq, queue, server, wait_until, free_port
):
    down = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
    project(f"{down};{rabbitmq.url}", task_queue_max_priority=10)
    start_beatd("worker", "-A", "proj", "-c", "1", "-l", "warning")
    wait_until(lambda: made_with(rabbitmq, queue, {"x-max-priority": 10}), 30, "the queue")
    publish("nap", ("busy", 1))
    wait_until(lambda: server.llen("begun") == 1, 20, "it to be busy")
    for priority in (1, 9, 5):
        publish("nap", (f"p{priority}", 0), priority=priority)
    wait_until(lambda: server.llen("begun") == 4, 20, "all")
    begun = [each.decode() for each in server.lrange("begun", 0, -1)]
    # one may have been sent ahead before the others were there
    assert begun[0] == "busy"
    assert begun.index("p9") < begun.index("p5")


def test_quorum_queues(start_beatd, project, publish, rabbitmq, queue, server, wait_until):
    project(task_default_queue_type="quorum", task_queue_max_priority=10)
    worker = start_beatd("worker", "-A", "proj", "-c", "1", "-l", "warning")
    wait_until(lambda: made_with(rabbitmq, queue, {"x-queue-type": "quorum"}), 30, "the queue")
    publish("mark", *((str(number),) for number in range(200)))
    wait_until(lambda: server.hlen("ran") == 200, 30, "the tasks")
    publish("nap", ("killed", 60))
    wait_until(lambda: server.llen("begun") == 1, 20, "a long one to begin")
    worker.send(signal.SIGKILL)
    start_beatd("worker", "-A", "proj", "-c", "1", "-l", "warning")
    wait_until(lambda: server.llen("begun") == 2, 30, "it to begin elsewhere")


def test_dead_letters_are_sent_again_through_the_broker(
    beatd, start_beatd, project, publish, queue, server, wait_until, rabbitmq, redis_url, tmp_path
):
    project()
    start_beatd("worker", "-A", "proj", "-c", "1", "-l", "warning")
    publish("mark", ("late",), eta="whenever")
    wait_until(lambda: server.llen("{beatd}:dead_letters") == 1, 20, "the dead letter")
    config = f'[redis]\nurl = "{redis_url}"\n[broker]\nurl = "{rabbitmq.url}"\n'
    (tmp_path / "beat.toml").write_text(config)
    listed = json.loads(beatd("dead-letters", "list", "--json").stdout)
    assert [(one["task"], one["queue"]) for one in listed] == [("proj.mark", queue)]
    assert "whenever" in listed[0]["reason"]
    done = beatd("dead-letters", "requeue", listed[0]["id"])
    assert (done.returncode, done.stdout) == (0, "1 message sent again\n")
    wait_until(  # it is as broken as it was: it comes back under another id
        lambda: (
            [one["id"] for one in json.loads(beatd("dead-letters", "list", "--json").stdout)]
            not in ([], [listed[0]["id"]])
        ),
        20,
        "the dead letter again",
    )
