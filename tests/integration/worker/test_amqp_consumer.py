"""Taking messages from RabbitMQ natively."""

from __future__ import annotations

import json
import time

import celery
import pytest

from beatd import App, broker
from beatd.broker import Address, OutgoingMessage
from beatd.clock import SystemClock
from beatd.message.protocol import build
from beatd.worker.consumers import open_consumer
from beatd.worker.consumers.rabbitmq import AmqpConsumer


@pytest.fixture
def make(rabbitmq):
    made = []

    def consumer(*queues: str) -> AmqpConsumer:
        one = open_consumer(rabbitmq.url, queues, name="w", clock=SystemClock())
        assert isinstance(one, AmqpConsumer)
        one.start()
        made.append(one)
        return one

    yield consumer
    for one in made:
        one.stop()


@pytest.fixture
def vhost(rabbitmq, queue) -> str:
    """The URL of a virtual host in which no other test has declared anything."""
    rabbitmq.ctl("add_vhost", queue)
    rabbitmq.ctl("set_permissions", "-p", queue, "guest", ".*", ".*", ".*")
    return rabbitmq.url.removesuffix("/") + queue


@pytest.fixture
def publish(rabbitmq):
    publisher = broker.open(rabbitmq.url)

    def send(queue: str, *ids: str, **fields) -> None:
        parcels = [OutgoingMessage(build("t", one, (one,), **fields), Address(queue)) for one in ids]
        assert publisher.publish_many(parcels) == []

    yield send
    publisher.close()


@pytest.fixture
def take(wait_until):
    def taken(consumer, count: int, at_once: int = 100) -> list:
        found: list = []
        wait_until(lambda: found.extend(consumer.take(at_once)) or len(found) >= count, 15, f"{count} messages")
        return found

    return taken


def ids(deliveries) -> list[str]:
    return [json.loads(one.raw)["headers"]["id"] for one in deliveries]


def test_messages_come_in_order_and_as_envelopes(make, publish, take, queue):
    consumer = make(queue)
    publish(queue, *map(str, range(50)), priority=3, reply_to="me")
    found = take(consumer, 50)
    assert ids(found) == list(map(str, range(50)))
    outer = json.loads(found[0].raw)
    assert outer["properties"] | {"delivery_tag": ""} == {
        "correlation_id": "0",
        "reply_to": "me",
        "priority": 3,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "body_encoding": "base64",
        "delivery_tag": "",
    }
    assert {one.queue for one in found} == {queue}


def test_what_is_acknowledged_is_gone_and_the_rest_comes_again(make, publish, take, queue):
    first = make(queue)
    publish(queue, *map(str, range(20)))
    found = take(first, 20)
    first.ack(found[:5])  # all before the oldest: in one word
    first.ack([found[7], found[9]])
    first.give_back([found[12]])
    assert ids(take(first, 1)) == ["12"]
    first.bury([(found[15], "why")])
    first.stop()
    again = take(make(queue), 12)
    assert sorted(map(int, ids(again))) == [5, 6, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19]
    assert all(json.loads(one.raw)["headers"]["redelivered"] for one in again)


def test_the_socket_tells_of_messages(make, publish, take, queue, wait_until):
    import select

    consumer = make(queue)
    assert consumer.take(1) == []
    publish(queue, "1")
    assert select.select(consumer.files(), [], [], 10)[0]
    assert ids(take(consumer, 1)) == ["1"]


def test_no_more_is_sent_ahead_than_is_run(make, publish, take, queue, rabbitmq, wait_until):
    publisher = broker.open(rabbitmq.url)
    consumer = make(queue)
    publish(queue, *map(str, range(100)))
    found = take(consumer, 2, at_once=2)
    assert len(found) == 2
    assert publisher.depth(queue) == 98
    consumer.ack(found)
    found = take(consumer, 20, at_once=20)  # tasks turned out to be short
    wait_until(lambda: publisher.depth(queue) < 70, 10, "more to be sent ahead")
    publisher.close()


def test_what_is_not_taken_for_a_while_is_for_others(make, publish, take, queue, wait_until):
    busy = make(queue)
    publish(queue, "1", "2")
    busy.ack(take(busy, 1, at_once=1))  # at its start
    wait_until(lambda: busy.tend() or busy._ready, 15, "the next one, which the broker sends then")
    idle, found = make(queue), []
    wait_until(lambda: busy.tend() or found.extend(idle.take(1)) or found, 15, "it elsewhere")
    assert ids(found) == ["2"]
    publish(queue, "3")
    assert ids(take(busy, 1, at_once=1)) == ["3"], "it has room again"


def test_messages_that_wait_for_their_time_keep_no_others_from_coming(make, publish, queue, wait_until):
    consumer, waiting, parked = make(queue), 2_500, 0
    due = SystemClock().now_ms() + 3_600_000
    publish(queue, *map(str, range(waiting)))

    def park():
        nonlocal parked
        found = consumer.take(4)
        consumer.park([(one, due) for one in found])
        parked += len(found)
        return parked == waiting

    wait_until(park, 60, "all that wait")
    publish(queue, "now")
    found = []
    wait_until(lambda: found.extend(consumer.take(4)) or found, 15, "the one that may run")
    assert ids(found) == ["now"]
    assert consumer._connection._number < 60, "the broker is not told of each of them"


def test_queues_come_and_go(make, publish, take, queue):
    other = f"{queue}-other"
    consumer = make(queue)
    publish(queue, "1")
    held = take(consumer, 1)
    publish(other, "2")
    consumer.add_queue(other)
    assert consumer.queues() == [queue, other]
    assert ids(take(consumer, 1)) == ["2"]
    consumer.ack(held)
    consumer.cancel_queue(queue)
    publish(queue, "3")
    publish(other, "4")
    assert ids(take(consumer, 1)) == ["4"]
    consumer.stop()
    assert ids(take(make(queue), 1)) == ["3"]  # and not 1, which was acknowledged on another line than it came by


def test_a_running_message_is_recognised_after_a_break(make, publish, take, queue):
    consumer = make(queue)
    publish(queue, "1", "2", "3")
    one, two, three = take(consumer, 3, at_once=3)
    consumer.ack([one])
    consumer._connection.drop()
    consumer.tend()  # notices
    consumer.ack([two])  # there is no line that knows it
    publish(queue, "4")
    assert ids(take(consumer, 1)) == ["4"]
    consumer.ack([three])
    consumer.stop()
    assert ids(take(make(queue), 1)) == ["4"]


def test_another_message_under_the_id_of_one_that_has_run_is_not_taken_for_its_redelivery(
    make, publish, take, queue, wait_until
):
    """As of a client that gives ids of its own."""
    consumer = make(queue)
    publish(queue, "same")
    consumer.ack(take(consumer, 1))
    publish(queue, "same")
    wait_until(lambda: consumer.tend() or consumer._ready, 15, "the other one, which has not begun")
    consumer._connection.drop()
    consumer.tend()  # notices
    assert ids(take(consumer, 1)) == ["same"]


def test_what_has_been_rejected_without_a_connection_does_not_run_again(make, publish, take, queue):
    consumer = make(queue)
    publish(queue, "1", "2")
    one, two = take(consumer, 2)
    consumer._connection.drop()
    consumer.tend()
    consumer.reject([one])
    publish(queue, "3")
    assert ids(take(consumer, 1)) == ["3"]
    consumer.give_back([two])
    assert ids(take(consumer, 1)) == ["2"]


def test_delayed_delivery_of_a_celery_client(vhost, queue, wait_until):
    """Quorum queues: Celery's client leaves messages with an ETA to exchanges that workers declare."""
    settings = {
        "task_default_queue": queue,
        "task_default_exchange_type": "topic",
        "task_default_queue_type": "quorum",
        "broker_native_delayed_delivery_queue_type": "classic",  # of the levels: 28 quorum queues take time
    }
    app = App("x", broker=vhost, set_as_current=False, **settings)
    declare = broker.delayed_delivery_of(app.conf)
    consumer = open_consumer(vhost, [queue], name="w", clock=SystemClock(), declare=declare)
    consumer.start()
    consumer.take(1)
    with celery.Celery("x", broker=vhost, set_as_current=False) as client:
        client.conf.update(settings)
        sent = time.monotonic()
        client.send_task("later", countdown=2.5)
        client.send_task("now")
    arrived = {}

    def have_all():
        for one in consumer.take(2):
            arrived[json.loads(one.raw)["headers"]["task"]] = time.monotonic() - sent
            consumer.ack([one])
        return len(arrived) == 2

    wait_until(have_all, 30, "both messages")
    assert arrived["later"] >= 2, "the broker keeps it for the whole seconds of its countdown"
    consumer.stop()


def test_no_delayed_delivery_without_quorum_queues():
    assert broker.delayed_delivery_of(App("x", set_as_current=False).conf) is None
