"""The port of the bus, its messages, and events in Celery's form.

Lamport's logical clock orders the events of different workers.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple, Protocol

import msgspec

from beatd.clock import Clock, hours_west_of_utc
from beatd.exceptions import MessageError
from beatd.message import json_codec
from beatd.message.protocol import JSON, TaskMessage, envelope_document


class Names(NamedTuple):
    """Names of the exchanges; Celery's settings ``control_exchange`` and ``event_exchange``."""

    control: str = "celery"
    events: str = "celeryev"

    @property
    def mailbox(self) -> str:
        """Exchange of commands, to every worker's mailbox."""
        return f"{self.control}.pidbox"

    @property
    def replies(self) -> str:
        """Exchange of replies, to the mailbox of the client."""
        return f"reply.{self.control}.pidbox"


class BusMessage(NamedTuple):
    """A message of the bus: a JSON value, and its headers."""

    body: Any
    headers: dict[str, Any]


class Bus(Protocol):
    """One connection, for one thread. Calls raise :class:`~beatd.exceptions.BrokerError`; close and connect then."""

    place: str
    """Where it is, for people; without passwords."""
    listening: bool
    """Whether it takes what is sent to it now: a broker can ask for silence."""

    def connect(self, *, node: str | None = None, oid: str | None = None) -> None:
        """Connect. With ``node`` receive what is sent to workers, in its name; with ``oid`` the answers to that id."""

    def files(self) -> list[int]:
        """File descriptors that become readable when something has come."""

    def requests(self, at_most: int) -> list[BusMessage]:
        """Return the commands since the last call. Does not wait; a message that is no JSON is left out, and logged."""

    def replies(self, at_most: int) -> list[BusMessage]:
        """Return the replies since the last call. Does not wait."""

    def broadcast(self, message: BusMessage) -> int | None:
        """Send to all workers; returns how many have received it, where the broker says that."""

    def reply(self, message: BusMessage, exchange: str, routing_key: str) -> None:
        """Answer whoever asked for it there."""

    def emit(self, routing_key: str, message: BusMessage) -> None:
        """Send to all who listen to events of that kind (``worker.heartbeat``, ``task.multi``)."""

    def tend(self) -> None:
        """Show the broker that this end is alive, and find out whether that one is. To be called every few seconds."""

    def close(self) -> None:
        """Disconnect. Never raises."""


_REPLIES = re.compile(r"reply\.[\w.-]+\.pidbox")


def check_reply_address(exchange: Any, routing_key: Any) -> None:
    """Refuse to answer to what is no mailbox: a sender must not choose an arbitrary key or exchange to be written to.

    Raises :class:`MessageError`.
    """
    if not (isinstance(exchange, str) and _REPLIES.fullmatch(exchange)):
        raise MessageError(f"reply_to names {exchange!r}, which is no exchange for replies")
    if not (isinstance(routing_key, str) and 0 < len(routing_key) <= 255):
        raise MessageError(f"reply_to names {routing_key!r}, which is no routing key")


def to_message(message: BusMessage, *, transient: bool = True, plain: bool = False) -> TaskMessage:
    """Encode a bus message. ``plain``: there is nothing in it but what JSON knows by itself; much faster."""
    properties = {"delivery_mode": 1 if transient else 2, "priority": 0}
    return TaskMessage(headers=message.headers, body=_encoded(message.body, plain), properties=properties)


def _encoded(body: Any, plain: bool) -> bytes:
    if plain:
        try:
            return _encode(body)
        except (TypeError, ValueError):  # half of a surrogate pair, for one
            pass
    return json_codec.dumps(body)


def to_envelope(message: TaskMessage, exchange: str, routing_key: str) -> bytes:
    """Return a message as kombu's Redis transport publishes it; nothing in it needs more than plain JSON."""
    return _encode(envelope_document(message, queue=routing_key, exchange=exchange))


_encode = msgspec.json.Encoder().encode


def from_message(body: bytes, content_type: str, headers: dict[str, Any]) -> BusMessage:
    """Decode a bus message; raises :class:`MessageError` for what is not JSON."""
    if content_type != JSON:
        raise MessageError(f"content type {content_type!r} is not accepted, only JSON is")
    return BusMessage(json_codec.loads(body), headers)


class LamportClock:
    """Counts what this process sends, and is never behind what it has heard. For one thread."""

    def __init__(self) -> None:
        self.value = 0

    def forward(self) -> int:
        """The time of the next thing that is sent."""
        self.value += 1
        return self.value

    def adjust(self, heard: object) -> int:
        """Take note of the time on something that was received; what is no time is let pass."""
        if isinstance(heard, int) and not isinstance(heard, bool) and 0 <= heard < _ABSURD:
            self.value = max(self.value, heard)
        return self.forward()


_ABSURD = 1 << 62
"""A value that a counter cannot have reached: believing it would break the clocks of all who hear of it."""


Event = dict[str, Any]


class EventFactory:
    """Makes the events of one process, under the name by which monitors know it."""

    def __init__(self, name: str, clock: Clock, lamport: LamportClock) -> None:
        self._clock = clock
        self._lamport = lamport
        self._headers = {"hostname": name}
        self._sender = {"hostname": name, "utcoffset": hours_west_of_utc(), "pid": os.getpid()}

    def event(self, kind: str, fields: Event) -> Event:
        """``fields`` as an event that happens now; ``kind`` is ``task-received`` or the like."""
        fields.update(self._sender)
        fields["clock"] = self._lamport.forward()
        fields["timestamp"] = self._clock.now_ms() / 1000
        fields["type"] = kind
        return fields

    def message(self, body: Event | list[Event]) -> BusMessage:
        """One event, or a batch, ready to be sent."""
        return BusMessage(body, self._headers)
