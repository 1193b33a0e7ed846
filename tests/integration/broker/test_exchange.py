"""Entries with an exchange, where the state store is the broker: the claim pushes to the one queue behind it."""

import kombu
import pytest

from beatd.beat.delivery import DirectDelivery
from beatd.beat.dispatch_log import DispatchLog
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Term
from beatd.broker import Address
from beatd.broker.redis import RedisPublisher
from beatd.exceptions import BrokerError, MessageError
from beatd.message.protocol import open_envelope
from beatd.model import Entry, Options, Run
from beatd.schedules import parse

TERM = Term(1, "d:1", 1e18)


def entry(**options):
    return Entry(name="e", task="t", schedule=parse(30.0), options=Options(**options))


def bind(url, exchange, key, *queues, kind="direct"):
    with kombu.Connection(url) as connection:
        for name in queues:
            kombu.Queue(name, kombu.Exchange(exchange, type=kind), routing_key=key)(connection.channel()).declare()


@pytest.fixture
def delivery(redis_url):
    publisher = RedisPublisher(redis_url)
    yield DirectDelivery(publisher)
    publisher.close()


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({}, Address("celery")),
        ({"queue": "q"}, Address("q")),
        ({"exchange": "x", "routing_key": "k"}, Address("k", "x")),
        ({"exchange": "x", "routing_key": "k", "queue": "q"}, Address("k", "x")),
        ({"exchange": "x"}, Address("celery", "x")),
        ({"exchange": "x", "queue": "q"}, Address("q")),
        ({"routing_key": "k"}, Address("celery")),
        ({"routing_key": "k", "queue": "q"}, Address("q")),
    ],
)
def test_where_the_options_of_an_entry_lead(options, address):
    assert MessageBuilder("celery").address_of(entry(**options)) == address


def test_the_envelope_names_exchange_and_routing_key_as_kombu_does():
    one = entry(exchange="x", routing_key="k")
    message = open_envelope(MessageBuilder("celery").render(Run(one, 0, 0, one.schedule), None))
    assert message.properties["delivery_info"] == {"exchange": "x", "routing_key": "k"}


def test_the_list_is_that_of_the_queue_which_is_bound(delivery, redis_url):
    bind(redis_url, "x", "reports.*", "reports", kind="topic")
    assert delivery.list_key(Address("reports.daily", "x"), None) == "reports"
    assert delivery.list_key(Address("reports.daily", "x"), 6) == "reports\x06\x166"


def test_a_binding_that_changes_is_seen_after_the_next_flush(delivery, redis_url):
    address = Address("k", "x")
    assert delivery.list_key(address, None) == "k"
    bind(redis_url, "x", "k", "reports")
    assert delivery.list_key(address, None) == "k"
    assert delivery.flush(TERM, DispatchLog())
    assert delivery.list_key(address, None) == "reports"


def test_an_exchange_that_reaches_several_queues_is_refused_in_words(delivery, redis_url):
    bind(redis_url, "x", "k", "one", "two")
    with pytest.raises(MessageError, match=r"exchange 'x', routing key 'k' reaches 2 queues: one, two; .* name it as"):
        delivery.list_key(Address("k", "x"), None)


def test_a_store_that_does_not_answer_is_a_brokers_error(delivery, redis_server, redis_url):
    redis_server.kill()
    with pytest.raises(BrokerError):
        delivery.list_key(Address("k", "x"), None)
