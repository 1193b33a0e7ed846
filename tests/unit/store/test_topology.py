"""Slots of keys, and the spread of shards over them."""

import threading

import pytest
import redis
from redis.crc import key_slot

from beatd.clock import Backoff
from beatd.store.client import connect
from beatd.store.keys import Keys, shard_of, type_of
from beatd.store.topology import SLOTS, Address, key_of, slot_of


@pytest.mark.parametrize("key", ["a", "{beatd}:0:lease", "{}x", "a{b}c{d}", "a{b", "é{ü}", "{beatd:3.14}:known"])
def test_slots_are_those_of_the_server(key):
    assert slot_of(key) == slot_of(key.encode()) == key_slot(key.encode())


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "a"), "a"),
        (("EVALSHA", "digest", 2, "a", "b", "argument"), "a"),
        (("EVAL", "text", 0, "argument"), None),
        (("PUBLISH", "channel", "word"), None),
        (("CLUSTER SLOTS",), None),
        (("TIME",), None),
    ],
)
def test_the_key_of_a_command(command, key):
    assert key_of(command) == key


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 8, 64])
@pytest.mark.parametrize("prefix", ["beatd", "billing"])
def test_shards_are_spread_evenly_over_the_slots(prefix, shards):
    slots = sorted(slot_of(part.lease) for part in Keys(prefix, parts=shards).all_parts())
    assert [slot * shards // SLOTS for slot in slots] == list(range(shards))


def test_all_keys_of_a_shard_are_in_one_slot_and_have_their_types():
    keys = Keys(parts=8)
    for shard, part in enumerate(keys.all_parts()):
        assert len({slot_of(key) for key in part}) == 1
        assert {type_of(key) for key in part if not key.endswith(":")} == {"string", "list", "hash", "zset"}
        assert part == keys.shard(shard)
    for name in ("a", "b", "report"):
        own = keys.shard(shard_of(name, 8))
        assert keys.of(name) == own
        assert keys.history(name) == f"{own.history}{name}"
        assert keys.outcomes(name) == f"{own.outcomes}{name}"


def test_outside_of_a_cluster_and_for_shard_0_names_are_what_they_were():
    plain, spread = Keys(), Keys(parts=4)
    assert plain.shard(0) == spread.shard(0)
    assert plain.shard(3).last_due == "{beatd}:last_due"
    assert plain.shard(3).lease == "{beatd}:3:lease"
    assert plain.shard(0).requests == "{beatd}:requests"
    assert plain.history("a") == "{beatd}:history:a"


def test_parts_that_are_away_are_left_out():
    keys = Keys(parts=3)
    names = [f"e{number}" for number in range(30)]
    without = keys.without({1: "refused"})
    assert without.all_parts() == [keys.shard(0), keys.shard(2)]
    left = {name for _, own in without.by_part(names) for name in own}
    assert left == {name for name in names if shard_of(name, 3) != 1}
    assert without.of(next(name for name in names if name not in left)) == keys.shard(1)


def test_nodes_that_have_left_the_cluster_leave_nothing_behind():
    """Nodes in containers get other addresses each time: connections to the former ones would stay open."""
    client = connect("redis+cluster://seed:7000")
    topology, nodes = client.topology, [Address(f"10.0.0.{number}", 7000) for number in range(1, 6)]
    for number, node in enumerate(nodes):
        topology._take(nodes[0], [[0, SLOTS - 1, [node.host.encode(), node.port, b"%d" % number]]])
        topology.pool(node)
        topology.answered(node, 5.0 - number)
    assert set(topology._pools) == {Address("seed", 7000), nodes[-1]}
    assert topology.slowest() == nodes[-1]
    client.close()


def test_a_node_is_tried_again_after_the_process_was_out_of_threads(monkeypatch):
    client = connect("redis+cluster://127.0.0.1:1")
    topology, node = client.topology, Address("127.0.0.1", 1)
    topology._away[node] = (0.0, Backoff(1.0, 1.0), "it did not answer")

    def no_thread(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(redis.ConnectionError, match="can't start new thread"):
            topology._attempt_again(node)
    topology._attempt_again(node)
    assert topology._away == {}, "it refuses connections, and so it answers"
    client.close()
