"""RabbitMQ takes batches, refuses what it must by name, and gets nothing twice for no reason."""

import logging
import os
import socket
import threading
import time

import pytest
from amqp.exceptions import PreconditionFailed

from beatd.broker import Refused
from beatd.broker.amqp_publisher import AmqpPublisher, ConfirmChannel
from beatd.broker.amqp_queues import task_queue
from beatd.exceptions import BrokerError
from beatd.message.protocol import build
from tests.integration.broker.conftest import Queues, parcel

pytestmark = pytest.mark.slow


def events(caplog):
    return [getattr(record, "event", None) for record in caplog.records]


def test_a_batch_arrives_in_order(publisher, queues, queue):
    ids = [f"{queue}-{number}" for number in range(300)]
    assert publisher.publish_many([parcel(each, queue) for each in ids]) == []
    assert publisher.depth(queue) == 300
    assert queues.ids(queue) == ids


def test_a_message_has_the_properties_that_celery_gives_it(publisher, queues, queue):
    publisher.publish(build("tasks.t", "id-1", (1,), {"a": 2}, priority=4, expiration_ms=60_000), queue=queue)
    [message] = queues.take(queue)
    assert message.delivery_info["exchange"] == ""
    assert message.delivery_info["routing_key"] == queue
    headers = message.properties.pop("application_headers")
    assert message.properties == {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "correlation_id": "id-1",
        "reply_to": "",
        "delivery_mode": 2,
        "priority": 4,
        "expiration": "60000",
    }
    assert headers["task"] == "tasks.t"
    assert headers["timelimit"] == [None, None]


def test_the_queue_is_declared_as_celery_declares_it(publisher, queues, queue):
    publisher.publish_many([parcel("a", queue)])
    task_queue(queue)(queues.channel).declare()  # a difference would be refused
    publisher.publish_many([parcel("b", exchange=queue, key=queue)])
    assert queues.ids(queue) == ["a", "b"]


def test_a_queue_with_priorities_keeps_them(publisher, queues, queue, caplog):
    queues.channel.queue_declare(queue, durable=True, auto_delete=False, arguments={"x-max-priority": 10})
    publisher.publish_many([parcel("low", queue, priority=1), parcel("high", queue, priority=9)])
    assert queues.ids(queue) == ["high", "low"]
    assert "queue_without_priorities" not in events(caplog)
    with pytest.raises(PreconditionFailed):
        task_queue(queue)(queues.channel).declare()  # which is why it must not be declared


def test_priorities_in_a_queue_without_are_spoken_of(publisher, queues, queue, caplog):
    publisher.publish_many([parcel("a", queue, priority=5), parcel("b", queue, priority=5)])
    assert events(caplog).count("queue_without_priorities") == 1
    assert queues.ids(queue) == ["a", "b"]


def test_an_exchange_of_the_queues_name_and_another_type_is_said_and_in_nobodys_way(publisher, queues, queue, caplog):
    queues.channel.exchange_declare(queue, "topic", durable=True, auto_delete=False)
    assert publisher.publish_many([parcel("a", queue)]) == []
    assert "queue_not_declared" in events(caplog)
    assert queues.ids(queue) == ["a"]


def test_what_no_queue_gets_is_refused_and_the_others_arrive_once(publisher, queues, queue):
    queues.channel.exchange_declare(f"{queue}-x", "topic", durable=True, auto_delete=False)
    batch = [
        parcel("a", queue),
        parcel("nowhere", exchange=f"{queue}-missing", key="k"),
        parcel("b", queue),
        parcel("unbound", exchange=f"{queue}-x", key="k"),
        parcel("c", queue),
    ]
    for _ in range(2):
        refused = publisher.publish_many(batch)
        assert [one.number for one in refused] == [1, 3]
        assert "no such exchange" in refused[0].reason
        assert "no queue gets it" in refused[1].reason
        assert queues.ids(queue) == ["a", "b", "c"]


def test_one_message_that_no_queue_gets_is_an_error_that_names_it(publisher, queue):
    with pytest.raises(
        BrokerError, match=r"message id-7 \(tasks.t\) to exchange '.*', routing key 'k': there is no such"
    ):
        publisher.publish(build("tasks.t", "id-7"), queue=queue, exchange=f"{queue}-missing", routing_key="k")


@pytest.mark.parametrize(
    "unfit",
    [
        parcel("bad", "q", headers={"number": 2**70}),
        parcel("bad", "q", headers={"large": "x" * 200_000}),
        parcel("bad", "q" * 300),
        parcel("bad", "q", headers={"x": "lone \ud800 surrogate"}, priority=300),
    ],
    ids=["integer", "headers", "name", "priority"],
)
def test_what_amqp_cannot_carry_is_refused_and_the_others_arrive(publisher, queues, queue, unfit):
    [refused] = publisher.publish_many([parcel("a", queue), unfit, parcel("b", queue)])
    assert refused.number == 1
    assert refused.reason
    assert queues.ids(queue) == ["a", "b"]


def test_a_message_that_makes_the_broker_close_the_channel_is_found_among_the_others(publisher, queues, queue):
    queues.channel.exchange_declare(f"{queue}-in", "direct", durable=True, auto_delete=False, arguments={})
    bad = parcel("bad", queue, expiration_ms=1)
    bad.message.properties["expiration"] = "soon"  # PRECONDITION_FAILED, and the broker does not say which message
    [refused] = publisher.publish_many([parcel("a", queue), bad, parcel("b", queue)])
    assert refused.number == 1
    assert "PRECONDITION_FAILED" in refused.reason
    assert set(queues.ids(queue)) == {"a", "b"}


def test_an_exchange_that_may_not_be_written_to_costs_one_connection(rabbitmq, queues, queue, monkeypatch):
    """The broker closes the connection's channel for each message there, and those to other addresses wait."""
    opened = []

    class Counted(ConfirmChannel):
        def __init__(self, *arguments, **more):
            opened.append(True)
            super().__init__(*arguments, **more)

    monkeypatch.setattr("beatd.broker.amqp_publisher.ConfirmChannel", Counted)
    queues.channel.exchange_declare(f"{queue}-x", "direct", durable=True, auto_delete=False)
    rabbitmq.ctl("add_user", queue, "secret")
    rabbitmq.ctl("set_permissions", "-p", "/", queue, ".*", f"^(amq\\.default|{queue})$", ".*")
    publisher = AmqpPublisher(rabbitmq.url.replace("guest:guest", f"{queue}:secret"))
    parcels = [parcel(f"x{number}", exchange=f"{queue}-x", key="k") for number in range(50)]
    refused = publisher.publish_many([parcel("a", queue), *parcels, parcel("b", queue)])
    publisher.close()
    assert [one.number for one in refused] == list(range(1, 51))
    assert all("ACCESS_REFUSED" in one.reason for one in refused)
    assert sorted(queues.ids(queue)) == ["a", "b"]
    assert len(opened) <= 4


def test_a_full_queue_that_rejects_is_a_refusal(publisher, queues, queue):
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queues.channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
    refused = publisher.publish_many([parcel(each, queue) for each in "abc"])
    assert refused == [Refused(number, refused[0].reason) for number in (1, 2)]
    assert "full queue" in refused[0].reason
    assert queues.ids(queue) == ["a"]


def test_a_queue_that_was_deleted_is_declared_again(publisher, queues, queue):
    publisher.publish_many([parcel("a", queue)])
    queues.channel.queue_delete(queue)
    assert publisher.publish_many([parcel("b", queue), parcel("c", queue)]) == []
    assert queues.ids(queue) == ["b", "c"]


def test_the_depth_of_a_queue_that_is_not_there_is_nought(publisher, queue):
    assert publisher.depth(queue) == 0
    publisher.publish_many([parcel("a", queue)])
    assert publisher.depth(queue) == 1


def test_a_message_that_is_twice_in_a_batch_is_sent_once(publisher, queues, queue):
    assert publisher.publish_many([parcel("a", queue), parcel("a", queue)]) == []
    lost = parcel("lost", exchange=f"{queue}-missing", key="k")
    assert [one.number for one in publisher.publish_many([lost, lost])] == [0, 1]
    assert queues.ids(queue) == ["a"]


def test_many_threads_share_it(publisher, queues, queue):
    def send(letter):
        for number in range(20):
            publisher.publish_many([parcel(f"{letter}{number}-{n}", queue) for n in range(5)])

    threads = [threading.Thread(target=send, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    ids = queues.ids(queue)
    assert len(ids) == len(set(ids)) == 400


def test_it_works_on_both_sides_of_a_fork(publisher, queues, queue):
    publisher.publish_many([parcel("before", queue)])
    if (child := os.fork()) == 0:
        code = 1
        try:
            publisher.publish_many([parcel("child", queue)])
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    publisher.publish_many([parcel("parent", queue)])
    assert queues.ids(queue) == ["before", "child", "parent"]


def test_a_broker_that_was_restarted_meanwhile_is_not_noticed(rabbitmq, publisher, queue):
    publisher.publish_many([parcel("a", queue)])
    rabbitmq.kill()
    with pytest.raises(BrokerError, match=rf"broker amqp://guest:\*\*\*@127.0.0.1:{rabbitmq.port}//: "):
        publisher.publish_many([parcel("b", queue)])
    rabbitmq.start()
    publisher.publish_many([parcel("c", queue)])
    rabbitmq.restart()
    publisher.publish_many([parcel("d", queue)])
    queues = Queues(rabbitmq)
    assert queues.ids(queue) == ["a", "c", "d"]
    queues.close()


def test_a_broker_that_does_not_answer_is_waited_for_so_long_and_no_longer(rabbitmq, publisher, queues, queue):
    publisher.publish_many([parcel("a", queue)])
    rabbitmq.pause()
    try:
        started = time.monotonic()
        with pytest.raises(BrokerError, match="no confirmation of 1 messages in time"):
            publisher.publish_many([parcel("b", queue)])
        assert time.monotonic() - started < 20  # the time-out is 5 s; without it a batch has 30 s
    finally:
        rabbitmq.resume()
    publisher.publish_many([parcel("b", queue)])
    ids = queues.ids(queue, at_least=2)
    assert ids[0] == "a"
    assert set(ids[1:]) == {"b"}


@pytest.mark.parametrize("retries", [0, 1], ids=["the same batch", "a retry under the same id"])
def test_what_was_confirmed_before_the_broker_failed_is_not_sent_again(rabbitmq, queues, queue, retries):
    other, pauses = f"{queue}-other", iter([rabbitmq.pause])

    def arguments(name):  # is asked for when the first message, which goes alone, has been confirmed
        if name == other:
            next(pauses, int)()
        return {}

    publisher = AmqpPublisher(rabbitmq.url, arguments)
    try:
        with pytest.raises(BrokerError):
            publisher.publish_many([parcel("a", queue), parcel("b", other)])
    finally:
        rabbitmq.resume()
    assert publisher.publish_many([parcel("a", queue, retries=retries), parcel("b", other)]) == []
    publisher.close()
    assert queues.ids(queue) == ["a"] * (1 + retries)
    assert queues.ids(other) == ["b"]


def test_a_blocked_connection_is_named_bounded_and_gets_nothing_twice(rabbitmq, publisher, queues, queue, caplog):
    caplog.set_level(logging.INFO)
    publisher.publish_many([parcel("a", queue)])
    rabbitmq.ctl("set_vm_memory_high_watermark", "0")
    batch = [parcel(f"b{number}", queue) for number in range(50)]
    try:
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(BrokerError, match="takes no messages for now"):
                publisher.publish_many(batch)
            assert time.monotonic() - started < 20  # the time-out is 5 s; without it a batch has 30 s
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.6")
    assert publisher.publish_many(batch) == []
    assert queues.ids(queue) == ["a", *(one.message.id for one in batch)]
    assert events(caplog).count("broker_blocked") == 1
    assert events(caplog).count("broker_unblocked") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace("guest:guest", "guest:hidden-word"), "it refuses the user or the password"),
        (lambda url: url.removesuffix("/") + "nowhere", "vhost nowhere not found"),
        (lambda url: "amqp://guest:hidden-word@127.0.0.1:1//", "refused"),
        (lambda url: "amqp://guest:hidden-word@no.such.host.invalid//", "no.such.host.invalid"),
    ],
    ids=["password", "vhost", "port", "host"],
)
def test_what_is_wrong_with_a_url_is_said_without_the_password(rabbitmq, queue, change, said):
    publisher = AmqpPublisher(change(rabbitmq.url))
    with pytest.raises(BrokerError, match=said) as raised:
        publisher.publish_many([parcel("a", queue)])
    assert "hidden-word" not in str(raised.value)
    assert ":***@" in str(raised.value)


def test_a_host_that_accepts_and_says_nothing_is_given_up(queue):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        publisher = AmqpPublisher(f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}//")
        started = time.monotonic()
        with pytest.raises(BrokerError, match="broker amqp"):
            publisher.publish_many([parcel("a", queue)])
        assert time.monotonic() - started < 20  # the time-out is 5 s; without it a batch has 30 s


def test_of_several_hosts_the_first_that_answers_is_taken(rabbitmq, queues, queue):
    publisher = AmqpPublisher(f"amqp://guest:guest@127.0.0.1:1//;{rabbitmq.url}")
    assert publisher.publish_many([parcel("a", queue)]) == []
    publisher.close()
    assert queues.ids(queue) == ["a"]
