"""Publisher for RabbitMQ: batches with publisher confirms.

Messages are written without waiting and confirmed together: one by one, each would cost a round trip. Every message is
``mandatory``: one that no queue gets is returned.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import kombu as _kombu
from amqp.exceptions import AccessRefused, AMQPError, ChannelError, FrameError, FrameSyntaxError
from kombu.exceptions import KombuError

from beatd.broker import amqp_codec
from beatd.broker.amqp_queues import depth_of, ensure_queue, has_exchange
from beatd.broker.publisher import (
    PUBLISH_TIMEOUT,
    Address,
    Arguments,
    OutgoingMessage,
    Refused,
    Waiting,
    no_arguments,
    outgoing_message,
    publish_with_retries,
)
from beatd.broker.rights import explained
from beatd.clock import monotonic
from beatd.exceptions import BrokerError, BrokerRefused, MessageError
from beatd.message.protocol import TaskMessage
from beatd.urls import BrokerUrl

log = logging.getLogger("beatd.broker")

kombu: Any = _kombu  # only half of it is typed

CONFIRMED = ""
"""Outcome of a message that the broker has; any other outcome is the reason why it has not."""

_BLOCKED = "it takes no messages for now (short of memory or disk space; its log says more)"
_BATCH_TIMEOUT = 30.0
"""Seconds for the confirmation of a whole batch, even if confirmations keep coming."""
_WRITE_AT_ONCE = 256 * 1024
"""Bytes of messages that are buffered before they are written to the socket."""

_Key = tuple[str, str]
"""A message by its task id and how often the task was retried: each retry is a message under the same id."""

_Outcomes = dict[_Key, str]
"""Outcomes of messages that were sent and that :meth:`ConfirmChannel.publish` has not returned yet."""


def _key(headers: Mapping[str, Any]) -> _Key:
    return str(headers.get("id")), str(headers.get("retries"))


class Blocked(BrokerError):
    """Back-pressure: the broker takes no messages for now. It has all that were sent before."""


class ConfirmChannel:
    """Connection with one channel in confirm mode. After any error but :class:`Blocked` it cannot be used again."""

    def __init__(
        self, url: str | BrokerUrl, place: str, arguments: Arguments = no_arguments, outcomes: _Outcomes | None = None
    ) -> None:
        """Connect, to the first host that answers. Raises what kombu and py-amqp raise.

        ``outcomes`` are those of a channel that failed: what it had confirmed is not sent again.
        """
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
        self._buffer = bytearray()
        """Messages that are not written to the socket yet: a batch is a few large writes."""
        self._sent = 0
        self._unconfirmed: dict[int, _Key] = {}
        """Messages by delivery tag, in the order in which they were sent."""
        self._outcomes = {} if outcomes is None else outcomes
        self._checked: set[Address] = set()
        self._first_confirmed = False

    def _open_channel(self) -> Any:
        try:
            channel = self.connection.channel()
            channel.confirm_select()
        except BaseException:
            self.abort()
            raise
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        return channel

    def close(self) -> None:
        """Close the connection in order, unless the broker does not read."""
        if not self._blocked and not self._unconfirmed:
            self.connection.close()
        self.abort()

    def abort(self) -> None:
        """Close the socket at once: a broker in trouble might not answer a close."""
        self.connection.collect()  # does nothing the second time

    def poll(self) -> None:
        """Read pending frames: the broker may have closed, blocked or unblocked the connection.

        Raises as :meth:`publish` does.
        """
        self._read(0)
        deadline = monotonic() + PUBLISH_TIMEOUT
        while self._blocked:
            if (left := deadline - monotonic()) <= 0:
                raise Blocked(_BLOCKED)
            self._read(left)

    def publish(self, messages: Sequence[OutgoingMessage]) -> list[str]:
        """Send messages that were not sent before, wait for confirms, and return the outcome of each message.

        Raises :class:`Blocked`, ``OSError`` or ``AMQPError``, and a ``ChannelError`` if one of the messages is the
        reason.
        """
        batch = {_key(outgoing.message.headers): outgoing for outgoing in messages}
        self._publish_unsent(batch)
        again = {key: outgoing for key, outgoing in batch.items() if self._outcomes[key] != CONFIRMED}
        if again:  # a queue deleted meanwhile, or one that was full for a moment
            for key, outgoing in again.items():
                self._checked.discard(outgoing.to)
                self._outcomes.pop(key, None)
            self._publish_unsent(again)
        outcomes = [self._outcomes[_key(outgoing.message.headers)] for outgoing in messages]
        for key in batch:
            self._outcomes.pop(key, None)
        return outcomes

    def _publish_unsent(self, batch: Mapping[_Key, OutgoingMessage]) -> None:
        """Send and await confirms, until every message has an outcome. On a new connection the first is sent alone.

        A broker that fails, or stops reading, at the first message then gets at most one message twice.
        """
        known = self._outcomes.keys() | self._unconfirmed.values()
        fresh = [(key, outgoing) for key, outgoing in batch.items() if key not in known]
        if not self._first_confirmed:
            for key, outgoing in fresh[:1]:
                self._send(key, outgoing)
            self._await_confirms()
            self._first_confirmed = True
            fresh = fresh[1:]
        for key, outgoing in fresh:
            self._send(key, outgoing)
        self._await_confirms()

    def _send(self, key: _Key, outgoing: OutgoingMessage) -> None:
        try:
            data = amqp_codec.publish(outgoing, self._channel.channel_id, self.connection.frame_max)
            reason = self._check_address(outgoing)
        except MessageError as error:
            reason = str(error)
        if reason is not None:
            self._outcomes[key] = reason
            return
        self._sent += 1
        self._unconfirmed[self._sent] = key
        self._buffer += data
        if len(self._buffer) > _WRITE_AT_ONCE:
            self._write()

    def _check_address(self, outgoing: OutgoingMessage) -> str | None:
        """Declare the queue, or look up the exchange, at its first use; returns the reason if that failed."""
        if outgoing.to in self._checked:
            return None
        if not outgoing.to.exchange:
            name, priority = outgoing.to.key, outgoing.message.properties.get("priority") or 0
            ensure_queue(self.connection, name, priority=priority, arguments=self._arguments(name))
        elif not has_exchange(self.connection, outgoing.to.exchange):
            return "there is no such exchange"
        self._checked.add(outgoing.to)
        return None

    def _write(self) -> None:
        if self._buffer:
            data, self._buffer = self._buffer, bytearray()
            self.connection.transport.write(data)

    def _await_confirms(self) -> None:
        """Wait until all messages are confirmed; at most :data:`PUBLISH_TIMEOUT` without progress."""
        self._write()
        begin = progress = monotonic()
        while self._unconfirmed:
            before = len(self._unconfirmed)
            left = min(progress + PUBLISH_TIMEOUT, begin + _BATCH_TIMEOUT) - monotonic()
            if left <= 0 and self._blocked:
                raise Blocked(_BLOCKED)
            if left <= 0:
                raise TimeoutError(f"no confirmation of {len(self._unconfirmed)} messages in time")
            self._read(left)
            if len(self._unconfirmed) < before:
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
        self._settle(tag, multiple, "the broker rejected it (a full queue, or a queue that failed)")

    def _settle(self, tag: int, multiple: bool, outcome: str) -> None:
        tags = list(takewhile(lambda earlier: earlier <= tag, self._unconfirmed)) if multiple else [tag]
        for confirmed in tags:
            key = self._unconfirmed.pop(confirmed, None)
            if key is not None:
                self._outcomes.setdefault(key, outcome)  # a returned message is confirmed, too

    def _on_return(self, error: AMQPError, _exchange: str, _routing_key: str, message: Any) -> None:
        self._outcomes[_key(message.headers)] = f"no queue gets it ({error.reply_text})"

    def _on_blocked(self, _reason: str) -> None:  # py-amqp does not read the reason
        self._blocked = True
        log.warning("Broker %s: %s", self._place, _BLOCKED, extra={"event": "broker_blocked"})

    def _on_unblocked(self) -> None:
        self._blocked = False
        log.info("Broker %s takes messages again", self._place, extra={"event": "broker_unblocked"})


_MESSAGE_ERRORS = (ChannelError, FrameError, FrameSyntaxError)
"""Errors by which the broker rejects a single message."""


class AmqpPublisher:
    """Publishes through one :class:`ConfirmChannel`, which is replaced when it fails."""

    batch = 1_000

    def __init__(self, url: str, arguments: Arguments = no_arguments) -> None:
        self._url = BrokerUrl.parse(url)
        self._arguments = arguments
        self._place = self._url.shown
        self._lock = threading.Lock()
        self._owner = 0
        self._channel: ConfirmChannel | None = None
        self._outcomes: _Outcomes = {}

    def publish(self, message: TaskMessage, *, queue: str, exchange: str = "", routing_key: str | None = None) -> None:
        outgoing = outgoing_message(message, queue, exchange, routing_key)
        publish_with_retries(lambda: self._publish(outgoing))

    def _publish(self, outgoing: OutgoingMessage) -> None:
        if refused := self.publish_many([outgoing]):
            raise BrokerRefused(f"broker {self._place}: {outgoing}: {refused[0].reason}")

    def publish_many(self, messages: Sequence[OutgoingMessage]) -> list[Refused]:
        with self._lock, self._translate_errors():
            if self._channel is None:  # the last one failed: the same batch comes again, or its outcomes are not needed
                batch = {_key(outgoing.message.headers) for outgoing in messages}
                self._outcomes = {key: outcome for key, outcome in self._outcomes.items() if key in batch}
            outcomes = self._publish_batch(messages)
        return [Refused(number, reason) for number, reason in enumerate(outcomes) if reason != CONFIRMED]

    def bound(self, address: Address) -> None:  # noqa: ARG002 - AMQP cannot list bindings
        return None

    def depth(self, queue: str) -> int:
        with self._lock, self._translate_errors():
            try:
                return depth_of(self._open().connection, queue)
            except ChannelError as error:
                raise BrokerRefused(f"broker {self._place}: queue {queue!r}: {error}") from error

    def waiting(self, queues: Sequence[str]) -> list[Waiting]:
        return [Waiting(self.depth(queue)) for queue in queues]  # a look at a message would take it out

    def close(self) -> None:
        with self._lock:
            channel, self._channel = self._channel, None
            if channel is not None and self._owner == os.getpid():
                with contextlib.suppress(AMQPError, OSError):
                    channel.close()

    def _publish_batch(self, messages: Sequence[OutgoingMessage]) -> list[str]:
        channel = self._open()
        try:
            return channel.publish(messages)
        except _MESSAGE_ERRORS:
            # One of the messages made the broker close the channel, and it does not say which: too large a message, an
            # exchange without write permission. So each is sent alone.
            self._abort()
            denied: dict[Address, str] = {}
            return [self._publish_alone(outgoing, denied) for outgoing in messages]

    def _publish_alone(self, outgoing: OutgoingMessage, denied: dict[Address, str]) -> str:
        """Publish a message; returns its outcome.

        ``denied``: addresses that this user may not write to, and why. Each further message there would cost a
        connection, for which the others wait.
        """
        if outgoing.to in denied:
            return denied[outgoing.to]
        channel = self._open()
        try:
            return channel.publish([outgoing])[0]
        except _MESSAGE_ERRORS as error:
            self._abort()
            if isinstance(error, AccessRefused):
                denied[outgoing.to] = str(error)
            return str(error)

    def _open(self) -> ConfirmChannel:
        """Return a channel that was alive just now. One that was opened before a fork belongs to the parent."""
        if self._channel is not None and self._owner != os.getpid():
            self._channel = None
        if self._channel is not None:
            try:
                self._channel.poll()
            except (AMQPError, OSError):
                self._abort()
        if self._channel is None:
            self._owner = os.getpid()
            try:
                self._channel = ConfirmChannel(self._url, self._place, self._arguments, self._outcomes)
            except ChannelError as error:  # py-amqp: wrong password
                raise BrokerError(f"broker {self._place}: {explained(error)}") from error
        return self._channel

    def _abort(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.abort()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise beatd's errors in place of kombu's; a channel that failed is closed, one that is blocked is kept."""
        try:
            yield
        except Blocked as error:
            raise Blocked(f"broker {self._place}: {error}") from None
        except (AMQPError, KombuError, OSError) as error:
            self._abort()
            raise BrokerError(f"broker {self._place}: {explained(error)}") from error
