"""A worker gets messages of every kind that nobody can run: each is a dead letter with its reason, and it goes on."""

from __future__ import annotations

import base64
import json
import re

import amqp
import pytest
import redis

from tests.malformed import KINDS, LIMIT, REDIS_KINDS, REDIS_RUNNABLE, RUNNABLE, Parts

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
