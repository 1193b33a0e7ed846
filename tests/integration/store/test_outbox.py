"""What is left in the outboxes of former shards: nothing is lost when their number is made smaller."""

import pytest

from beatd.exceptions import TermLost
from beatd.store.client import connect
from beatd.store.keys import Keys
from beatd.store.outbox import INHERIT_AT_ONCE, Outbox

KEYS = Keys("beatd")


@pytest.fixture
def client(redis_url):
    with connect(redis_url) as client:
        client.set(KEYS.shard(0).lease, "d:1")
        yield client


def outbox(client, shard=0, shards=1):
    return Outbox(client, KEYS, shard=shard, shards=shards)


def test_former_outboxes_are_taken_over_the_oldest_first(client):
    client.lpush(KEYS.shard(0).outbox, "new")
    client.lpush(KEYS.shard(3).outbox, "old 1", "old 2", "old 3")
    assert outbox(client).inherit(lease_value="d:1")
    assert outbox(client).oldest(9) == [b"old 1", b"old 2", b"old 3", b"new"]
    assert not client.exists(KEYS.shard(3).outbox)


def test_each_former_outbox_has_one_heir(client):
    client.set(KEYS.shard(1).lease, "d:1")
    for shard in range(6):
        client.lpush(KEYS.shard(shard).outbox, f"of {shard}")
    for shard in range(2):
        assert outbox(client, shard, 2).inherit(lease_value="d:1")
    assert sorted(outbox(client, 0, 2).oldest(9)) == [b"of 0", b"of 2", b"of 4"]
    assert sorted(outbox(client, 1, 2).oldest(9)) == [b"of 1", b"of 3", b"of 5"]


def test_an_outbox_whose_shard_is_led_is_left_alone_until_it_is_not(client):
    client.lpush(KEYS.shard(3).outbox, "m")
    client.set(KEYS.shard(3).lease, "other:4")
    assert not outbox(client).inherit(lease_value="d:1")
    assert client.llen(KEYS.shard(3).outbox) == 1
    client.delete(KEYS.shard(3).lease)
    assert outbox(client).inherit(lease_value="d:1")
    assert outbox(client).oldest(9) == [b"m"]


def test_many_messages_are_moved_in_parts(client):
    for shard in (2, 7):
        client.lpush(KEYS.shard(shard).outbox, *range(INHERIT_AT_ONCE))
    assert outbox(client).inherit(lease_value="d:1")
    assert client.llen(KEYS.shard(0).outbox) == 2 * INHERIT_AT_ONCE


def test_an_old_term_inherits_nothing(client):
    client.lpush(KEYS.shard(3).outbox, "m")
    with pytest.raises(TermLost):
        outbox(client).inherit(lease_value="d:0")
    assert client.llen(KEYS.shard(3).outbox) == 1
