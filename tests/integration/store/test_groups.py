"""Counting the ends of a chord's header: in order, once each, and one sender for the body."""

from __future__ import annotations

import json
import pickle

import pytest
import redis

from beatd.exceptions import StoreRefused
from beatd.store.groups import Part
from beatd.store.results import NoResults, RedisResults


@pytest.fixture
def groups_with(redis_url):
    """``groups_with(ordered)``: with Celery's option ``result_chord_ordered``."""
    opened = []

    def open_groups(ordered):
        opened.append(RedisResults(redis_url, keep_s=60, ordered=ordered))
        return opened[-1].groups

    yield open_groups
    for results in opened:
        results.close()


@pytest.fixture
def groups(groups_with):
    return groups_with(None)


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


def end(groups, part, owner):
    """Note one end; what came of it."""
    complete = groups.end([part], owner).complete
    return complete[0] if complete else None


def part(number, value=None, state="SUCCESS", group="g"):
    task_id = f"task-{number}"
    return Part(group, number, task_id, json.dumps([1, task_id, state, value]).encode(), b'{"task": "body"}', "root")


def test_whoever_notes_the_last_end_sends_the_body(groups):
    groups.begin("g", 3)
    assert end(groups, part(2, "c"), "me") is None
    assert end(groups, part(0, "a"), "you") is None
    complete = end(groups, part(1, "b", "FAILURE"), "me")
    assert complete.ends == [("task-0", "SUCCESS", "a"), ("task-1", "FAILURE", "b"), ("task-2", "SUCCESS", "c")]
    assert complete.shape is None
    assert complete.part.root_id == "root"


def test_an_end_that_is_told_twice_counts_once(groups):
    groups.begin("g", 2)
    assert end(groups, part(0, 1), "me") is None
    assert end(groups, part(0, 1), "me") is None
    assert end(groups, part(1, 2), "me").ends == [("task-0", "SUCCESS", 1), ("task-1", "SUCCESS", 2)]


def test_one_sends_the_body_and_may_ask_again_until_it_has(groups):
    groups.begin("g", 1)
    assert end(groups, part(0), "me") is not None
    assert end(groups, part(0), "you") is None
    assert end(groups, part(0), "me") is not None
    groups.sent("g", "me")
    assert end(groups, part(0), "me") is None
    assert end(groups, part(1), "you") is None


def test_a_body_that_another_one_sends_is_to_be_asked_for_again(groups, client):
    groups.begin("g", 1)
    assert end(groups, part(0), "me") is not None
    (claimed,) = groups.end([part(0)], "you").claimed
    assert claimed.part == part(0)
    assert 50 < claimed.seconds <= 60
    client.delete("celery-taskset-meta-g.c")  # as its time runs out
    assert end(groups, part(0), "you") is not None
    groups.sent("g", "you")
    assert groups.end([part(0)], "me") == ([], [])


def test_a_header_may_grow_while_it_runs(groups):
    groups.begin("g", 1)
    groups.grow("g")
    assert end(groups, part(0), "me") is None
    assert len(end(groups, part(1), "me").ends) == 2


def test_ends_may_come_before_the_size_is_known(groups):
    assert end(groups, part(0), "me") is None
    groups.begin("g", 2)
    assert end(groups, part(1), "me") is not None


OF_CELERY_4 = b'{"task": "body", "chord_size": 2}'


def test_the_size_may_be_in_the_message_as_clients_of_celery_4_write_it(groups):
    last, first = (part(n)._replace(body=OF_CELERY_4) for n in range(2))
    groups.begin("g", None)
    assert end(groups, first, "me") is None
    assert [task_id for task_id, *_ in end(groups, last, "me").ends] == ["task-0", "task-1"]


def test_a_worker_of_celery_4_and_this_one_count_in_one_key(groups, client):
    """It pushes what a task returned to a list, and compares the list's length with the size in the message."""
    for group, is_first in (("g", True), ("h", False)):
        ours, theirs = (part(n, n, group=group)._replace(body=OF_CELERY_4) for n in range(2))
        if is_first:
            assert end(groups, ours, "me") is None
            assert client.rpush(f"celery-taskset-meta-{group}.j", theirs.ended) == 2
        else:
            assert client.rpush(f"celery-taskset-meta-{group}.j", theirs.ended) == 1
            assert {value for *_, value in end(groups, ours, "me").ends} == {0, 1}


@pytest.mark.parametrize(("ordered", "kind"), [(None, b"zset"), (True, b"zset"), (False, b"list")])
def test_the_option_decides_in_which_type_ends_are_kept(groups_with, client, ordered, kind):
    groups = groups_with(ordered)
    groups.begin("g", 3)
    for number in (2, 0):
        assert end(groups, part(number)._replace(body=OF_CELERY_4), "me") is None
    assert client.type("celery-taskset-meta-g.j") == kind
    assert [name for name, *_ in end(groups, part(1), "me").ends] == ["task-0", "task-1", "task-2"]
    assert end(groups, part(1), "me") is not None


@pytest.mark.parametrize(
    "raw", [pickle.dumps([1, "task-1", "SUCCESS", 7]), b"- 1\n- task-1\n", b"7", b"[]", b"null", b'{"a": 1}', b"\xff"]
)
def test_an_end_by_another_serializer_fails_the_chord(groups, client, raw):
    groups.begin("g", 2)
    client.zadd("celery-taskset-meta-g.j", {raw: 1})
    [_, (_, state, failure)] = end(groups, part(0), "me").ends
    assert state == "FAILURE"
    assert "result_serializer" in failure["exc_message"][0]


@pytest.mark.parametrize("raw", [pickle.dumps({"result": None}), b"7", b"{}", b"null"])
def test_a_group_that_another_serializer_saved_fails_the_chord(groups, client, raw):
    groups.begin("g", 1)
    client.set("celery-taskset-meta-g", raw)
    [(_, state, failure)] = end(groups, part(0), "me").ends
    assert state == "FAILURE"
    assert "result_serializer" in failure["exc_message"][0]
    with pytest.raises(StoreRefused, match="result_serializer"):
        groups.restore("g")


def test_a_frozen_chord_that_is_sent_again_is_another_one(groups):
    groups.begin("g", 1)
    end(groups, part(0), "me")
    groups.sent("g", "me")
    groups.begin("g", 1)
    assert end(groups, part(0), "me") is not None


def test_the_second_run_of_a_frozen_chord_may_end_in_part_before_it_is_announced(groups):
    groups.begin("g", 2)
    for number in range(2):
        complete = end(groups, part(number), "me")
    assert complete is not None
    groups.sent("g", "me")
    assert end(groups, part(0), "me") is None  # Celery's client announces the size before it sends the last task
    groups.begin("g", 2)
    assert len(end(groups, part(1), "me").ends) == 2


def test_the_shape_comes_back(groups):
    groups.begin("g", 1, [["g", None], [[["task-0", None], None]]])
    assert end(groups, part(0), "me").shape == [["g", None], [[["task-0", None], None]]]


def test_nothing_is_kept_for_ever(groups, client):
    groups.begin("g", 2, ["shape"])
    end(groups, part(0), "me")
    for key in client.keys("celery-taskset-meta-g*"):
        assert 0 < client.ttl(key) <= 60, key
    end(groups, part(1), "me")
    groups.sent("g", "me")
    assert set(client.keys("celery-taskset-meta-g.*")) == {b"celery-taskset-meta-g.c"}


def test_ends_of_many_headers_at_once(groups):
    for number in range(3):
        groups.begin(f"g{number}", 2)
    ends = [part(n, n, group=f"g{g}") for n in range(2) for g in range(3)]
    assert [each.part.group for each in groups.end(ends[:5], "me").complete] == ["g0", "g1"]
    assert [each.part.group for each in groups.end(ends[5:], "me").complete] == ["g2"]


def test_saved_groups(groups):
    groups.save("g", [["g", None], []])
    assert groups.restore("g") == [["g", None], []]
    groups.delete("g")
    assert groups.restore("g") is None


def test_without_a_backend_it_says_what_is_missing():
    with pytest.raises(StoreRefused, match="need a result backend"):
        NoResults().groups.begin("g", 1)


def test_a_chord_whose_key_is_of_another_type_holds_up_no_other(groups, client, caplog):
    client.hset("celery-taskset-meta-odd.j", "a", "b")
    for group in ("odd", "g"):
        groups.begin(group, 1)
    ends = groups.end([part(0, group="odd"), part(0)], "me")
    assert [each.part.group for each in ends.complete] == ["g"]
    assert [record.event for record in caplog.records] == ["result_refused"]
    client.delete("celery-taskset-meta-odd.j")
    ends = groups.end([part(0, group="odd")], "me")
    assert [each.part.group for each in ends.complete] == ["odd"], "the end that was refused did not count"
