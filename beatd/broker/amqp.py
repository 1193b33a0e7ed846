"""RabbitMQ: batches with publisher confirms, and nothing lost in silence."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from amqp.exceptions import AMQPError, ChannelError, FrameError, FrameSyntaxError
from kombu.exceptions import KombuError

from beatd.broker.declaring import depth_of
from beatd.broker.link import CONFIRMED, Blocked, Link
from beatd.broker.port import PAUSES, Address, Arguments, Parcel, Refused, no_arguments, parcel
from beatd.broker.rights import explained
from beatd.exceptions import BrokerError, BrokerRefused
from beatd.message import TaskMessage
from beatd.urls import BrokerUrl

log = logging.getLogger("beatd.broker")

_FAULTS_OF_ONE = (ChannelError, FrameError, FrameSyntaxError)
"""By which the broker answers to a single message that it cannot take."""


class AmqpPublisher:
    """Publishes through one :class:`~beatd.broker.link.Link`, replaced when it fails."""

    batch = 1_000

    def __init__(self, url: str, arguments: Arguments = no_arguments) -> None:
        self._url = BrokerUrl.parse(url)
        self._arguments = arguments
        self._place = self._url.shown
        self._lock = threading.Lock()
        self._owner = 0
        self._link: Link | None = None

    def publish(self, message: TaskMessage, *, queue: str, exchange: str = "", routing_key: str | None = None) -> None:
        one = parcel(message, queue, exchange, routing_key)
        for pause in PAUSES:
            try:
                refused = self.publish_many([one])
            except BrokerError as error:
                if pause is None:
                    raise
                log.warning("%s; trying again in %ss", error, pause, extra={"event": "publish_retrying"})
                time.sleep(pause)
                continue
            if refused:
                raise BrokerError(f"broker {self._place}: {one}: {refused[0].reason}")
            return

    def publish_many(self, parcels: Sequence[Parcel]) -> list[Refused]:
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

    def _deliver(self, parcels: Sequence[Parcel]) -> list[str]:
        link = self._open()
        try:
            return link.deliver(parcels)
        except _FAULTS_OF_ONE:
            # One of the parcels made the broker close the channel, and it does not say which: too large a message, an
            # exchange that may not be written to. One after the other, each stands for itself.
            self._drop()
            return [CONFIRMED if link.knows(each) else self._deliver_alone(each) for each in parcels]

    def _deliver_alone(self, each: Parcel) -> str:
        link = self._open()
        try:
            return link.deliver([each])[0]
        except _FAULTS_OF_ONE as error:
            self._drop()
            return str(error)

    def _open(self) -> Link:
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
                self._link = Link(self._url, self._place, self._arguments)
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
