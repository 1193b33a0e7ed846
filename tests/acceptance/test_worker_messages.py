"""A worker gets messages of every kind that nobody can run: each is a dead letter with its reason, and it goes on."""

from __future__ import annotations

import base64
import json
import re
from random import Random

import amqp
import pytest
import redis

from beatd import App
from tests.malformed import (
    KINDS,
    LIMIT,
    REDIS_KINDS,
    REDIS_RUNNABLE,
    RUNNABLE,
    Parts,
    deep_messages,
    odd_message,
)

PROJECT = """
import redis
from beatd import App

app = App("proj", broker={broker!r})
app.conf.state_store = {store!r}
app.conf.message_max_bytes = {limit}
server = redis.Redis.from_url({store!r})

@app.task(ignore_result=True)
def mark(name, *rest, **more):
    server.sadd("ran", name)
"""


@pytest.fixture
def server(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


def start(start_beatd, tmp_path, broker, store):
    (tmp_path / "proj.py").write_text(PROJECT.format(broker=broker, store=store, limit=LIMIT))
    worker = start_beatd("worker", "-A", "proj", "-c", "1", "-l", "info")
    worker.expect("ready")
    return worker


def letters(server) -> list[dict]:
    return [json.loads(each) for each in server.lrange("{beatd}:dead_letters", 0, -1)]


def original(letter: dict) -> bytes:
    return letter["message"].encode() if "message" in letter else base64.b64decode(letter["message_base64"])


def check(found: dict[str, str], kinds: dict[str, tuple[str, object]]) -> None:
    assert found.keys() == kinds.keys()
    wrong = {name: found[name] for name, (reason, _) in kinds.items() if not re.search(reason, found[name])}
    assert wrong == {}


def test_over_redis(start_beatd, tmp_path, redis_url, server, wait_until):
    kinds: dict[str, tuple[str, object]] = {
        **{f"{name} (in Redis)": kind for name, kind in REDIS_KINDS.items()},
        **KINDS,
    }
    raws = {name: message.on_redis() if isinstance(message, Parts) else message for name, (_, message) in kinds.items()}
    # so that equal ones can be told from each other afterwards, JSON may end in blanks
    raws = {name: raw + b" " * number if raw.endswith(b"}") else raw for number, (name, raw) in enumerate(raws.items())}
    worker = start(start_beatd, tmp_path, redis_url, redis_url)
    server.lpush("celery", *raws.values(), *REDIS_RUNNABLE.values(), *(one.on_redis() for one in RUNNABLE.values()))
    wait_until(lambda: server.llen("{beatd}:dead_letters") >= len(kinds), 30, "the dead letters")
    wait_until(lambda: server.scard("ran") >= len(RUNNABLE) + len(REDIS_RUNNABLE), 30, "what can be run")
    names = {raw: name for name, raw in raws.items()}
    found = {names[original(each)]: each["reason"] for each in letters(server)}
    check(found, kinds)
    assert {one.decode() for one in server.smembers("ran")} == {*RUNNABLE, *REDIS_RUNNABLE}
    assert not worker.find("Traceback|prematurely")


def test_over_rabbitmq(start_beatd, tmp_path, rabbitmq, redis_url, server, wait_until):
    worker = start(start_beatd, tmp_path, rabbitmq.url, redis_url)
    connection = rabbitmq.connect()
    channel = connection.channel()
    for name, message in {**{name: message for name, (_, message) in KINDS.items()}, **RUNNABLE}.items():
        headers = {**message.headers, "kind": name}
        properties = {"content_type": message.content_type, "content_encoding": message.content_encoding}
        channel.basic_publish(
            amqp.Message(message.body, application_headers=headers, **properties), routing_key="celery"
        )
    channel.basic_publish(amqp.Message(b"bare"), routing_key="celery")
    connection.close()
    wait_until(lambda: server.llen("{beatd}:dead_letters") >= len(KINDS) + 1, 30, "the dead letters")
    wait_until(lambda: server.scard("ran") >= len(RUNNABLE), 30, "what can be run")
    reasons = {json.loads(each["message"])["headers"].get("kind"): each["reason"] for each in letters(server)}
    assert "content type" in reasons.pop(None)
    check(reasons, KINDS)
    assert {one.decode() for one in server.smembers("ran")} == set(RUNNABLE)
    assert not worker.find("Traceback|prematurely")


ODD = """
from beatd import App

app = App("odd", broker={broker!r}, backend={store!r}, task_default_queue="oddly")
app.conf.state_store = {store!r}

@app.task
def ok(*args, **kwargs):
    return 1

@app.task
def boom(*args, **kwargs):
    raise ValueError("boom")
"""
TASKS = ["odd.ok", "odd.boom", "odd.nobody"]


def survives(messages, send, server, start_beatd, tmp_path, broker, store, wait_until, pool="prefork"):
    """Start a worker that gets the messages: each has a result or is a dead letter, and a task runs afterwards."""
    (tmp_path / "odd.py").write_text(ODD.format(broker=broker, store=store))
    worker = start_beatd("worker", "-A", "odd", "-P", pool, "-c", "2")
    worker.expect("ready")
    ids = send(messages)

    def ended():
        buried = {json.loads(original(each))["headers"]["id"] for each in letters(server)}
        left = [f"celery-task-meta-{task_id}" for task_id in ids if task_id not in buried]
        return all(document and json.loads(document)["status"] != "PENDING" for document in server.mget(left))

    wait_until(ended, 100, "the end of each task")
    with App("client", broker=broker, backend=store, task_default_queue="oddly", set_as_current=False) as client:
        assert client.send_task("odd.ok").get(timeout=60) == 1
    assert worker.process.poll() is None
    assert not worker.find("internal error|Dropped by the settlement|prematurely")


def odd_messages(server, seed):
    random = Random(seed)
    for number in range(7):  # some headers are complete after one or two of their tasks
        server.set(f"celery-taskset-meta-group-{number}.s", number % 2 + 1)
    return [odd_message(random, f"odd-{number}", TASKS) for number in range(250)]


@pytest.mark.parametrize(
    ("kind", "pool"),
    [("odd", "prefork"), ("odd", "threads"), pytest.param("deep", "prefork", marks=pytest.mark.slow)],
)
def test_signatures_of_any_shape_end_no_worker(start_beatd, tmp_path, redis_url, server, wait_until, kind, pool):
    messages = odd_messages(server, pool) if kind == "odd" else list(deep_messages(250, TASKS))
    if kind == "deep":
        for message in messages:
            server.set(f"celery-taskset-meta-{message.headers['group']}.s", 1)

    def send(messages):
        server.lpush("oddly", *(message.on_redis() for message in messages))
        return [message.headers["id"] for message in messages]

    survives(messages, send, server, start_beatd, tmp_path, redis_url, redis_url, wait_until, pool)


def test_signatures_of_any_shape_over_rabbitmq(start_beatd, tmp_path, rabbitmq, redis_url, server, wait_until):
    def send(messages):
        ids = []
        with rabbitmq.connect() as connection:
            channel = connection.channel()
            for message in messages:
                if 10**400 not in message.headers.values():  # AMQP has no such numbers
                    properties = {"content_type": message.content_type, "content_encoding": message.content_encoding}
                    sent = amqp.Message(message.body, application_headers=message.headers, **properties)
                    channel.basic_publish(sent, routing_key="oddly")
                    ids.append(message.headers["id"])
        return ids

    messages = odd_messages(server, "rabbitmq")
    survives(messages, send, server, start_beatd, tmp_path, rabbitmq.url, redis_url, wait_until)
