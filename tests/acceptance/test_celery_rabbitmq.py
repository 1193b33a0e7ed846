"""Celery and beatd over RabbitMQ, results in Redis: what may differ from Redis. The rest of it is for ``--soak``."""

from __future__ import annotations

import uuid

import pytest

from tests.acceptance.celery_pairs import MIXED, WAIT, WARNINGS, paired, workers

pytestmark = [*WARNINGS, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(redis_server, rabbitmq_node, tmp_path_factory):
    redis_server.start().flush()
    broker = rabbitmq_node.start().url
    with workers(tmp_path_factory.mktemp("rabbitmq"), broker, redis_server.url):
        yield broker, redis_server.url


@pytest.fixture(scope="module", params=MIXED[:2])
def pair(request, place):
    with paired(request.param, *place) as pair:
        yield pair


def test_calls_retries_and_times(pair):
    task_id = str(uuid.uuid4())
    facts = pair.run("who", task_id=task_id, headers={"tenant": "a"}, time_limit=20, soft_time_limit=10)
    assert (facts["id"], facts["queue"], facts["tenant"], facts["limits"]) == (task_id, pair.queue, "a", [20, 10])
    assert pair.run("flaky", 2) == 2
    assert pair.run("add", 1, 2, countdown=0.2) == 3
    assert pair.run("echo", "x" * 5000, compression="gzip") == "x" * 5000
    with pytest.raises(ValueError, match="boom"):
        pair.run("boom")
    with pytest.raises(pair.errors.NotRegistered):
        pair.run("nobody")
    with pytest.raises(pair.errors.TaskRevokedError):
        pair.run("add", 1, 2, expires=-5)


def test_compositions(pair):
    s, canvas = pair.s, pair.canvas
    members = canvas.group(s("add", 1), s("add", 2))
    assert (s("add", 1, 1) | members | s("total") | s("mul", 10)).apply_async().get(timeout=WAIT) == 70
    ours, theirs = s("add", 1, 1).set(queue="ours"), s("add", 2, 2).set(queue="theirs")
    assert canvas.chord([ours, theirs])(s("total")).get(timeout=WAIT) == 6
