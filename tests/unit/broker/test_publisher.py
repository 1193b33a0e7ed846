"""Addresses, and what is shown of a broker's URL."""

import pytest

from beatd.broker import Address, is_amqp, is_redis
from beatd.broker.publisher import outgoing_message
from beatd.message.protocol import build
from beatd.urls import shown as shown_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://guest:secret@rabbit:5672//", "amqp://guest:***@rabbit:5672//"),
        ("amqp://guest:sec:ret@rabbit", "amqp://guest:***@rabbit"),
        ("amqp://a:secret@one//;amqp://b:secret@two//", "amqp://a:***@one//;amqp://b:***@two//"),
        ("amqp://a:secret@one//;b:secret@two//", "amqp://…"),
        ("sqs://key:secret@", "sqs://key:***@"),
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("amqps://guest@host//?ssl_keyfile=secret", "amqps://***@host//"),
        ("sentinel://host:26379/0?password=secret", "sentinel://host:26379/0"),
        ("memory://", "memory://"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url, shown):
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    ("exchange", "routing_key", "address"),
    [
        ("", None, Address("q")),
        ("", "key", Address("q")),
        ("x", "key", Address("key", "x")),
        ("x", None, Address("q", "x")),
    ],
)
def test_a_routing_key_belongs_to_an_exchange(exchange, routing_key, address):
    assert outgoing_message(build("t", "id"), "q", exchange, routing_key).to == address


def test_the_kinds_of_brokers():
    assert [is_amqp(url) for url in ("amqp://h", "amqps://h", "pyamqp://h", "amqp://a;amqp://b")] == [True] * 4
    assert [is_redis(url) for url in ("redis://h", "rediss://h", "unix:///s", "redis+socket:///s")] == [True] * 4
    assert not any(kind(url) for kind in (is_amqp, is_redis) for url in ("sentinel://h", "memory://", "sqs://"))
