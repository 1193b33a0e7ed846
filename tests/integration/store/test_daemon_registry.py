"""Daemon registry: heartbeats, members and lease owners by the clock of the store."""

import time

import pytest

from beatd.exceptions import StoreRefused
from beatd.store.daemon_registry import FORGET_MS, Registry, Status
from beatd.store.keys import Keys
from beatd.store.lease import Leases

KEYS = Keys("beatd")
MANY_DIGITS = b"9" * 5_000 + b' {"id": "foreign"}'


@pytest.fixture
def registry(client):
    return Registry(client, KEYS)


def aged(client, name, ms):
    """Let a daemon look as if it had been silent for so long."""
    seen, _, text = client.hget(KEYS.daemons, name).partition(b" ")
    client.hset(KEYS.daemons, name, b"%d %s" % (int(seen) - ms, text))


def test_daemons_see_each_other_and_themselves(registry):
    one, other = Status(id="d1", host="h", entries=3, digest="x"), Status(id="d2", clock_offset_ms=-7)
    assert registry.heartbeat(one, shards=1).alive == {"d1": one}
    assert registry.heartbeat(other, shards=1).alive == {"d1": one, "d2": other}


def test_the_roll_has_the_stores_time(registry):
    before = time.time_ns() // 1_000_000
    now_ms = registry.look(shards=1).now_ms
    assert before - 1 <= now_ms <= time.time_ns() // 1_000_000 + 1


def test_who_looks_is_not_listed(registry, client):
    registry.look(shards=3)
    assert client.keys("*") == []


def test_who_holds_what_is_part_of_it(registry, client):
    Leases(client, KEYS, daemon_id="d:1", ttl_ms=60_000).take([0, 2])
    leases = registry.look(shards=4).leases
    assert {shard: (one.daemon_id, one.token) for shard, one in leases.items()} == {0: ("d:1", 1), 2: ("d:1", 1)}
    assert 0 < leases[0].left_ms <= 60_000


def test_who_keeps_silent_is_not_alive_and_later_forgotten(registry, client):
    registry.heartbeat(Status(id="d1", lapse_ms=60_000), shards=1)
    aged(client, "d1", 20_000)
    assert registry.look(shards=1).daemons["d1"].alive
    aged(client, "d1", 50_000)
    fleet = registry.look(shards=1)
    assert fleet.alive == {}
    assert 70_000 <= fleet.daemons["d1"].age_ms < FORGET_MS
    aged(client, "d1", FORGET_MS)
    assert set(registry.look(shards=1).daemons) == {"d1"}, "who looks changes nothing"
    assert set(registry.heartbeat(Status(id="d2"), shards=1).daemons) == {"d2"}


def test_who_leaves_is_struck_off(registry):
    registry.heartbeat(Status(id="d1"), shards=1)
    registry.leave("d1")
    assert registry.look(shards=1).daemons == {}


@pytest.mark.parametrize(
    "value", [b"", b"nonsense", b"17 {", b'17 {"id": 3}', b'17 {"id": "another"}', b"\xff \xff", MANY_DIGITS]
)
def test_what_is_not_a_daemons_is_left_alone(registry, client, value):
    client.hset(KEYS.daemons, "foreign", value)
    assert set(registry.heartbeat(Status(id="d1"), shards=1).daemons) == {"d1"}


def test_a_status_of_a_newer_version_can_be_read(registry, client):
    now = registry.look(shards=1).now_ms
    client.hset(KEYS.daemons, "d9", b'%d {"id": "d9", "version": "9.0", "mood": ["good"]}' % now)
    assert registry.look(shards=1).alive["d9"].version == "9.0"


@pytest.mark.parametrize("value", [b"\xffodd", b"d1:" + b"9" * 5_000])
def test_a_lease_that_is_none_is_shown_as_it_is(registry, client, value):
    client.set(KEYS.shard(0).lease, value)
    holder = registry.look(shards=1).leases[0]
    assert holder.left_ms == -1
    assert holder.token == 0


def test_a_key_of_a_foreign_type_is_named_and_kept(registry, client):
    client.rpush(KEYS.daemons, "mine")
    with pytest.raises(StoreRefused) as caught:
        registry.heartbeat(Status(id="d1"), shards=1)
    assert KEYS.daemons in str(caught.value)
    assert client.lrange(KEYS.daemons, 0, -1) == [b"mine"]


def test_a_lease_of_a_foreign_type_hides_no_other(registry, client):
    client.rpush(KEYS.shard(1).lease, "mine")
    client.set(KEYS.shard(2).lease, "d1:7", px=60_000)
    leases = registry.heartbeat(Status(id="d1"), shards=3).leases
    assert {shard: (one.daemon_id, one.is_foreign) for shard, one in leases.items()} == {
        1: ("", True),
        2: ("d1", False),
    }
    assert client.lrange(KEYS.shard(1).lease, 0, -1) == [b"mine"]


def test_outboxes_are_counted(registry, client):
    client.rpush(KEYS.shard(1).outbox, "m", "m")
    assert registry.sizes(shards=3).outboxes == [0, 2, 0]
