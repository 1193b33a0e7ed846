"""Electors against a real server: how fast leadership moves, and what they survive."""

import itertools
import time

import pytest
import redis

from beatd.beat.elector import Elector
from beatd.clock import SystemClock
from beatd.store.client import connect
from beatd.store.daemon_registry import Registry, Status
from beatd.store.keys import Keys
from beatd.store.lease import Leases

KEYS = Keys("beatd")
TTL_MS, RENEW_MS = 1_500, 400
LONG_MS = 30_000
"""Time to live of leases that do not end by themselves while a test lasts, though a process may stall for seconds."""


@pytest.fixture
def start(redis_url):
    """``start("a", shards=2)``: an elector in its thread, with a connection of its own."""
    started, names = [], itertools.count(1)

    def start(name=None, *, shards=1, ttl_ms=TTL_MS, renew_ms=RENEW_MS, **status):
        name = name or f"d{next(names)}"
        client = connect(redis_url, timeout_ms=ttl_ms // 3, name=f"elector-{name}")
        own = Status(id=name, entries=1, shards=shards, lapse_ms=Elector.lapse_ms(ttl_ms), **status)
        elector = Elector(
            Leases(client, KEYS, daemon_id=name, ttl_ms=ttl_ms),
            Registry(client, KEYS),
            SystemClock(),
            shards=shards,
            ttl_ms=ttl_ms,
            renew_ms=renew_ms,
            status=lambda: own,
        )
        elector.start()
        started.append((elector, client))
        return elector

    yield start
    for elector, client in started:
        elector.stop()
        client.close()


@pytest.fixture
def admin(redis_url):
    with redis.Redis.from_url(redis_url) as admin:
        yield admin


def led(elector):
    return [leadership.shard for leadership in elector.leaderships if leadership.term()]


def led_throughout(electors):
    """The shards that electors led during two looks, in one term. In a single look, which takes one elector after the
    other, a shard that moves may be seen at both."""

    def look():
        terms = [(each, leadership.shard, leadership.term()) for each in electors for leadership in each.leaderships]
        return [(each, shard, term.token) for each, shard, term in terms if term]

    before, after = look(), look()
    return [shard for each, shard, token in before if (each, shard, token) in after]


def listening(admin):
    return admin.pubsub_numsub(KEYS.wake)[0][1]


def test_a_release_moves_leadership_long_before_anybody_looks(start, wait_until, admin):
    slow = {"ttl_ms": 120_000, "renew_ms": 60_000}
    one = start(**slow)
    wait_until(lambda: led(one), what="the first to lead")
    other = start(**slow)
    wait_until(lambda: listening(admin) >= 2, what="the other to listen")
    one.stop()
    wait_until(lambda: led(other), timeout=20, what="the other to lead")


def test_a_leader_that_vanishes_is_followed_when_its_lease_ends(start, wait_until, admin):
    begun = time.monotonic()
    admin.set(KEYS.shard(0).lease, "vanished:7", px=TTL_MS)
    admin.set(KEYS.shard(0).term, 7)
    elector = start(ttl_ms=LONG_MS)
    term = wait_until(elector.leaderships[0].term, timeout=20, what="the heir to lead")
    assert time.monotonic() - begun > TTL_MS / 1000 - 0.1
    assert term.token == 8


def test_never_two_leaders_while_shards_move(start, wait_until, admin):
    electors = [start(shards=5) for _ in range(3)]
    wait_until(lambda: sorted(len(led(each)) for each in electors) == [1, 2, 2], timeout=20, what="even shares")
    leaving = electors.pop()
    leaving.stop()
    deadline = time.monotonic() + 20
    while sorted(len(led(each)) for each in electors) != [2, 3]:
        held = led_throughout(electors)
        assert len(held) == len(set(held))
        assert time.monotonic() < deadline


def test_connections_that_are_killed_cost_no_term(start, wait_until, admin):
    leader = start(ttl_ms=LONG_MS)
    wait_until(lambda: led(leader), what="the leader")
    standby = start(ttl_ms=LONG_MS)
    wait_until(lambda: listening(admin) >= 2, what="the standby to listen")

    def ends_at():  # not what is left of it: that is never more than right after a renewal
        return time.monotonic() * 1000 + admin.pttl(KEYS.shard(0).lease)

    for _ in range(3):
        for client in admin.client_list():
            if client["name"].startswith("elector-"):
                admin.client_kill_filter(_id=client["id"])
        before = ends_at()
        wait_until(lambda before=before: ends_at() > before + RENEW_MS / 2, timeout=20, what="another renewal")
    assert leader.leaderships[0].term().token == 1
    wait_until(lambda: listening(admin) >= 2, what="the standby to listen again")
    assert led(standby) == []


def test_a_server_that_keeps_silent_for_long_ends_the_term_and_gives_another(start, wait_until, redis_server):
    leadership = start().leaderships[0]
    first = wait_until(leadership.term, what="the first term")
    redis_server.pause()
    try:
        wait_until(lambda: leadership.token is None, timeout=20, what="the term to end")
    finally:
        redis_server.resume()
    assert wait_until(leadership.term, timeout=20, what="another term").token > first.token


def test_a_server_that_comes_back_without_data_is_led_again(start, wait_until, redis_server, redis_url):
    elector = start()
    first = wait_until(elector.leaderships[0].term, what="the first term")
    redis_server.kill()
    redis_server.start()
    wait_until(lambda: elector.fleet and redis.Redis.from_url(redis_url).exists(KEYS.shard(0).lease), timeout=20)
    wait_until(lambda: led(elector), timeout=20, what="a term in the store as it is now")

    def token():
        return elector.leaderships[0].token or 0

    wait_until(lambda: token() > first.token, timeout=20, what="a token that was not given out before")


def test_a_lease_of_a_foreign_type_is_named_and_waited_out_and_other_shards_are_led(start, wait_until, admin, caplog):
    key = KEYS.shard(1).lease
    admin.rpush(key, "mine")
    elector = start(shards=2)
    wait_until(lambda: f"The key {key} has a value that is not beatd's" in caplog.text, what="the key to be named")
    wait_until(lambda: led(elector) == [0], what="leadership of the other shard")
    assert admin.lrange(key, 0, -1) == [b"mine"]
    admin.delete(key)
    wait_until(lambda: led(elector) == [0, 1], timeout=20, what="leadership once the key is gone")
