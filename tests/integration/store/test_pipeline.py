"""Reads that run side by side: their questions travel together, and each gets its own answers and errors."""

import pytest
import redis

from beatd.exceptions import StoreRefused, StoreUnavailable
from beatd.store.client import connect, translate_errors
from beatd.store.keys import Keys
from beatd.store.pipeline import joint_reads
from beatd.store.script import Script
from tests.round_trips import RoundTrips

TO_CONNECT = 2
KEYS = Keys()


def trips(link):
    return max((number for number, _, _ in link.requests), default=0)


@pytest.fixture
def link(redis_url, redis_server):
    with RoundTrips(redis_server.port) as link:
        yield link


@pytest.fixture
def far(link):
    """A client behind the proxy that counts."""
    with connect(f"redis://127.0.0.1:{link.port}/0") as client:
        yield client


def follow(client, key, steps):
    """The last of so many values, each of which is the key of the next one."""
    for _ in range(steps):
        key = client.get(key)
    return key


def test_reads_take_as_many_round_trips_as_the_longest(client, far, link):
    client.mset({f"{name}{n}": f"{name}{n + 1}" for name in "abc" for n in range(5)})
    client.hset("h", mapping={str(n): n for n in range(10)})
    with joint_reads() as read:
        ends = [read(follow, far, f"{name}0", steps) for name, steps in (("a", 1), ("b", 4), ("c", 2))]
        fields = read(lambda: dict(far.hscan_iter("h")))
        many = read(far.mget, "a0", "nothing", "b0")
        info = read(far.info, "server")
    assert [one.result() for one in ends] == [b"a1", b"b4", b"c2"]
    assert fields.result()[b"9"] == b"9"
    assert many.result() == [b"a1", None, b"b1"]
    assert "redis_version" in info.result()
    assert trips(link) == TO_CONNECT + 4
    assert len({connection for _, connection, _ in link.requests}) == 1


def test_reads_within_reads_travel_along(client, far, link):
    client.mset({f"{name}{n}": f"{name}{n + 1}" for name in "abc" for n in range(5)})

    def several(depth):
        with joint_reads() as read:
            ends = [read(follow, far, f"{name}0", 2) for name in "ab"]
            deeper = read(several, depth - 1) if depth else None
        found = [one.result() for one in ends] + (deeper.result() if deeper else [])
        return [*found, follow(far, "c0", 1)]

    with joint_reads() as read:
        nested, single = read(several, 2), read(follow, far, "c0", 4)
    assert nested.result() == [b"a2", b"b2"] * 3 + [b"c1"] * 3
    assert single.result() == b"c4"
    assert trips(link) == TO_CONNECT + 2 + 3


def test_scripts_and_pipelines_take_part(client, far, link):
    client.set(KEYS.shard().history + "a", "x" * 3)
    tails = Script(far, "history_tails")

    def piped():
        with far.pipeline(transaction=False) as pipeline:
            pipeline.set("k", 1)
            pipeline.hget("k", "f")
            return pipeline.execute(raise_on_error=False)

    for _ in range(2):  # the second time by the server's copy
        with joint_reads() as read:
            one, two = read(tails, [KEYS.history("a")], [0]), read(piped)
        assert one.result() == [b"xxx"]
        assert two.result()[0] is True
        assert isinstance(two.result()[1], redis.ResponseError)
    client.script_flush()
    with joint_reads() as read:
        one, two = read(tails, [KEYS.history("a")], [0]), read(piped)
    assert one.result() == [b"xxx"]
    assert trips(link) == TO_CONNECT + 4


def test_an_error_concerns_the_read_that_made_it(client, far):
    client.set("text", "x")

    def fields():
        with translate_errors(far):
            return far.hgetall("text")

    def refused():
        with far.pipeline(transaction=False) as pipeline:
            pipeline.get("text")
            pipeline.hgetall("text")
            return pipeline.execute()

    with joint_reads() as read:
        wrong, right, piped = read(fields), read(far.get, "text"), read(refused)
        broken = read(lambda: 1 // 0)
    assert right.result() == b"x"
    for future, error in ((wrong, StoreRefused), (piped, redis.ResponseError), (broken, ZeroDivisionError)):
        with pytest.raises(error):
            future.result()


def test_a_server_that_is_away_fails_its_own_reads(client, free_port):
    client.set("k", "v")

    def get(one):
        with translate_errors(one):
            return one.get("k")

    with connect(f"redis://127.0.0.1:{free_port()}/0", timeout_ms=500) as away, joint_reads() as read:
        here, there, there_too = read(get, client), read(get, away), read(get, away)
    assert here.result() == b"v"
    for future in (there, there_too):
        with pytest.raises(StoreUnavailable):
            future.result()


def test_servers_are_asked_at_the_same_time(client, redis_server):
    with RoundTrips(redis_server.port, at_once=2) as link:
        url = f"redis://127.0.0.1:{link.port}/0"
        with connect(url) as one, connect(url) as other, joint_reads() as read:
            found = [read(client.get, "nothing") for client in (one, other)]
        assert [each.result() for each in found] == [None, None]
        assert trips(link) == TO_CONNECT + 1


def test_a_cluster_is_asked_node_by_node(cluster):
    with connect(cluster.url) as client:
        for name in "cdefgh":
            client.set(name, name)
        client.set("text", "x")
        with joint_reads() as read:
            values = [read(client.get, name) for name in "cdefgh"]
            many, wrong = read(client.mget, [*"cdefgh"]), read(client.hgetall, "text")
        assert [one.result() for one in values] == many.result() == [name.encode() for name in "cdefgh"]
        with pytest.raises(redis.ResponseError):
            wrong.result()


def test_no_reads_and_a_transaction_alone(client):
    with joint_reads():
        pass

    def transaction():
        with client.pipeline(transaction=True) as pipeline:
            pipeline.set("k", "v")
            pipeline.get("k")
            return pipeline.execute()

    with joint_reads() as read:
        done, other = read(transaction), read(client.get, "nothing")
    assert (done.result(), other.result()) == ([True, b"v"], None)
