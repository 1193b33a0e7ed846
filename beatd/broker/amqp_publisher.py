"""The publisher for RabbitMQ: batches with publisher confirms, and nothing lost in silence.

Messages are written without waiting and confirmed together: one by one, each would cost a way to the broker and back.
Every message is ``mandatory``: one that no queue gets comes back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import kombu as _kombu
from amqp.exceptions import AMQPError, ChannelError, FrameError, FrameSyntaxError
from kombu.exceptions import KombuError

from beatd.broker import amqp_codec
from beatd.broker.amqp_queues import depth_of, has_exchange, have_queue
from beatd.broker.publisher import (
    PAUSES,
    PUBLISH_TIMEOUT,
    Address,
    Arguments,
    OutgoingMessage,
    Refused,
    no_arguments,
    outgoing_message,
)
from beatd.broker.rights import explained
from beatd.clock import monotonic, sleep
from beatd.exceptions import BrokerError, BrokerRefused, MessageError
from beatd.message.protocol import TaskMessage
from beatd.urls import BrokerUrl

log = logging.getLogger("beatd.broker")

kombu: Any = _kombu  # only half of it is typed

CONFIRMED = ""
"""The outcome of a message that the broker has; any other outcome is the reason why it does not."""

_BLOCKED = "it takes no messages for now (short of memory or disk space; its log says more)"
_BATCH_TIMEOUT = 30.0
"""Seconds for the confirmation of a whole batch, however steadily it comes."""
_WRITE_AT_ONCE = 256 * 1024
"""Bytes of messages that are gathered before they are written to the socket."""


class Blocked(BrokerError):
    """The broker takes no messages for now, by its own decision; it has those that were sent before it said so."""


class ConfirmChannel:
    """A connection with one channel in confirm mode. After any error but :class:`Blocked` it is of no more use."""

    def __init__(self, url: str | BrokerUrl, place: str, arguments: Arguments = no_arguments) -> None:
        """Connect, to the first host that answers. Raises what kombu and py-amqp raise."""
        self._place = place
        self._arguments = arguments
        self._blocked = False
        parsed = BrokerUrl.parse(url)
        self._kombu = kombu.Connection(
            parsed.bare,
            **{"connect_timeout": PUBLISH_TIMEOUT, **parsed.options},
            transport_options={
                "read_timeout": PUBLISH_TIMEOUT,
                "write_timeout": PUBLISH_TIMEOUT,
                "client_properties": {"connection_name": "beatd"},
                "on_blocked": self._on_blocked,
                "on_unblocked": self._on_unblocked,
            },
        )
        self._kombu.ensure_connection(
            max_retries=parsed.bare.count(";"), interval_start=0, reraise_as_library_errors=False
        )
        self.connection: Any = self._kombu.connection
        self._channel = self._open_channel()
        self._gathered = bytearray()
        """Messages that are not written to the socket yet: a batch is a few large writes."""
        self._sent = 0
        self._under_way: dict[int, str] = {}
        """Task ids by delivery tag, in the order in which they were sent."""
        self._outcomes: dict[str, str] = {}
        """By task id, of what was sent on this connection and not asked for yet."""
        self._ready: set[Address] = set()
        self._proven = False

    def _open_channel(self) -> Any:
        try:
            channel = self.connection.channel()
            channel.confirm_select()
        except BaseException:
            self.drop()
            raise
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        return channel

    def close(self) -> None:
        """End the connection with a word to the broker, unless it does not listen."""
        if not self._blocked and not self._under_way:
            self.connection.close()
        self.drop()

    def drop(self) -> None:
        """End the connection without a farewell that a broker in trouble might not answer."""
        self.connection.collect()  # does nothing the second time

    def listen(self) -> None:
        """Read what the broker has said meanwhile: that it closes, blocks or unblocks the connection.

        Raises as :meth:`deliver` does.
        """
        self._read(0)
        deadline = monotonic() + PUBLISH_TIMEOUT
        while self._blocked:
            if (left := deadline - monotonic()) <= 0:
                raise Blocked(_BLOCKED)
            self._read(left)

    def knows(self, parcel: OutgoingMessage) -> bool:
        """Whether the broker has confirmed the parcel, and nobody has been told yet."""
        return self._outcomes.get(parcel.message.id) == CONFIRMED

    def deliver(self, parcels: Sequence[OutgoingMessage]) -> list[str]:
        """Send what is not under way already, wait for the broker, and return each parcel's outcome.

        Raises :class:`Blocked`, ``OSError`` or ``AMQPError``, and a ``ChannelError`` if one of the parcels is the
        reason.
        """
        self._offer(parcels)
        again = [parcel for parcel in parcels if self._outcomes[parcel.message.id] != CONFIRMED]
        if again:  # a queue deleted meanwhile, or one that was full for a moment
            for parcel in again:
                self._ready.discard(parcel.to)
                self._outcomes.pop(parcel.message.id, None)
            self._offer(again)
        outcomes = [self._outcomes[parcel.message.id] for parcel in parcels]
        for parcel in parcels:
            self._outcomes.pop(parcel.message.id, None)
        return outcomes

    def _offer(self, parcels: Sequence[OutgoingMessage]) -> None:
        """Bring it about that every parcel has an outcome. On a new connection the first goes ahead alone.

        A broker that fails, or stops reading, as soon as it gets something, then has one message to get twice at most.
        """
        known = self._outcomes.keys() | self._under_way.values()
        fresh = list({one.message.id: one for one in parcels if one.message.id not in known}.values())
        if not self._proven:
            for parcel in fresh[:1]:
                self._send(parcel)
            self._await_confirms()
            self._proven = True
            fresh = fresh[1:]
        for parcel in fresh:
            self._send(parcel)
        self._await_confirms()

    def _send(self, parcel: OutgoingMessage) -> None:
        try:
            data = amqp_codec.publish(parcel, self._channel.channel_id, self.connection.frame_max)
            reason = self._unready(parcel)
        except MessageError as error:
            reason = str(error)
        if reason is not None:
            self._outcomes[parcel.message.id] = reason
            return
        self._sent += 1
        self._under_way[self._sent] = parcel.message.id
        self._gathered += data
        if len(self._gathered) > _WRITE_AT_ONCE:
            self._write()

    def _unready(self, parcel: OutgoingMessage) -> str | None:
        """Look after queue and exchange the first time that they are used here; returns why that failed."""
        if parcel.to in self._ready:
            return None
        if not parcel.to.exchange:
            name, priority = parcel.to.key, parcel.message.properties.get("priority") or 0
            have_queue(self.connection, name, priority=priority, arguments=self._arguments(name))
        elif not has_exchange(self.connection, parcel.to.exchange):
            return "there is no such exchange"
        self._ready.add(parcel.to)
        return None

    def _write(self) -> None:
        if self._gathered:
            data, self._gathered = self._gathered, bytearray()
            self.connection.transport.write(data)

    def _await_confirms(self) -> None:
        """Until nothing is under way; at most :data:`PUBLISH_TIMEOUT` without progress."""
        self._write()
        begin = progress = monotonic()
        while self._under_way:
            before = len(self._under_way)
            left = min(progress + PUBLISH_TIMEOUT, begin + _BATCH_TIMEOUT) - monotonic()
            if left <= 0 and self._blocked:
                raise Blocked(_BLOCKED)
            if left <= 0:
                raise TimeoutError(f"no confirmation of {len(self._under_way)} messages in time")
            self._read(left)
            if len(self._under_way) < before:
                progress = monotonic()

    def _read(self, seconds: float) -> None:
        try:
            self.connection.drain_events(timeout=seconds)
            while seconds == 0:
                self.connection.drain_events(timeout=0)
        except (TimeoutError, BlockingIOError):
            pass  # nothing more to read

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple, CONFIRMED)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple, "the broker said no (a full queue that rejects, or a queue that failed)")

    def _settle(self, tag: int, multiple: bool, outcome: str) -> None:
        settled = list(takewhile(lambda one: one <= tag, self._under_way)) if multiple else [tag]
        for one in settled:
            task_id = self._under_way.pop(one, None)
            if task_id is not None:
                self._outcomes.setdefault(task_id, outcome)  # a message that came back is acknowledged, too

    def _on_return(self, error: AMQPError, _exchange: str, _routing_key: str, message: Any) -> None:
        self._outcomes[message.properties["correlation_id"]] = f"no queue gets it ({error.reply_text})"

    def _on_blocked(self, _reason: str) -> None:  # py-amqp does not read the reason
        self._blocked = True
        log.warning("Broker %s: %s", self._place, _BLOCKED, extra={"event": "broker_blocked"})

    def _on_unblocked(self) -> None:
        self._blocked = False
        log.info("Broker %s takes messages again", self._place, extra={"event": "broker_unblocked"})


_FAULTS_OF_ONE = (ChannelError, FrameError, FrameSyntaxError)
"""By which the broker answers to a single message that it cannot take."""


class AmqpPublisher:
    """Publishes through one :class:`~beatd.broker.amqp_publisher.ConfirmChannel`, replaced when it fails."""

    batch = 1_000

    def __init__(self, url: str, arguments: Arguments = no_arguments) -> None:
        self._url = BrokerUrl.parse(url)
        self._arguments = arguments
        self._place = self._url.shown
        self._lock = threading.Lock()
        self._owner = 0
        self._link: ConfirmChannel | None = None

    def publish(self, message: TaskMessage, *, queue: str, exchange: str = "", routing_key: str | None = None) -> None:
        one = outgoing_message(message, queue, exchange, routing_key)
        for pause in PAUSES:
            try:
                refused = self.publish_many([one])
            except BrokerError as error:
                if pause is None:
                    raise
                log.warning("%s; trying again in %ss", error, pause, extra={"event": "publish_retrying"})
                sleep(pause)
                continue
            if refused:
                raise BrokerError(f"broker {self._place}: {one}: {refused[0].reason}")
            return

    def publish_many(self, parcels: Sequence[OutgoingMessage]) -> list[Refused]:
        with self._lock, self._border():
            outcomes = self._deliver(parcels)
        return [Refused(number, reason) for number, reason in enumerate(outcomes) if reason != CONFIRMED]

    def bound(self, address: Address) -> None:  # noqa: ARG002 - AMQP has no question for that
        return None

    def depth(self, queue: str) -> int:
        with self._lock, self._border():
            try:
                return depth_of(self._open().connection, queue)
            except ChannelError as error:
                raise BrokerRefused(f"broker {self._place}: queue {queue!r}: {error}") from error

    def close(self) -> None:
        with self._lock:
            link, self._link = self._link, None
            if link is not None and self._owner == os.getpid():
                with contextlib.suppress(AMQPError, OSError):
                    link.close()

    def _deliver(self, parcels: Sequence[OutgoingMessage]) -> list[str]:
        link = self._open()
        try:
            return link.deliver(parcels)
        except _FAULTS_OF_ONE:
            # One of the parcels made the broker close the channel, and it does not say which: too large a message, an
            # exchange that may not be written to. One after the other, each stands for itself.
            self._drop()
            return [CONFIRMED if link.knows(each) else self._deliver_alone(each) for each in parcels]

    def _deliver_alone(self, each: OutgoingMessage) -> str:
        link = self._open()
        try:
            return link.deliver([each])[0]
        except _FAULTS_OF_ONE as error:
            self._drop()
            return str(error)

    def _open(self) -> ConfirmChannel:
        """A link that was alive just now. One that was opened before a fork belongs to the parent."""
        if self._link is not None and self._owner != os.getpid():
            self._link = None
        if self._link is not None:
            try:
                self._link.listen()
            except (AMQPError, OSError):
                self._drop()
        if self._link is None:
            self._owner = os.getpid()
            try:
                self._link = ConfirmChannel(self._url, self._place, self._arguments)
            except ChannelError as error:  # how py-amqp says that the password is wrong
                raise BrokerError(f"broker {self._place}: {error}") from error
        return self._link

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.drop()

    @contextmanager
    def _border(self) -> Iterator[None]:
        """Let beatd's errors out instead of kombu's; a link that failed is closed, one that is blocked is kept."""
        try:
            yield
        except Blocked as error:
            raise Blocked(f"broker {self._place}: {error}") from None
        except (AMQPError, KombuError, OSError) as error:
            self._drop()
            raise BrokerError(f"broker {self._place}: {explained(error)}") from error
