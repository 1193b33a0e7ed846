"""Brokers that beatd reaches through kombu; here its in-memory transport, which needs no server."""

from __future__ import annotations

import base64
import itertools
import json
import select
import socket
import time

import kombu
import pytest

from beatd import broker
from beatd.broker.kombu import KombuPublisher
from beatd.clock import SystemClock
from beatd.exceptions import BrokerError
from beatd.message.protocol import build
from beatd.worker.consumers import kombu as kombu_consumer
from beatd.worker.consumers import open_consumer
from beatd.worker.consumers.kombu import KombuConsumer
from beatd.worker.consumers.parking import MemoryParking
from tests.fakes import FakeClock

URL = "memory://"


@pytest.fixture
def publisher():
    made = broker.open(URL)
    assert isinstance(made, KombuPublisher)
    yield made
    made.close()


@pytest.fixture
def consumer(queue):
    made = open_consumer(URL, [queue], name="w", clock=SystemClock())
    assert isinstance(made, KombuConsumer)
    made.start()
    yield made
    made.stop()


def ids(deliveries):
    return [json.loads(one.raw)["headers"]["id"] for one in deliveries]


def taken(consumer, wait_until, count=1):
    found = []
    wait_until(lambda: found.extend(consumer.take(10)) or len(found) >= count)
    return found


def test_messages_arrive_as_envelopes(publisher, consumer, queue, wait_until):
    publisher.publish(build("t", "1", (1,), {"a": 2}, priority=3), queue=queue)
    (delivery,) = taken(consumer, wait_until)
    outer = json.loads(delivery.raw)
    assert outer["headers"]["task"] == "t"
    assert outer["properties"]["delivery_info"]["routing_key"] == queue
    consumer.ack([delivery])


def test_the_file_becomes_readable_when_a_message_comes(publisher, consumer, queue):
    publisher.publish(build("t", "1"), queue=queue)
    assert select.select(consumer.files(), [], [], 5)[0]


def test_what_is_given_back_comes_again(publisher, consumer, queue, wait_until):
    publisher.publish(build("t", "1"), queue=queue)
    (delivery,) = taken(consumer, wait_until)
    consumer.give_back([delivery])
    (again,) = taken(consumer, wait_until)
    assert ids([again]) == ["1"]


def test_what_is_held_goes_back_when_the_consumer_stops(publisher, queue, wait_until):
    first = open_consumer(URL, [queue], name="w", clock=SystemClock())
    first.start()
    publisher.publish(build("t", "1"), queue=queue)
    taken(first, wait_until)
    first.stop()
    second = open_consumer(URL, [queue], name="w", clock=SystemClock())
    second.start()
    assert ids(taken(second, wait_until)) == ["1"]
    second.stop()


@pytest.fixture(params=["redis", "filesystem"])
def elsewhere(request, tmp_path, redis_url):
    """The URL and the options of a transport that delivers again what was not acknowledged."""
    if request.param == "redis":
        return redis_url, {}
    for name in ("q", "control"):
        (tmp_path / name).mkdir()
    folders = {name: str(tmp_path / "q") for name in ("data_folder_in", "data_folder_out")}
    return "filesystem://", {**folders, "control_folder": str(tmp_path / "control")}


@pytest.fixture
def reached(elsewhere, queue):
    """A consumer by kombu, and a publisher."""
    url, options = elsewhere
    consumer = KombuConsumer(
        url, [queue], parking=MemoryParking(SystemClock()), arguments=broker.no_arguments, transport_options=options
    )
    publisher = broker.open(url, transport_options=options)
    consumer.start()
    yield consumer, publisher
    consumer.stop()
    publisher.close()


def test_a_message_at_work_is_not_run_again_after_a_break(reached, queue, wait_until, monkeypatch):
    def break_off(*_):
        raise ConnectionResetError("the broker is gone")

    consumer, publisher = reached
    monkeypatch.setattr(consumer, "_consume", break_off)
    publisher.publish(build("t", "1"), queue=queue)
    at_work = taken(consumer, wait_until)
    generation = consumer._generation
    consumer._commands.put(("add", "another queue"))
    wait_until(lambda: consumer._generation > generation, 20, "another connection")
    publisher.publish(build("t", "2"), queue=queue)
    assert ids(taken(consumer, wait_until)) == ["2"]
    consumer.ack(at_work)
    wait_until(lambda: len(consumer._held) == 1, 20, "the acknowledgement")


def test_a_message_whose_acknowledgement_breaks_the_connection_does_not_run_again(
    reached, queue, wait_until, monkeypatch
):
    consumer, publisher = reached
    asked = []

    def ack(message):
        asked.append(message)
        if len(asked) == 1:
            raise ConnectionResetError("the broker is gone")
        message.ack()

    monkeypatch.setitem(kombu_consumer._VERBS, "ack", ack)
    publisher.publish(build("t", "1"), queue=queue)
    consumer.ack(taken(consumer, wait_until))
    wait_until(lambda: len(asked) == 2, 20, "its redelivery to be acknowledged")
    publisher.publish(build("t", "2"), queue=queue)
    assert ids(taken(consumer, wait_until)) == ["2"]


def test_parked_messages_come_back_on_time(publisher, queue, wait_until):
    clock = FakeClock(waits=False)
    consumer = open_consumer(URL, [queue], name="w", clock=clock)
    consumer.start()
    publisher.publish(build("t", "1"), queue=queue)
    (delivery,) = taken(consumer, wait_until)
    consumer.park([(delivery, clock.ms + 200)])
    assert consumer.idle_for() == 0.2
    clock.advance(0.199)
    consumer.tend()
    assert consumer.take(1) == []
    clock.advance(0.001)
    consumer.tend()
    assert ids(consumer.take(1)) == ["1"]
    consumer.stop()


def test_a_broker_that_is_away_is_an_error_after_a_bounded_time(free_port):
    publisher = broker.open(f"amqp://guest:secret@127.0.0.1:{free_port()}//")
    with pytest.raises(BrokerError) as caught:
        publisher.publish(build("t", "1"), queue="q")
    assert "secret" not in str(caught.value)
    publisher.close()


def test_compressed_bodies_arrive_unpacked_and_broken_ones_are_named(consumer, queue, wait_until):
    with kombu.Connection(URL) as connection:
        producer = kombu.Producer(connection)
        headers = {"task": "t", "id": "1"}
        producer.publish([[1], {}, None], routing_key=queue, headers=headers, serializer="json", compression="zlib")
        broken = {**headers, "compression": "application/x-gzip"}
        producer.publish(
            b"?", routing_key=queue, headers=broken, content_type="application/json", content_encoding="utf-8"
        )
    found = taken(consumer, wait_until, 2)
    outer = json.loads(found[0].raw)
    assert "compression" not in outer["headers"]
    assert json.loads(base64.b64decode(outer["body"])) == [[1], {}, None]
    assert found[0].fault == ""
    assert "cannot be unpacked" in found[1].fault


def test_a_broker_that_never_answers_keeps_no_worker_from_stopping(queue):
    """As a host that hangs: connecting takes longer than a worker may take to stop."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}//"
        consumer = KombuConsumer(url, [queue], parking=MemoryParking(SystemClock()), arguments=broker.no_arguments)
        asked = itertools.count()
        began = time.monotonic()
        consumer.start(lambda: next(asked) == 2)
        consumer.stop()
        assert time.monotonic() - began < 5  # the time limit of a connection


def test_transport_options_lead_to_a_broker_in_a_folder(tmp_path, queue, wait_until):
    folders = {name: str(tmp_path / place) for name, place in (("data_folder_in", "q"), ("data_folder_out", "q"))}
    options = {**folders, "control_folder": str(tmp_path / "control")}
    (tmp_path / "q").mkdir()
    (tmp_path / "control").mkdir()
    publisher = broker.open("filesystem://", transport_options=options)
    consumer = open_consumer("filesystem://", [queue], name="w", clock=SystemClock(), transport_options=options)
    try:
        publisher.publish(build("t", "an-id"), queue=queue)
        assert len(list((tmp_path / "q").iterdir())) == 1
        consumer.start()
        (delivery,) = taken(consumer, wait_until)
        consumer.ack([delivery])
    finally:
        consumer.stop()
        publisher.close()
    assert ids([delivery]) == ["an-id"]
    assert list((tmp_path / "q").iterdir()) == []


def test_messages_that_wait_for_their_time_keep_no_others_from_coming(publisher, consumer, queue, wait_until):
    waiting = 600
    for number in range(waiting):
        publisher.publish(build("t", str(number)), queue=queue)
    parked, due = 0, SystemClock().now_ms() + 3_600_000

    def park():
        nonlocal parked
        found = consumer.take(100)
        consumer.park([(one, due) for one in found])
        parked += len(found)
        return parked == waiting

    wait_until(park, 30, "all that wait")
    publisher.publish(build("t", "now"), queue=queue)
    assert ids(taken(consumer, wait_until)) == ["now"]


def test_a_message_that_the_transport_cannot_read_ends_nothing(publisher, consumer, queue, wait_until, caplog):
    with kombu.Connection(URL) as connection:
        connection.default_channel._put(queue, "no message at all")
    publisher.publish(build("t", "1"), queue=queue)
    assert ids(taken(consumer, wait_until)) == ["1"]
    assert "consumer_failed" in {getattr(record, "event", None) for record in caplog.records}
