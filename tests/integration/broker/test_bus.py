"""The bus on a real Redis: kombu's mailbox on the other side, junk on the channel, connections that are cut."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import kombu
import kombu.pidbox
import pytest
import redis

from beatd.broker import bus as buses
from beatd.broker.bus import Bus, BusMessage, Names, call, command_body
from beatd.exceptions import BrokerError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NODE = "celery@here"
MAILBOX = "/0.celery.pidbox"


@pytest.fixture
def bus(redis_url: str) -> Iterator[Bus]:
    bus = buses.open(redis_url)
    assert bus is not None
    bus.connect(node=NODE)
    yield bus
    bus.close()


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def arrived(bus: Bus, wait_until) -> list[BusMessage]:
    return wait_until(lambda: bus.requests(10), what="something to come")


def test_kombus_mailbox_asks_and_hears_the_answer(bus, redis_url, wait_until):
    """What Celery's tools are made of."""
    with kombu.Connection(redis_url) as connection:
        asker = kombu.pidbox.Mailbox("celery", type="fanout", accept=["json"], serializer="json")(connection)
        ticket = str(uuid.uuid4())
        asker._publish("ping", {"a": 1}, destination=[NODE], reply_ticket=ticket, timeout=1)
        (letter,) = arrived(bus, wait_until)
        assert (letter.body["method"], letter.body["arguments"], letter.body["destination"]) == (
            "ping",
            {"a": 1},
            [NODE],
        )
        to = letter.body["reply_to"]
        bus.reply(BusMessage({NODE: "pong"}, {"ticket": ticket, "clock": 3}), to["exchange"], to["routing_key"])
        assert asker._collect(ticket, limit=1, timeout=10) == [{NODE: "pong"}]


def test_a_line_hears_only_the_answers_to_its_own_question(bus, redis_url, wait_until):
    with call(redis_url, Names()) as line:
        answers = line.ask(BusMessage(command_body("ping", {}), {}), timeout=10, limit=1)
        import threading

        def answer() -> None:
            (letter,) = arrived(bus, wait_until)
            to = letter.body["reply_to"]
            for ticket, text in (("another", "wrong"), (letter.body["ticket"], "right")):
                bus.reply(BusMessage({NODE: text}, {"ticket": ticket}), to["exchange"], to["routing_key"])

        thread = threading.Thread(target=answer)
        thread.start()
        assert [letter.body for letter in answers] == [{NODE: "right"}]
        thread.join()


def test_an_asker_leaves_nothing_behind(bus, redis_url, server, wait_until):
    with call(redis_url, Names()) as line:
        assert list(line.ask(BusMessage(command_body("ping", {}), {}), timeout=0.2, limit=None)) == []
    (letter,) = arrived(bus, wait_until)
    assert server.keys("*pidbox*") == []
    to = letter.body["reply_to"]
    bus.reply(BusMessage({NODE: "late"}, {"ticket": "t"}), to["exchange"], to["routing_key"])
    (key,) = server.keys("*pidbox*")
    assert 0 < server.ttl(key) <= 10


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[1, 2]",
        b"{}",
        b'{"body": 7}',
        b'{"body": "%%%", "properties": {"body_encoding": "base64"}}',
        b'{"body": "{", "properties": {}, "content-type": "application/json"}',
        b'{"body": "gAJ9cQAu", "properties": {"body_encoding": "base64"}, "content-type": "application/x-python"}',
        b"[" * 100_000,
    ],
    ids=lambda junk: repr(junk[:30]),
)
def test_junk_on_the_channel_is_left_out(junk, bus, server, wait_until):
    server.publish(MAILBOX, junk)
    good = {"body": json.dumps(command_body("ping", {})), "properties": {}, "content-type": "application/json"}
    server.publish(MAILBOX, json.dumps(good))
    (letter,) = arrived(bus, wait_until)
    assert letter.body["method"] == "ping"


def test_events_go_to_who_listens_and_cost_nothing_if_nobody_does(bus, server):
    bus.emit("worker.heartbeat", BusMessage({"type": "worker-heartbeat"}, {"hostname": NODE}))
    assert server.keys("*") == []
    with server.pubsub() as monitor:
        monitor.psubscribe("/0.celeryev/*")
        assert monitor.get_message(timeout=5)["type"] == "psubscribe"
        bus.emit("task.multi", BusMessage([{"type": "task-started", "uuid": "half of \ud83d"}], {"hostname": NODE}))
        heard = monitor.get_message(timeout=5)
    assert heard["channel"] == b"/0.celeryev/task.multi"
    assert json.loads(heard["data"])["headers"] == {"hostname": NODE}


def test_a_connection_that_is_cut_is_an_error_once_and_can_be_made_anew(bus, server, wait_until):
    server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    def fails() -> bool:
        try:
            bus.requests(10)
        except BrokerError:
            return True
        return False

    wait_until(fails, what="the loss to be noticed")
    bus.close()
    bus.connect(node=NODE)
    assert server.publish(MAILBOX, b"{}") == 1


def test_the_number_of_the_database_is_part_of_the_channel(redis_url, server):
    other = buses.open(redis_url.removesuffix("0") + "5")
    assert other is not None
    other.connect(node=NODE)
    assert server.publish("/5.celery.pidbox", b"{}") == 1
    other.close()


def test_brokers_that_cannot_broadcast_have_no_bus():
    assert buses.open("sqs://") is None
    with pytest.raises(BrokerError, match="needs Redis or RabbitMQ"):
        call("filesystem://", Names())
