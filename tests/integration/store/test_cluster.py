"""The client of a cluster, and claims in a slot that is on the move, against real nodes."""

import time

import pytest
import redis
from redis.exceptions import ClusterDownError

from beatd.exceptions import StoreUnavailable
from beatd.store.claims import Claim, Claims
from beatd.store.client import connect, translate_errors
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.topology import slot_of
from tests.chaos.proxy import Proxy

KEYS = Keys(parts=3)
NOW = 1_790_000_000_000
NAMES = [f"k{number}" for number in range(30)]


@pytest.fixture
def client(cluster):
    with connect(cluster.url) as client:
        yield client


@pytest.fixture
def moved(cluster):
    """``moved(key)``: the slot of a key, where it is, and where it might be."""

    def places(key):
        source = cluster.owner(slot_of(key))
        return slot_of(key), source, next(one for one in cluster.masters if one is not source)

    return places


def test_commands_about_many_slots(client):
    with client.pipeline(transaction=False) as pipeline:
        for name in NAMES:
            pipeline.set(name, name)
        pipeline.time()
        pipeline.incr("k1")
        *_, (seconds, _), refused = pipeline.execute(raise_on_error=False)
    assert seconds > 0
    assert isinstance(refused, redis.ResponseError)
    assert client.mget(["nothing", *NAMES, "k3"]) == [None, *(name.encode() for name in NAMES), b"k3"]
    assert client.exists(*NAMES) == 30
    assert client.delete(*NAMES, "nothing") == 30


def test_a_transaction_is_in_one_slot(client):
    with client.pipeline() as pipeline:
        pipeline.set("{a}1", "x")
        pipeline.get("{a}1")
        assert pipeline.execute() == [True, b"x"]


def test_a_slot_moves_under_a_client(client, cluster, moved):
    slot, source, target = moved("{a}")
    client.set("{a}1", "x")
    client.set("{a}2", "y")
    cluster.begin_move(slot, source, target)
    cluster.move_keys(slot, source, target, at_most=1)
    assert {client.get("{a}1"), client.get("{a}2")} == {b"x", b"y"}
    with client.pipeline(transaction=False) as pipeline:
        pipeline.get("{a}1").get("{a}2").set("{a}3", "z")
        assert pipeline.execute() == [b"x", b"y", True]
    with pytest.raises(StoreUnavailable, match="is on the move"), translate_errors(client):
        client.mget(["{a}1", "{a}2"])
    cluster.end_move(slot, source, target)
    assert client.mget(["{a}1", "{a}2", "{a}3"]) == [b"x", b"y", b"z"]
    assert str(client.topology.owner(slot)).endswith(f":{target.port}")
    cluster.move(slot, source)


@pytest.mark.parametrize("keys_moved", [0, 1, 1_000])
def test_nothing_is_claimed_in_a_slot_on_the_move(client, cluster, moved, keys_moved):
    """A script that has begun would fail at the first key that has left: what it wrote before would stay."""
    leases = Leases(client, KEYS, daemon_id="d", ttl_ms=60_000)
    lease_value = leases.value(leases.take([1])[1])
    claims = Claims(client, KEYS, shard=1, shards=3)
    part = KEYS.shard(1)
    first = [Claim(name, NOW, part.outbox, b"first") for name in NAMES]
    assert [done.left_out for done in claims.claim([first], lease_value=lease_value)] == [frozenset()]
    slot, source, target = moved(part.lease)
    cluster.begin_move(slot, source, target)
    if keys_moved:
        cluster.move_keys(slot, source, target, at_most=keys_moved)
    batches = [[Claim(name, NOW + step, part.outbox, b"later") for name in NAMES] for step in (1_000, 2_000)]
    with pytest.raises(StoreUnavailable, match="is on the move"):
        list(claims.claim(batches, lease_value=lease_value))
    cluster.end_move(slot, source, target)
    assert client.llen(part.outbox) == 30
    assert set(client.hvals(part.last_due)) == {str(NOW).encode()}
    for _ in range(2):
        try:
            done = list(claims.claim(batches, lease_value=lease_value))
            break
        except StoreUnavailable:  # the first finds out where the slot is
            pass
    assert [one.left_out for one in done] == [frozenset(), frozenset()]
    assert client.llen(part.outbox) == 90
    cluster.move(slot, source)


def test_leases_of_many_nodes(client, cluster):
    leases = Leases(client, KEYS, daemon_id="d", ttl_ms=60_000)
    assert leases.take([0, 1, 2]) == {0: 1, 1: 1, 2: 1}
    assert Leases(client, KEYS, daemon_id="other", ttl_ms=60_000).take([0, 1, 2]) == {}
    dead = cluster.owner(slot_of(KEYS.shard(2).lease))
    dead.kill()
    renewed = leases.renew({0: 1, 1: 1, 2: 1})
    assert renewed.done == {0, 1}
    assert str(dead.port) in str(renewed.failed[2])
    assert leases.release({0: 1, 1: 1, 2: 1}) == 2


def test_presence_is_seen_at_the_node_of_its_slot(client, cluster, moved, wait_until):
    with connect(cluster.url) as other:
        one, two = (Leases(each, KEYS, daemon_id=name, ttl_ms=20_000) for each, name in ((client, "1"), (other, "2")))
        with one.listen() as heard:
            assert two.absent(["1", "gone"]) == {"gone"}
            assert two.take([0]) == {0: 1}
            two.release({0: 1})
            wait_until(lambda: heard(0.1), what="the release to be heard")
            slot, source, target = moved(KEYS.wake)
            cluster.move(slot, target)
            with pytest.raises(StoreUnavailable):
                wait_until(lambda: heard(0.1), timeout=20)
        for _ in range(2):
            try:
                with one.listen():
                    assert two.absent(["1"]) == set()
                break
            except StoreUnavailable:  # the first finds out where the slot is
                pass
        wait_until(lambda: two.absent(["1"]) == {"1"}, what="the end of the connection to be seen")
        cluster.move(slot, source)


def test_the_map_of_another_cluster_is_not_taken(cluster, start_node):
    """The address of a node may go to somebody else's cluster."""
    other_node = start_node()
    with Proxy(cluster.servers[0].port) as way:
        with connect(f"redis+cluster://127.0.0.1:{way.port}") as client:
            client.set("a", "x")
            owners = client.topology.owners()
            way.target = other_node.port
            until = time.monotonic() + 1.5  # long enough for each address to be asked some times
            while time.monotonic() < until:
                client.topology.note(ClusterDownError("CLUSTERDOWN"))
                assert client.topology.owners() == owners
                assert client.get("a") == b"x"
        with redis.Redis(port=other_node.port) as other:
            assert other.keys("*") == []


def test_a_cluster_that_was_made_anew_is_followed(start_node, wait_until):
    """All addresses that were known lead to nodes that were not."""
    servers = [start_node(), start_node()]
    with Proxy(servers[0].port) as way:
        for server in servers:
            with redis.Redis(port=server.port) as node:
                node.config_set("cluster-announce-port", way.port)
        with connect(f"redis+cluster://127.0.0.1:{way.port}") as client:
            client.set("a", "old")
            way.target = servers[1].port
            way.bar(lambda _: True)
            way.bar(lambda _: False)

            def written():
                try:
                    return client.set("a", "new")
                except redis.RedisError:
                    return None

            wait_until(written, 20, "the new cluster to be taken")
        with redis.Redis(port=servers[1].port) as node:
            assert node.get("a") == b"new"


@pytest.mark.slow
def test_a_node_that_hung_and_is_slow_now_is_used_again(start_node, wait_until):
    """It is tried for as long as the client waits for answers, and nobody waits for that."""
    node = start_node()
    with Proxy(node.port) as way, redis.Redis(port=node.port) as past:
        past.config_set("cluster-announce-port", way.port)
        with connect(f"redis+cluster://127.0.0.1:{way.port}", timeout_ms=6_000) as client:
            client.set("a", "x")
            way.mode = "stall"
            with pytest.raises(redis.TimeoutError):
                client.get("a")
            way.delay, way.mode = 0.6, "slow"

            def got():
                begun = time.monotonic()
                try:
                    return client.get("a")
                except redis.RedisError:
                    assert time.monotonic() < begun + 5.9, "another shard would have waited for that"
                    return None

            assert wait_until(got, 40, "the node to be used again") == b"x"
