"""Taking messages from Redis: nothing is lost, whatever happens to the one who took them."""

from __future__ import annotations

import json
import select

import pytest
import redis as redis_py

from beatd.broker.redis import RedisPublisher
from beatd.broker.redis_keys import queue_key
from beatd.clock import monotonic
from beatd.exceptions import StoreRefused, StoreUnavailable
from beatd.message.protocol import build
from beatd.store.keys import Keys
from beatd.worker.consumers.redis import LIFETIME_MS, RedisConsumer
from beatd.worker.messages import headers_of
from tests.fakes import FakeClock


@pytest.fixture
def clock():
    return FakeClock(waits=False)


@pytest.fixture
def server(redis_url):
    with redis_py.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def make_consumer(redis_url, clock):
    made = []

    def make(name="w", queues=("celery",), url=redis_url) -> RedisConsumer:
        consumer = RedisConsumer(url, queues, name=name, clock=clock, keys=Keys())
        made.append(consumer)
        return consumer

    yield make
    for consumer in made:
        consumer._watcher.close()
        consumer._client.close()


@pytest.fixture
def publish(redis_url):
    publisher = RedisPublisher(redis_url)

    def send(*ids, queue="celery", **fields):
        for one in ids:
            publisher.publish(build("t", one, **fields), queue=queue)

    yield send
    publisher.close()


def ids(deliveries) -> list[str]:
    return [json.loads(one.raw)["headers"]["id"] for one in deliveries]


def heartbeat_stops(server, consumer) -> None:
    """As if the worker had been killed and its heartbeat had run out."""
    server.delete(consumer._keys.worker(consumer._id, "alive"))


def test_messages_come_in_the_order_in_which_they_were_sent(make_consumer, publish):
    publish("1", "2", "3")
    consumer = make_consumer()
    assert ids(consumer.take(2)) == ["1", "2"]
    assert ids(consumer.take(2)) == ["3"]
    assert consumer.take(2) == []


def test_priorities_come_before_queues(make_consumer, publish):
    publish("low", queue="a", priority=9)
    publish("high-b", queue="b")
    publish("high-a", queue="a")
    assert ids(make_consumer(queues=("a", "b")).take(10)) == ["high-a", "high-b", "low"]


def test_a_queue_that_is_never_empty_starves_no_other(make_consumer, publish):
    publish(*map(str, range(10)), queue="a")
    publish("b1", "b2", queue="b")
    publish("c1", queue="c")
    publish("low", queue="c", priority=9)
    consumer = make_consumer(queues=("a", "b", "c"))
    assert [ids(consumer.take(1)) for _ in range(6)] == [["0"], ["b1"], ["c1"], ["1"], ["b2"], ["2"]]


def test_what_is_taken_is_held_until_it_is_acknowledged(make_consumer, publish, server):
    publish("1", "2")
    consumer = make_consumer()
    first, second = consumer.take(2)
    unacked = consumer._keys.worker(consumer._id, "unacked")
    assert server.hlen(unacked) == 2
    consumer.ack([first])
    consumer.ack([first])
    assert server.hkeys(unacked) == [str(second.tag).encode()]


def test_a_dead_workers_messages_go_back_to_the_head_of_their_queues(make_consumer, publish, server, clock):
    publish("1", "2")
    publish("3", priority=9)
    dead, heir = make_consumer("dead"), make_consumer("heir")
    dead.start()
    assert ids(dead.take(3)) == ["1", "2", "3"]
    publish("4")
    heir.start()
    assert heir.take(1) != []  # 4: the others are held by a worker that is alive
    publish("5")
    heartbeat_stops(server, dead)
    clock.advance(4)
    heir.tend()
    returned = heir.take(10)
    assert ids(returned) == ["1", "2", "5", "3"]
    assert [json.loads(one.raw)["headers"].get("redelivered") for one in returned] == [True, True, None, True]
    assert server.llen(queue_key("celery", 9)) == 0


def test_a_live_workers_messages_are_left_alone(make_consumer, publish, clock):
    publish("1")
    one, other = make_consumer("one"), make_consumer("other")
    one.start()
    other.start()
    assert ids(one.take(1)) == ["1"]
    clock.advance(LIFETIME_MS * 3 / 1000)
    one.tend()
    other.tend()
    assert other.take(1) == []


def test_a_worker_that_was_thought_dead_cannot_acknowledge_what_others_have(make_consumer, publish, server, clock):
    publish("1")
    paused, heir = make_consumer("paused"), make_consumer("heir")
    paused.start()
    (message,) = paused.take(1)
    heartbeat_stops(server, paused)
    heir.start()
    (again,) = heir.take(1)
    paused.ack([message])
    assert server.hlen(heir._keys.worker(heir._id, "unacked")) == 1
    heir.ack([again])


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_clock_that_is_set_keeps_no_worker_from_its_periodic_work(make_consumer, publish, server, clock, step_s):
    publish("held", "parked", "mine")
    worker, dead = make_consumer("worker"), make_consumer("dead")
    dead.start()
    _, parked = dead.take(2)
    worker.start()
    worker.take(1)
    clock.step(step_s)
    dead.park([(parked, clock.ms + 2_000)])
    heartbeat_stops(server, dead)
    heartbeat_stops(server, worker)
    clock.advance(4)
    worker.tend()
    assert server.exists(worker._keys.worker(worker._id, "alive"))
    assert sorted(ids(worker.take(5))) == ["held", "parked"]


def test_a_worker_that_takes_messages_while_it_is_thought_dead_is_not_forgotten(make_consumer, publish, server, clock):
    publish("1")
    paused, rescuer, heir = make_consumer("paused"), make_consumer("rescuer"), make_consumer("heir")
    paused.start()
    paused.take(1)
    heartbeat_stops(server, paused)
    give_back = rescuer._give_back

    def give_back_slowly(*args):
        publish("2")
        assert ids(paused.take(1)) == ["2"]  # it goes on just now, and is killed before its next heartbeat
        return give_back(*args)

    rescuer._give_back = give_back_slowly
    rescuer.start()
    heartbeat_stops(server, paused)
    heir.start()
    assert sorted(ids(heir.take(5))) == ["1", "2"]


def test_two_rescuers_return_each_message_once(make_consumer, publish, server):
    publish(*map(str, range(450)))
    dead, first, second = make_consumer("dead"), make_consumer("a"), make_consumer("b")
    dead.take(450)
    unacked = dead._keys.worker(dead._id, "unacked")
    held = [(int(tag), *value.split(b"\0", 1)) for tag, value in server.hgetall(unacked).items()]
    held = [(tag, queue.decode(), raw) for tag, queue, raw in held]
    assert first._give_back(unacked, held) == 450
    assert second._give_back(unacked, held) == 0
    assert ids(first.take(450)) == list(map(str, range(450)))


def test_stopping_gives_back_what_is_held(make_consumer, publish, server):
    publish("1", "2")
    consumer = make_consumer()
    consumer.start()
    consumer.take(2)
    consumer.stop()
    assert server.llen("celery") == 2
    assert server.smembers(Keys().workers().workers) == set()


def test_parked_messages_come_back_on_time_and_outlive_the_worker(make_consumer, publish, server, clock):
    publish("1", "2", "3")
    consumer, other = make_consumer(), make_consumer("other")
    consumer.start()
    first, second, third = consumer.take(3)
    consumer.park([(first, clock.ms + 5_000), (second, clock.ms + 2_000), (third, clock.ms + 90_000)])
    assert server.hlen(consumer._keys.worker(consumer._id, "unacked")) == 0
    other.start()
    clock.advance(1.999)
    other.tend()
    assert other.take(5) == []
    clock.advance(3.002)
    other.tend()
    assert select.select(other.files(), [], [], 5)[0], "the server says that there are messages"
    back = other.take(5)
    assert ids(back) == ["2", "1"]
    assert all(headers_of(delivery.raw).received for delivery in back)
    assert server.zcard(Keys().workers().parked) == 1


def test_equal_messages_are_parked_separately(make_consumer, publish, server, clock):
    publish("1")
    raw = server.rpop("celery")
    server.lpush("celery", raw, raw)
    consumer = make_consumer()
    consumer.park([(one, clock.ms + 1_000) for one in consumer.take(2)])
    clock.advance(2)
    consumer.tend()
    assert ids(consumer.take(5)) == ["1", "1"]


def test_buried_messages_keep_their_reason(make_consumer, server):
    server.lpush("celery", b"hello", b"\xff\xfe")
    consumer = make_consumer()
    consumer.bury([(one, "not a message") for one in consumer.take(2)])
    letters = [json.loads(one) for one in server.lrange(Keys().workers().dead_letters, 0, -1)]
    assert [letter["reason"] for letter in letters] == ["not a message"] * 2
    assert {letter.get("message") or letter.get("message_base64") for letter in letters} == {"hello", "//4="}
    assert server.hlen(consumer._keys.worker(consumer._id, "unacked")) == 0


def test_the_watcher_notifies_for_every_list_and_takes_nothing(make_consumer, publish, server):
    consumer = make_consumer(queues=("a", "b"))
    assert consumer.take(5) == []
    files = consumer.files()
    assert len(files) == 8
    assert select.select(files, [], [], 0)[0] == []
    publish("1", queue="b", priority=6)
    assert len(select.select(files, [], [], 5)[0]) == 1
    assert server.llen(queue_key("b", 6)) == 1
    consumer.tend()
    assert ids(consumer.take(5)) == ["1"]
    assert len(consumer.files()) == 8, "every list is watched again"


def test_a_queue_without_a_notification_is_not_asked(make_consumer, publish, server):
    def asked():
        return server.info("commandstats").get("cmdstat_rpop", {}).get("calls", 0)

    consumer = make_consumer()
    assert consumer.take(5) == []
    assert len(consumer.files()) == 4
    before = asked()
    assert consumer.take(5) == []
    assert asked() == before
    publish("1")
    assert select.select(consumer.files(), [], [], 5)[0]
    assert ids(consumer.take(5)) == ["1"], "also without tend"
    assert len(consumer.files()) == 4
    assert consumer.take(5) == []
    listening, stale = consumer._watcher, monotonic() - 60
    listening._waiting = {file: (key, link, stale) for file, (key, link, _) in listening._waiting.items()}
    before = asked()
    assert consumer.take(5) == []
    assert asked() > before, "a connection whose call is not answered in time may be dead"


def test_a_message_after_a_take_is_noticed(make_consumer, publish):
    consumer = make_consumer()
    assert consumer.take(5) == []
    assert len(consumer.files()) == 4
    assert consumer.take(5) == [], "silent: the server is not asked"
    publish("1")
    assert select.select(consumer._watcher.files(), [], [], 5)[0]
    assert select.select(consumer.files(), [], [], 0)[0], "the loop must not wait"
    assert ids(consumer.take(5)) == ["1"]


def test_a_worker_without_room_is_notified_once(make_consumer, publish):
    consumer = make_consumer()
    assert consumer.take(5) == []
    files = consumer.files()
    publish("1")
    assert select.select(files, [], [], 5)[0]
    assert select.select(consumer.files(), [], [], 0)[0] == []
    assert ids(consumer.take(5)) == ["1"], "when there is room again"


def test_the_watcher_does_not_read_a_large_message(make_consumer, publish):
    consumer = make_consumer()
    for number in (1, 2):
        assert consumer.take(5) == []
        files = consumer.files()
        assert len(files) == 4
        publish(str(number), args=("x" * 1_500_000,))
        assert len(select.select(files, [], [], 5)[0]) == 1
        consumer._watcher.answer()
        assert consumer._watcher._idle == {}, "its connection is not used again"
        assert ids(consumer.take(5)) == [str(number)]
        assert len(consumer.files()) == 4


def test_a_cancelled_queue_is_not_watched(make_consumer, publish):
    consumer = make_consumer(queues=("a", "b"))
    assert consumer.take(5) == []
    publish("1", queue="b")
    assert select.select(consumer.files(), [], [], 5)[0]
    consumer._watcher.answer()
    consumer.cancel_queue("b")
    assert set(consumer._watcher._idle) == set()
    assert len(consumer.files()) == 4


def test_a_doorbell_is_heard_after_a_hundred_connections(make_consumer, publish):
    consumer = make_consumer()
    for _ in range(40):
        assert consumer.take(1) == []
        assert len(consumer.files()) == 4, "one for each priority"
        consumer.cancel_queue("celery")
        consumer.add_queue("celery")
    assert consumer.take(1) == []
    publish("1")
    assert select.select(consumer.files(), [], [], 5)[0]


def test_a_server_that_is_away_is_beatds_error(make_consumer, start_server):
    server = start_server()
    consumer = make_consumer(url=server.url)
    consumer.start()
    server.kill()
    with pytest.raises(StoreUnavailable):
        consumer.take(1)
    consumer._watcher.answer()
    server.start()
    assert consumer.take(1) == []


def test_messages_whose_delivery_was_not_heard_of_are_found_again(make_consumer, publish):
    """The server moves messages, and the connection breaks before the answer is here."""
    publish("1", "2")
    consumer = make_consumer()
    consumer.start()
    take = consumer._take

    def take_unheard(*args):
        take(*args)
        raise StoreUnavailable("the answer was lost")

    consumer._take = take_unheard
    with pytest.raises(StoreUnavailable):
        consumer.take(2)
    consumer._take = take
    assert ids(consumer.take(2)) == ["1", "2"]
    assert consumer.take(2) == []


def test_a_worker_that_comes_back_notices_what_others_have_taken_over(make_consumer, publish, server, clock, caplog):
    publish("1", "2")
    paused, heir = make_consumer("paused"), make_consumer("heir")
    paused.start()
    first, second = paused.take(2)
    heartbeat_stops(server, paused)
    heir.start()
    again = heir.take(2)
    clock.advance(LIFETIME_MS / 1000)
    paused.tend()
    assert paused.lost() == [first.tag, second.tag]
    assert paused.lost() == []
    assert "2 messages that this worker had taken are not its own any more" in caplog.text
    paused.ack([first])
    paused.give_back([second])
    paused.bury([(second, "why")])
    paused.park([(first, clock.ms)])
    assert server.llen("celery") == server.llen(Keys().workers().dead_letters) == 0
    assert server.zcard(Keys().workers().parked) == 0
    heir.ack(again)
    publish("3")
    assert ids(paused.take(5)) == ["3"]


def test_a_server_that_lost_its_data_gives_no_tag_twice(make_consumer, publish, server, clock):
    publish("1", "2")
    consumer = make_consumer()
    consumer.start()
    before = consumer.take(2)
    server.flushall()
    publish("3")
    (after,) = consumer.take(2)
    assert after.tag > max(one.tag for one in before)
    clock.advance(4)
    consumer.tend()
    assert consumer.lost() == [one.tag for one in before]
    assert server.hlen(consumer._unacked) == 1


def test_queues_come_and_go(make_consumer, publish):
    publish("1", queue="a")
    publish("2", queue="b")
    consumer = make_consumer(queues=("a",))
    assert ids(consumer.take(5)) == ["1"]
    consumer.add_queue("b")
    consumer.add_queue("b")
    assert consumer.queues() == ["a", "b"]
    assert ids(consumer.take(5)) == ["2"]
    publish("3", queue="a")
    consumer.cancel_queue("a")
    assert consumer.take(5) == []
    consumer.cancel_queue("b")
    assert consumer.take(5) == []
    consumer.add_queue("a")
    assert ids(consumer.take(5)) == ["3"]


def test_a_message_whose_queue_takes_none_goes_back_when_it_does(make_consumer, publish, server, clock, caplog):
    publish("1", "2")
    publish("other", queue="other")
    consumer = make_consumer(queues=("celery", "other"))
    consumer.start()
    taken = consumer.take(3)
    server.set("celery", "foreign")
    consumer.give_back(taken)
    assert server.hlen(consumer._unacked) == 2
    assert server.llen("other") == 1
    assert [record.queue for record in caplog.records if record.event == "queue_refuses"] == ["celery"]
    server.delete("celery")
    clock.advance(4)
    consumer.tend()
    assert server.hlen(consumer._unacked) == 0
    assert server.llen("celery") == 2


def test_a_dead_workers_message_stays_until_its_queue_takes_it(make_consumer, publish, server):
    publish("1")
    dead, heir = make_consumer("dead"), make_consumer("heir")
    dead.start()
    dead.take(1)
    heartbeat_stops(server, dead)
    server.set("celery", "foreign")
    heir._sweep()
    assert server.hlen(dead._unacked) == 1
    assert dead._id in heir.others()
    server.delete("celery")
    heir._sweep()
    assert ids(heir.take(1)) == ["1"]


def test_a_parked_message_whose_queue_takes_none_holds_up_no_other(make_consumer, publish, server, clock, caplog):
    publish("1", "2")
    publish("other", queue="other")
    consumer = make_consumer(queues=("celery", "other"))
    consumer.start()
    consumer.park([(one, clock.now_ms() + 1_000) for one in consumer.take(3)])
    server.set("celery", "foreign")
    clock.advance(2)
    consumer.tend()
    assert server.llen("other") == 1
    assert server.zcard(consumer._shared.parked) == 2
    assert [record.queue for record in caplog.records if record.event == "queue_refuses"] == ["celery"]
    server.delete("celery")
    clock.advance(4)
    consumer.tend()
    assert server.llen("celery") == 2


@pytest.mark.parametrize("verb", ["park", "bury"])
def test_what_cannot_be_put_aside_stays_unacknowledged(make_consumer, publish, server, verb):
    publish("1")
    consumer = make_consumer()
    (one,) = consumer.take(1)
    key = consumer._shared.parked if verb == "park" else consumer._shared.dead_letters
    server.set(key, "foreign")
    with pytest.raises(StoreRefused, match=key):
        consumer.park([(one, 1)]) if verb == "park" else consumer.bury([(one, "reason")])
    assert server.hlen(consumer._unacked) == 1


def test_a_queue_that_cannot_be_read_holds_up_no_other_and_is_read_when_it_can_be(
    make_consumer, publish, server, clock, caplog
):
    for queue in ("first", "last"):
        publish(f"1 {queue}", f"2 {queue}", queue=queue)
    for unreadable in ("middle", queue_key("middle", 3)):
        server.set(unreadable, "foreign")
    consumer = make_consumer(queues=("first", "middle", "last"))
    consumer.start()
    assert ids(consumer.take(10)) == ["1 first", "2 first", "1 last", "2 last"]
    assert consumer.take(10) == []
    assert [record.queue for record in caplog.records if record.event == "queue_refuses"] == ["middle"]
    server.delete("middle", queue_key("middle", 3))
    publish("3", queue="middle")
    assert ids(consumer.take(10)) == ["3"]


def test_a_refused_watch_is_not_repeated_at_once(make_consumer, server):
    server.set("middle", "foreign")
    consumer = make_consumer(queues=("first", "middle", "last"))
    consumer.start()
    began, before = monotonic(), server.info("stats")["total_connections_received"]
    while monotonic() < began + 0.5:
        consumer.take(10)
        consumer.tend()
    lists = 3 * 4  # each queue has one for each of four priorities
    assert server.info("stats")["total_connections_received"] - before <= lists + 3
