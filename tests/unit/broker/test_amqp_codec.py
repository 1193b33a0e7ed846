"""RabbitMQ's bytes, cut into messages: what py-amqp writes is what comes out, in whatever pieces it comes."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from amqp.basic_message import Message
from amqp.serialization import dumps
from hypothesis import given, settings
from hypothesis import strategies as st

from beatd.broker.amqp_codec import HEARTBEAT, Closed, Stream
from beatd.exceptions import BrokerError


def frame(kind: int, payload: bytes, channel: int = 1) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def delivered(body: bytes, *, tag: int = 7, redelivered: bool = False, step: int = 100, **properties) -> bytes:
    """A delivery as RabbitMQ sends it; the properties are written by py-amqp."""
    method = struct.pack(">HH", 60, 60) + dumps("sLbss", ["c1", tag, redelivered, "", "celery"])
    header = struct.pack(">HHQ", 60, 0, len(body)) + Message(**properties)._serialize_properties()
    bodies = b"".join(frame(3, body[at : at + step]) for at in range(0, len(body), step))
    return frame(1, method) + frame(2, header) + bodies


TABLES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=20), TABLES, max_size=6), st.binary(max_size=400), st.integers(1, 500))
def test_what_was_sent_is_what_comes(headers, body, piece):
    data = delivered(body, application_headers=headers, content_type="application/json", priority=3) + HEARTBEAT
    stream = Stream()
    found = [one for at in range(0, len(data), piece) for one in stream.feed(data[at : at + piece])]
    assert [(one.tag, one.body, one.fault) for one in found] == [(7, body, "")]
    assert found[0].properties["headers"] == headers
    assert (found[0].properties["content_type"], found[0].properties["priority"]) == ("application/json", 3)


def test_every_type_that_a_header_can_have():
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    (found,) = Stream().feed(delivered(b"", application_headers={"m": moment, "d": Decimal("1.25"), "b": b"\x00\xff"}))
    assert found.properties["headers"]["m"] == "2026-01-02T03:04:05+00:00"
    assert found.properties["headers"]["d"] == 1.25
    assert found.properties["headers"]["b"] == "\0\ufffd"  # bytes and text are the same on this wire


def test_a_message_without_any_properties():
    (found,) = Stream().feed(delivered(b"bare"))
    assert (found.body, found.properties) == (b"bare", {})


def test_properties_that_cannot_be_read_are_a_fault_of_that_message_alone():
    good = delivered(b"good", application_headers={"id": "a"})
    header = struct.pack(">HHQ", 60, 0, 3) + struct.pack(">HI", 0x2000, 9) + b"\x01aQ\x00\x00\x00\x02\xff\xfe"
    method = struct.pack(">HH", 60, 60) + dumps("sLbss", ["c1", 8, False, "", "celery"])
    bad = frame(1, method) + frame(2, header) + frame(3, b"bad")
    first, second = Stream().feed(bad + good)
    assert (first.body, first.properties) == (b"bad", {})
    assert "its properties cannot be read" in first.fault
    assert (second.body, second.fault) == (b"good", "")


@pytest.mark.parametrize("seconds", [2**64 - 62_135_596_800, 2**63, 10**17, 253_402_300_800])
def test_a_moment_that_is_none_is_a_number(seconds):
    """Clients in Go write the year 1, their empty time, as a negative number."""
    table = b"\x01mT" + struct.pack(">Q", seconds) + b"\x02idS" + struct.pack(">I", 1) + b"a"
    header = struct.pack(">HHQ", 60, 0, 0) + struct.pack(">HI", 0x2000, len(table)) + table
    method = struct.pack(">HH", 60, 60) + dumps("sLbss", ["c1", 8, False, "", "celery"])
    (found,) = Stream().feed(frame(1, method) + frame(2, header))
    assert found.properties["headers"] == {"m": seconds, "id": "a"}
    assert found.fault == ""


def test_arrays_that_go_on_behind_their_end_are_a_fault_and_take_no_time():
    levels = 60
    array = b"".join(b"A" + struct.pack(">I", 5) + b"A" + struct.pack(">I", 10 * n) for n in range(levels, 0, -1))
    table = b"\x01a" + array + b"V" * 10
    header = struct.pack(">HHQ", 60, 0, 0) + struct.pack(">HI", 0x2000, len(table)) + table
    method = struct.pack(">HH", 60, 60) + dumps("sLbss", ["c1", 8, False, "", "celery"])
    (found,) = Stream().feed(frame(1, method) + frame(2, header))
    assert "its properties cannot be read" in found.fault


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (struct.pack(">HHH", 10, 50, 320) + dumps("s", ["CONNECTION_FORCED"]) + b"\0" * 4, "320 CONNECTION_FORCED"),
        (struct.pack(">HHH", 20, 40, 406) + dumps("s", ["PRECONDITION_FAILED"]) + b"\0" * 4, "406 PRECONDITION"),
        (struct.pack(">HH", 60, 30) + dumps("s", ["c1"]) + b"\0", "its queue is gone"),
    ],
)
def test_the_broker_ends_it(method, words):
    (found,) = Stream().feed(frame(1, method))
    assert isinstance(found, Closed)
    assert words in found.reason


def test_something_else_than_amqp():
    with pytest.raises(BrokerError, match="no AMQP"):
        list(Stream().feed(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4))
