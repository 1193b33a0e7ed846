"""Leases: one holder each, terms that only grow, and releases that are heard."""

import re

import pytest
import redis

from beatd.exceptions import StoreRefused, StoreUnavailable
from beatd.store.client import connect
from beatd.store.keys import Keys
from beatd.store.lease import Leases

KEYS = Keys("beatd")


@pytest.fixture
def leases(client):
    return Leases(client, KEYS, daemon_id="d1", ttl_ms=60_000)


@pytest.fixture
def others(client):
    return Leases(client, KEYS, daemon_id="d2", ttl_ms=60_000)


def test_one_daemon_holds_a_lease(leases, others):
    assert leases.take([0]) == {0: 1}
    assert others.take([0]) == {}


def test_each_shard_has_a_lease_and_terms_of_its_own(leases, others):
    assert leases.take([0, 2]) == {0: 1, 2: 1}
    assert others.take([0, 1, 2, 3]) == {1: 1, 3: 1}
    assert leases.release({0: 1, 2: 1}) == 2
    assert others.take([0, 2]) == {0: 2, 2: 2}


def test_terms_only_grow(leases):
    leases.take([0])
    leases.release({0: 1})
    assert leases.take([0]) == {0: 2}


def test_a_store_that_forgot_gives_out_no_token_that_a_daemon_remembers(leases, others, client):
    """As after FLUSHALL, or a loss of power: the same value must never mean two terms."""
    assert leases.take([0, 1]) == {0: 1, 1: 1}
    client.flushall()
    assert leases.take([0, 1, 2], {0: 1, 1: 41}) == {0: 2, 1: 42, 2: 1}
    assert others.take([0]) == {}
    leases.release({0: 2, 1: 42})
    assert others.take([0, 1], {0: 1, 1: 7}) == {0: 3, 1: 43}, "what the store knows counts, too"


def test_a_lease_whose_answer_was_lost_is_taken_again_under_a_new_term(leases):
    """The daemon never saw its token, so the writes of that term can only be a ghost's."""
    assert (leases.take([0]), leases.take([0])) == ({0: 1}, {0: 2})
    assert leases.renew({0: 1}).done == set()
    assert leases.renew({0: 2}).done == {0}


def test_what_is_gone_is_not_renewed_with_the_rest(leases, others):
    leases.take([0, 1])
    leases.release({0: 1})
    others.take([0])
    assert leases.renew({0: 1, 1: 1}).done == {1}


def test_a_daemon_id_that_begins_like_another_is_another(client, leases):
    leases.take([0])
    assert Leases(client, KEYS, daemon_id="d", ttl_ms=1_000).take([0]) == {}


def test_a_lease_ends_when_it_is_not_renewed(client, others, wait_until):
    Leases(client, KEYS, daemon_id="d1", ttl_ms=50).take([0])
    wait_until(lambda: others.take([0]), what="the lease to end")


def test_only_the_holder_releases(leases, others):
    leases.take([0])
    assert others.release({0: 1}) == 0
    assert leases.release({0: 1}) == 1
    assert leases.release({0: 1}) == 0


def test_a_release_is_heard(leases, redis_url):
    leases.take([0])
    with connect(redis_url) as own, Leases(own, KEYS, daemon_id="d2", ttl_ms=9_000).listen() as released:
        assert not released(0.01)
        leases.release({0: 1})
        assert released(5.0)


def test_a_lease_of_somebody_else_is_left_alone(client, leases):
    client.set(KEYS.shard(0).lease, "not ours")
    assert leases.take([0]) == {}
    assert client.get(KEYS.shard(0).lease) == b"not ours"


@pytest.mark.parametrize("which", ["lease", "term"])
@pytest.mark.parametrize("kind", ["a list", "a string"])
def test_a_key_that_is_not_ours_keeps_no_other_shard_without_a_leader(client, leases, which, kind):
    key = getattr(KEYS.shard(1), which)
    client.rpush(key, "mine") if kind == "a list" else client.set(key, "mine")
    before = client.dump(key)
    assert leases.take([0, 1, 2]) == {0: 1, 2: 1}
    assert leases.renew({0: 1, 1: 1, 2: 1}).done == {0, 2}
    assert leases.release({0: 1, 1: 1, 2: 1}) == 2
    if which == "term":
        with pytest.raises(StoreRefused, match=re.escape(key)):
            leases.take([1])
    assert client.dump(key) == before


def test_a_server_that_is_gone_is_unavailable(redis_server, redis_url):
    with connect(redis_url) as client:
        leases = Leases(client, KEYS, daemon_id="d1", ttl_ms=1_000)
        leases.take([0])
        redis_server.kill()
        with pytest.raises(StoreUnavailable):
            leases.renew({0: 1})


def test_a_server_that_does_not_answer_is_unavailable_after_the_timeout(leases, redis_server, redis_url):
    leases.take([0])
    redis_server.pause()
    try:
        with connect(redis_url, timeout_ms=200) as client, pytest.raises(StoreUnavailable):
            Leases(client, KEYS, daemon_id="d1", ttl_ms=1_000).renew({0: 1})
    finally:
        redis_server.resume()


def test_passwords_stay_out_of_errors(redis_url):
    with redis.Redis.from_url(redis_url) as admin:
        admin.config_set("requirepass", "s3cret")
        try:
            wrong = redis_url.replace("redis://", "redis://:wr0ng@")
            with connect(wrong) as client, pytest.raises(StoreRefused) as caught:
                Leases(client, KEYS, daemon_id="d1", ttl_ms=1_000).take([0])
            assert "wr0ng" not in str(caught.value)
        finally:
            admin.config_set("requirepass", "")
