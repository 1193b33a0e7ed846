"""The note of which entries are held back: written by a leader only, never in the way of a run."""

import pytest
import redis

from beatd.store.client import connect
from beatd.store.held_back import MOST, HeldBack, HeldBackEntry
from beatd.store.keys import Keys, shard_of

KEYS = Keys("t")
LEASE = "d:1"
HELD = HeldBackEntry("it raises", 1_000, 2_000, 3)


@pytest.fixture
def admin(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        client.set(KEYS.shard().lease, LEASE)
        client.set(KEYS.shard(1).lease, LEASE)
        yield client


@pytest.fixture
def held_back(redis_url, admin):
    with connect(redis_url) as client:
        yield HeldBack(client, KEYS)


def test_what_is_written_is_read(held_back):
    assert held_back.write({"a": HELD, "b": HELD}, shard=0, lease_value=LEASE)
    assert held_back.read(["a", "c"]) == {"a": HELD}
    assert held_back.all() == {"a": HELD, "b": HELD}
    assert held_back.count() == 2


def test_what_is_taken_out_is_gone(held_back):
    held_back.write({"a": HELD, "b": HELD}, shard=0, lease_value=LEASE)
    held_back.write({"a": None, "never there": None}, shard=0, lease_value=LEASE)
    assert held_back.all() == {"b": HELD}
    assert held_back.clear(shard=0, lease_value=LEASE)
    assert held_back.count() == 0


def test_a_term_that_is_over_writes_nothing(held_back):
    assert not held_back.write({"a": HELD}, shard=0, lease_value="d:0")
    assert held_back.all() == {}


def test_it_expires_when_nobody_writes_any_more(held_back, admin):
    held_back.write({"a": HELD}, shard=0, lease_value=LEASE)
    assert 60_000 < admin.pttl(KEYS.shard().held) <= 300_000


def test_it_is_bounded(held_back):
    held_back.write({str(number): HELD for number in range(MOST + 10)}, shard=0, lease_value=LEASE)
    assert held_back.count() == MOST
    assert len(held_back.all(at_most=10)) == 10
    later = HELD.__class__("other", 1, 2, 4)
    held_back.write({"0": later}, shard=0, lease_value=LEASE)
    assert held_back.read(["0"]) == {"0": later}, "one that is there can be changed"


def test_all_shards_are_read(redis_url, admin):
    names = [str(number) for number in range(20)]
    with connect(redis_url) as client:
        held_back = HeldBack(client, KEYS, shards=2)
        for name in names:
            held_back.write({name: HELD}, shard=shard_of(name, 2), lease_value=LEASE)
        assert set(held_back.all()) == set(held_back.read(names)) == set(names)
        assert held_back.count() == 20


def test_a_key_of_another_type_hurts_nobody(held_back, admin):
    admin.set(KEYS.shard().held, "somebody else's")
    assert not held_back.write({"a": HELD}, shard=0, lease_value=LEASE)


def test_what_cannot_be_read_is_left_out(held_back, admin):
    held_back.write({"a": HELD}, shard=0, lease_value=LEASE)
    admin.hset(KEYS.shard().held, mapping={"b": "no JSON", "c": "{}", "d": b"\xff"})
    assert held_back.all() == {"a": HELD}
