"""Dead letters are bounded by number and by bytes, whoever adds them, and their size is known exactly."""

from __future__ import annotations

import random

import pytest
import redis

from beatd.client.dead_letters import DeadLetterSource
from beatd.clock import SystemClock
from beatd.exceptions import StoreDenied, StoreRefused
from beatd.store.client import connect
from beatd.store.dead_letters import BOUNDS, Bounds, DeadLetters, decode, encode
from beatd.store.keys import Keys
from beatd.store.outbox import Outbox, Undeliverable
from beatd.store.worker_state import DelayedMessages
from beatd.worker.consumers.redis import RedisConsumer

KEYS = Keys("beatd")
SHARED = KEYS.workers()
SMALL = Bounds(kept=1_000, kept_bytes=50_000)
AT = "2026-01-01T00:00:00.000+00:00"


@pytest.fixture
def client(redis_url):
    with connect(redis_url) as client:
        client.set(KEYS.shard(0).lease, "d:1")
        yield client


def size_of(client):
    return sum(map(len, client.lrange(SHARED.dead_letters, 0, -1)))


def letter(text, bounds=BOUNDS):
    return encode(text.encode(), reason="r", queue="q", at=AT, bounds=bounds)


def test_the_oldest_go_when_there_are_too_many_bytes(client):
    letters = DeadLetters(client, KEYS, bounds=SMALL)
    for number in range(6):
        letters.add([letter(f"{number}" * 20_000)])
    assert [one.message[:1] for one in letters] == [b"5", b"4"]
    assert int(client.get(SHARED.dead_letters_size)) == size_of(client) <= 50_000


def test_the_oldest_go_when_there_are_too_many(client):
    letters = DeadLetters(client, KEYS, bounds=SMALL._replace(kept=3))
    letters.add([letter(str(number)) for number in range(10)])
    assert [one.message for one in letters] == [b"9", b"8", b"7"]


def test_the_outbox_is_bounded_too(client):
    outbox = Outbox(client, KEYS, dead_letters=SMALL)
    for number in range(6):
        raw = f"{number}".encode() * 20_000
        client.lpush(outbox.key, raw)
        dead = Undeliverable(encode(raw, reason="no queue", queue="q", at=AT), "no queue")
        assert outbox.strike([raw], [dead], lease_value="d:1") == 0
    assert [one.message[:1] for one in DeadLetters(client, KEYS)] == [b"5", b"4"]


def test_a_workers_are_bounded_too(client, redis_url):
    consumer = RedisConsumer(redis_url, ["celery"], name="w", clock=SystemClock(), keys=KEYS, dead_letters=SMALL)
    consumer.beat()
    for number in range(6):
        client.lpush("celery", f"{number}" * 20_000)
    found = consumer.take(6)
    assert len(found) == 6
    for one in found:
        consumer.bury([(one, "malformed")])
    assert [one.message[:1] for one in DeadLetters(client, KEYS)] == [b"5", b"4"]
    consumer.stop()


def test_a_message_that_is_too_large_keeps_its_head():
    bounds = Bounds(whole_bytes=1_000, head_bytes=100)
    whole, part = (decode(letter("x" * size, bounds)) for size in (1_000, 1_001))
    assert (whole.size, whole.whole, len(whole.message)) == (1_000, True, 1_000)
    assert (part.size, part.whole, len(part.message)) == (1_001, False, 100)
    in_binary = decode(encode(b"\xff" * 1_001, reason="r", queue="q", at=AT, bounds=bounds))
    assert (in_binary.size, in_binary.whole, in_binary.message) == (1_001, False, b"\xff" * 100)


def test_a_letter_whose_queue_takes_no_messages_stays(client):
    letters, source = DeadLetters(client, KEYS), DeadLetterSource(client, KEYS, None)
    for number, queue in enumerate(("q", "no list", "q")):
        letters.add([encode(b"%d" % number, reason="r", queue=queue, at=AT)])
    client.hset("no list", "a", "1")
    count, [refusal] = source.requeue(list(letters))
    assert (count, refusal.letter.message) == (2, b"1")
    assert "'no list'" in refusal.reason
    assert "WRONGTYPE" in refusal.reason
    assert [one.message for one in letters] == [b"1"]
    assert int(client.get(SHARED.dead_letters_size)) == size_of(client)
    client.delete("no list")
    assert source.requeue(list(letters)) == (1, [])
    assert client.lrange("no list", 0, -1) == [b"1"]


@pytest.mark.parametrize("right", ["lpush", "lrem"])
def test_a_letter_stays_in_its_place_if_the_user_may_not_send_it(client, redis_url, right):
    texts = ["0", "1", "2"]
    DeadLetters(client, KEYS).add([letter(text) for text in texts])
    before = client.lrange(SHARED.dead_letters, 0, -1)
    client.acl_setuser("half", enabled=True, nopass=True, keys=["*"], commands=["+@all", f"-{right}"])
    try:
        with connect(redis_url.replace("redis://", "redis://half:any@")) as half:
            letters = DeadLetters(half, KEYS)
            if right == "lpush":
                outcomes = letters.requeued(list(letters))
                assert [isinstance(one, str) and bool(one) for one in outcomes] == [True] * 3
            else:
                with pytest.raises((StoreDenied, StoreRefused)):
                    letters.requeued(list(letters))
    finally:
        client.acl_deluser("half")
    assert client.lrange(SHARED.dead_letters, 0, -1) == before
    assert client.exists("q") == 0
    letters = DeadLetters(client, KEYS)
    assert letters.requeue(list(letters)) == 3
    assert int(client.get(SHARED.dead_letters_size)) == size_of(client) == 0
    assert sorted(client.lrange("q", 0, -1)) == [text.encode() for text in texts]


def test_a_letter_that_somebody_else_has_sent_is_not_sent_again(client):
    letters = DeadLetters(client, KEYS)
    letters.add([letter("0"), letter("1")])
    client.lpush("q", "0")  # another message of the same text
    seen = list(letters)
    assert letters.requeued(seen[1:]) == [True]
    assert letters.requeued(seen) == [True, False]
    assert client.lrange("q", 0, -1) == [b"1", b"0", b"0"]


def test_letters_are_sent_again_by_a_server_that_is_out_of_memory(client, redis_url):
    """It is how its memory gets free: a worker takes what is in a queue, and nothing else."""
    letters = DeadLetters(client, KEYS)
    letters.add([letter("0")])
    limit = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.lpush("other", "1")
        assert letters.requeued(list(letters)) == [True]
    finally:
        client.config_set("maxmemory", limit)
    assert client.lrange("q", 0, -1) == [b"0"]


def test_what_cannot_become_a_letter_stays_in_the_outbox(client):
    outbox = Outbox(client, KEYS)
    client.lpush(outbox.key, b"m")
    client.set(SHARED.dead_letters, "foreign")
    with pytest.raises(StoreRefused, match="dead_letters"):
        outbox.strike([b"m"], [Undeliverable(letter("m"), "r")], lease_value="d:1")
    assert outbox.oldest(2) == [b"m"]


def test_a_delayed_message_stays_lent_where_it_cannot_wait(client):
    delayed = DelayedMessages(client, KEYS)
    client.zadd(SHARED.lent, {b"q\0m": 1})
    client.set(SHARED.waiting, "foreign")
    with pytest.raises(StoreRefused, match="waiting"):
        delayed.borrow(2, 10)
    assert client.zcard(SHARED.lent) == 1


def test_a_head_may_end_in_the_middle_of_a_character():
    part = decode(letter("ä" * 1_000, Bounds(whole_bytes=1_000, head_bytes=101)))
    assert part.message == ("ä" * 51).encode()[:101]


def test_a_reason_that_quotes_its_message_is_cut():
    assert len(encode(b"m", reason="x" * 10**6, queue="q", at=AT)) < 5_000


def test_a_list_of_another_version_is_counted(client):
    client.lpush(SHARED.dead_letters, *(letter(f"{number}" * 20_000) for number in range(6)))
    DeadLetters(client, KEYS, bounds=SMALL).add([letter("new")])
    assert [one.message[:1] for one in DeadLetters(client, KEYS)] == [b"n", b"5", b"4"]
    assert 0 < client.ttl(SHARED.dead_letters_size) <= 86_400


@pytest.mark.parametrize("seed", range(3))
def test_the_size_stays_exact(client, seed):
    chance = random.Random(seed)
    letters = DeadLetters(client, KEYS, bounds=Bounds(kept=20, kept_bytes=5_000))
    for _ in range(100):
        there = list(letters)
        some = chance.sample(there, min(len(there), chance.randint(0, 4)))
        match chance.choice(["add", "add", "add", "remove", "requeue", "delete"]):
            case "add":
                letters.add(
                    [letter(f"{chance.random()}" + "x" * chance.randint(0, 900)) for _ in range(chance.randint(1, 4))]
                )
            case "remove":
                assert letters.remove([*some, *some]) == len(some)
            case "requeue":
                assert letters.requeue([*some, *some]) == len(some)
            case _ if chance.random() < 0.3:
                client.delete(SHARED.dead_letters)
                letters.add([letter("after")])
        kept = client.lrange(SHARED.dead_letters, 0, -1)
        assert len(kept) <= 20
        assert size_of(client) <= 5_000
        if kept:
            assert int(client.get(SHARED.dead_letters_size)) == size_of(client)
