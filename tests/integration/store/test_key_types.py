"""Types of keys: those of entries are asked for rarely by who looks often."""

from beatd.store.client import connect
from beatd.store.keys import Keys
from beatd.store.server_check import ThrottledCheck

KEYS = Keys("beatd")


def test_what_is_found_is_looked_at_again_and_nothing_else_for_a_minute(redis_url):
    check, key = ThrottledCheck(), KEYS.history("a")
    with connect(redis_url) as client:
        client.hset(KEYS.shard().fingerprints, "a", "0 x")
        client.lpush(key, "mine")
        assert check(client, KEYS) == check(client, KEYS) == {key: "list"}
        client.delete(key)
        assert check(client, KEYS) == {}
        client.lpush(key, "mine")
        assert check(client, KEYS) == {}, "within the minute the server is not asked"
