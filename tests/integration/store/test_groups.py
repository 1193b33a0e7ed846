"""Counting the ends of a chord's header: in order, once each, and one sender for the body."""

from __future__ import annotations

import json

import pytest

from beatd.exceptions import StoreRefused
from beatd.store.groups import Part
from beatd.store.results import NoResults, RedisResults


@pytest.fixture
def groups(redis_url):
    results = RedisResults(redis_url, keep_s=60)
    yield results.groups
    results.close()


def part(number, value=None, state="SUCCESS", group="g"):
    task_id = f"task-{number}"
    return Part(group, number, task_id, json.dumps([1, task_id, state, value]).encode(), b'{"task": "body"}', "root")


def test_whoever_notes_the_last_end_sends_the_body(groups):
    groups.begin("g", 3)
    assert groups.end(part(2, "c"), "me") is None
    assert groups.end(part(0, "a"), "you") is None
    complete = groups.end(part(1, "b", "FAILURE"), "me")
    assert complete.ends == [("task-0", "SUCCESS", "a"), ("task-1", "FAILURE", "b"), ("task-2", "SUCCESS", "c")]
    assert complete.shape is None
    assert complete.part.root_id == "root"


def test_an_end_that_is_told_twice_counts_once(groups):
    groups.begin("g", 2)
    assert groups.end(part(0, 1), "me") is None
    assert groups.end(part(0, 1), "me") is None
    assert groups.end(part(1, 2), "me").ends == [("task-0", "SUCCESS", 1), ("task-1", "SUCCESS", 2)]


def test_one_sends_the_body_and_may_ask_again_until_it_has(groups):
    groups.begin("g", 1)
    assert groups.end(part(0), "me") is not None
    assert groups.end(part(0), "you") is None
    assert groups.end(part(0), "me") is not None
    groups.sent("g")
    assert groups.end(part(0), "me") is None
    assert groups.end(part(1), "you") is None


def test_a_header_may_grow_while_it_runs(groups):
    groups.begin("g", 1)
    groups.grow("g")
    assert groups.end(part(0), "me") is None
    assert len(groups.end(part(1), "me").ends) == 2


def test_ends_may_come_before_the_size_is_known(groups):
    assert groups.end(part(0), "me") is None
    groups.begin("g", 2)
    assert groups.end(part(1), "me") is not None


def test_a_frozen_chord_that_is_sent_again_is_another_one(groups):
    groups.begin("g", 1)
    groups.end(part(0), "me")
    groups.sent("g")
    groups.begin("g", 1)
    assert groups.end(part(0), "me") is not None


def test_the_shape_comes_back(groups):
    groups.begin("g", 1, [["g", None], [[["task-0", None], None]]])
    assert groups.end(part(0), "me").shape == [["g", None], [[["task-0", None], None]]]


def test_nothing_is_kept_for_ever(groups, redis_server):
    import redis

    groups.begin("g", 2, ["shape"])
    groups.end(part(0), "me")
    with redis.Redis.from_url(redis_server.url) as client:
        for key in client.keys("celery-taskset-meta-g*"):
            assert 0 < client.ttl(key) <= 60, key
        groups.end(part(1), "me")
        groups.sent("g")
        assert set(client.keys("celery-taskset-meta-g.*")) == {b"celery-taskset-meta-g.c"}


def test_saved_groups(groups):
    groups.save("g", [["g", None], []])
    assert groups.restore("g") == [["g", None], []]
    groups.delete("g")
    assert groups.restore("g") is None


def test_without_a_backend_it_says_what_is_missing():
    with pytest.raises(StoreRefused, match="need a result backend"):
        NoResults().groups.begin("g", 1)
