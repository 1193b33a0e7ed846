"""What is written reads back, by py-amqp's reader, as what was meant."""

import struct

import amqp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd.broker import Address, OutgoingMessage, amqp_codec
from beatd.exceptions import MessageError
from beatd.message.protocol import build

MAX = 131_072


def read(data):
    """The parts of a publish: exchange, routing key, mandatory, py-amqp's message."""
    parts, at = [], 0
    while at < len(data):
        kind, channel, size = struct.unpack_from(">BHI", data, at)
        assert size + amqp_codec.FRAME_OVERHEAD <= MAX
        assert channel == 7
        assert data[at + 7 + size] == 0xCE
        parts.append((kind, data[at + 7 : at + 7 + size]))
        at += size + 8
    (one, method), (two, header), *bodies = parts
    assert (one, two, {kind for kind, _ in bodies} - {3}) == (1, 2, set())
    assert method[:4] == struct.pack(">HH", 60, 40)
    (_, exchange, key, mandatory, _), _ = amqp.serialization.loads("Bssbb", method, 4)
    message = amqp.basic_message.Message(frame_method=(60, 40))
    message.inbound_header(header)
    for _, body in bodies:
        message.inbound_body(body)
    assert message.ready
    return exchange, key, mandatory, message


QUEUE = Address("q")


def parcel(headers=None, to=QUEUE, body=None, **options):
    message = build("tasks.t", "id-1", (1,), headers=headers, **options)
    return OutgoingMessage(message if body is None else build("tasks.t", "id-1", (body,)), to)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcäß ", max_size=9), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text("xyzé-", min_size=1, max_size=20), JSON, max_size=6))
def test_headers_come_back_as_they_were(headers):
    message = read(amqp_codec.publish(parcel(headers), 7, MAX))[3]
    assert {name: message.headers[name] for name in headers} == headers


def test_address_and_properties():
    exchange, key, mandatory, message = read(
        amqp_codec.publish(parcel(to=Address("k", "x"), priority=255, expiration_ms=5, reply_to="r"), 7, MAX)
    )
    assert (exchange, key, mandatory) == ("x", "k", True)
    headers = message.properties.pop("application_headers")
    assert headers["timelimit"] == [None, None]
    assert message.properties == {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": 2,
        "priority": 255,
        "correlation_id": "id-1",
        "reply_to": "r",
        "expiration": "5",
    }


@pytest.mark.parametrize("size", [0, 1, MAX - 9, MAX - 8, MAX, 3 * MAX])
def test_a_large_body_goes_in_several_frames(size):
    one = parcel(body="x" * size)
    assert read(amqp_codec.publish(one, 7, MAX))[3].body == one.message.body


@pytest.mark.parametrize(
    "unfit",
    [
        parcel({"number": 2**63}),
        parcel({"n" * 256: 1}),
        parcel({"x": "lone \ud800 surrogate"}),
        parcel({"x": {1, 2}}),
        parcel({"x": object()}),
        parcel({"x": "x" * MAX}),
        parcel(priority=256),
        parcel(priority=-1),
        parcel(to=Address("k" * 256)),
        parcel(to=Address("k", "x" * 256)),
    ],
)
def test_what_amqp_cannot_carry_is_an_error(unfit):
    with pytest.raises(MessageError, match="AMQP cannot carry it: "):
        amqp_codec.publish(unfit, 7, MAX)
