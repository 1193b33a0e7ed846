"""Publisher: the port of all brokers, and its retry policy while a broker is down."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from beatd.clock import Backoff, sleep
from beatd.exceptions import BrokerError, BrokerRefused
from beatd.message.protocol import TaskMessage

log = logging.getLogger("beatd.broker")

PUBLISH_ATTEMPTS = 4
"""Attempts of ``publish`` before it raises :class:`~beatd.exceptions.BrokerError` (Celery: three retries)."""
PUBLISH_TIMEOUT = 5.0
"""Seconds to wait for a connection, and for the next confirmation."""
_RETRY_FIRST, _RETRY_LONGEST = 0.1, 1.0
"""Seconds before the first further attempt, and between two at most."""


class RetryPolicy(NamedTuple):
    """Celery's ``retry_policy``: further attempts (None: without a limit), and the pauses before them in seconds."""

    max_retries: int | None
    interval_start: float
    interval_step: float
    interval_max: float

    def pauses(self) -> Iterator[float]:
        """Yield the pause before each further attempt."""
        for number in itertools.count():
            if self.max_retries is not None and number >= self.max_retries:
                return
            yield max(0.0, min(self.interval_start + number * self.interval_step, self.interval_max))


def publish_with_retries(attempt: Callable[[], None], policy: RetryPolicy | None = None) -> None:
    """Publish while the broker is down by a policy; default: :data:`PUBLISH_ATTEMPTS` with exponential back-off.

    A broker that refuses (:class:`~beatd.exceptions.BrokerRefused`) is not asked again. Only an app's ``publish``
    retries here; the daemon retries whole batches by itself, see :mod:`beatd.beat.delivery`.
    """
    pauses = policy.pauses() if policy is not None else _growing_pauses()
    while True:
        try:
            return attempt()
        except BrokerRefused:
            raise
        except BrokerError as error:
            pause = next(pauses, None)
            if pause is None:
                raise
            log.warning("%s; trying again in %gs", error, pause, extra={"event": "publish_retrying"})
            sleep(pause)


def _growing_pauses() -> Iterator[float]:
    backoff = Backoff(_RETRY_FIRST, _RETRY_LONGEST)
    while backoff.attempts < PUBLISH_ATTEMPTS - 1:
        yield backoff.failed()


Arguments = Callable[[str], Mapping[str, Any]]
"""Function from a queue's name to the arguments with which RabbitMQ declares it, if it is missing."""


def no_arguments(_queue: str) -> Mapping[str, Any]:
    """Return the arguments of Celery's own queues: none."""
    return {}


class Address(NamedTuple):
    """Address: the queues bound to ``key`` of ``exchange``; without an exchange, the queue named ``key``."""

    key: str
    exchange: str = ""

    def __str__(self) -> str:
        return f"exchange {self.exchange!r}, routing key {self.key!r}" if self.exchange else f"queue {self.key!r}"


class OutgoingMessage(NamedTuple):
    """A message and its address."""

    message: TaskMessage
    to: Address

    def __str__(self) -> str:
        return f"message {self.message.id} ({self.message.headers.get('task')}) to {self.to}"


def outgoing_message(message: TaskMessage, queue: str, exchange: str, routing_key: str | None) -> OutgoingMessage:
    """Return the outgoing message for the arguments of :meth:`Publisher.publish`."""
    return OutgoingMessage(message, Address(routing_key or queue, exchange) if exchange else Address(queue))


class Refused(NamedTuple):
    """A message that the broker refuses, by its number in the batch: sending it again would change nothing."""

    number: int
    reason: str


class Waiting(NamedTuple):
    """Messages that wait in a queue, and the envelopes that are taken next; none where only the broker knows them."""

    messages: int
    next: Sequence[bytes] = ()


class Publisher(Protocol):
    """Publishes to a broker. Safe to share between threads, and usable after a fork."""

    batch: int
    """Messages that :meth:`publish_many` should get at once: so many are sent again when their state is unknown."""

    def publish(self, message: TaskMessage, *, queue: str, exchange: str = "", routing_key: str | None = None) -> None:
        """Put ``message`` into ``queue``, or into whatever is bound to ``routing_key`` of ``exchange``.

        Returns when the broker has it; raises :class:`~beatd.exceptions.BrokerError` if the broker refuses it, or after
        a bounded number of attempts.
        """

    def publish_many(self, messages: Sequence[OutgoingMessage]) -> list[Refused]:
        """Publish a batch, in order; task ids in it are unique.

        Returns the refused messages, when the broker has all others. Raises :class:`~beatd.exceptions.BrokerError` when
        their state is unknown; publish the same batch again then. One attempt of bounded length.
        """

    def bound(self, address: Address) -> list[str] | None:
        """Return the queues bound to an address, or None where only the broker knows them. Raises as ``publish``.

        On Redis, producers look them up and push to each; an exchange is no more than that table.
        """

    def depth(self, queue: str) -> int:
        """Return the number of messages in ``queue``; 0 for one that does not exist. Raises as ``publish`` does."""

    def waiting(self, queues: Sequence[str]) -> list[Waiting]:
        """Return what waits in each of ``queues``. Raises as ``publish`` does."""

    def close(self) -> None:
        """Close the connections; a later ``publish`` opens them again."""
