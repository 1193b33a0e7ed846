"""The port through which messages leave, and how brokers are told apart and named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from beatd.message.protocol import TaskMessage
from beatd.urls import is_amqp, is_redis

__all__ = [
    "PAUSES",
    "PUBLISH_ATTEMPTS",
    "PUBLISH_TIMEOUT",
    "Address",
    "Arguments",
    "OutgoingMessage",
    "Publisher",
    "Refused",
    "is_amqp",
    "is_redis",
    "no_arguments",
    "outgoing_message",
]

PUBLISH_ATTEMPTS = 4
"""How often ``publish`` offers a message before :class:`~beatd.exceptions.BrokerError` (Celery: three retries)."""
PUBLISH_TIMEOUT = 5.0
"""Seconds to wait for a connection, and for the next sign of the broker while it confirms."""

PAUSES = (*(0.2 * attempt for attempt in range(PUBLISH_ATTEMPTS - 1)), None)
"""Seconds before each further attempt; None after the last."""


Arguments = Callable[[str], Mapping[str, Any]]
"""Of a queue's name: what RabbitMQ makes the queue with, if it is not there yet."""


def no_arguments(_queue: str) -> Mapping[str, Any]:
    """As Celery makes queues."""
    return {}


class Address(NamedTuple):
    """Where messages go: to what is bound to ``key`` of ``exchange``; without one, to the queue named ``key``."""

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
    """What the arguments of :meth:`Publisher.publish` say."""
    return OutgoingMessage(message, Address(routing_key or queue, exchange) if exchange else Address(queue))


class Refused(NamedTuple):
    """A parcel that the broker does not take, by its number in the batch: offering it again would change nothing."""

    number: int
    reason: str


class Publisher(Protocol):
    """Hands messages to a broker. Safe to share between threads, and usable after a fork."""

    batch: int
    """How many parcels :meth:`publish_many` should get at once: so many are sent again if nobody knows what arrived."""

    def publish(self, message: TaskMessage, *, queue: str, exchange: str = "", routing_key: str | None = None) -> None:
        """Put ``message`` into ``queue``, or into whatever is bound to ``routing_key`` of ``exchange``.

        Returns when the broker has it; raises :class:`~beatd.exceptions.BrokerError` if the broker refuses it, or after
        a bounded number of attempts.
        """

    def publish_many(self, parcels: Sequence[OutgoingMessage]) -> list[Refused]:
        """Hand over a batch, in order; task ids in it are unique.

        Returns when the broker has all of it but what is returned. Raises :class:`~beatd.exceptions.BrokerError` when
        it cannot be known what the broker has; offer the same batch again then. One attempt of bounded length.
        """

    def bound(self, address: Address) -> list[str] | None:
        """The queues that get what is sent to an exchange, or None where only the broker knows. Raises as ``publish``.

        On Redis, producers look them up and push to each; an exchange is no more than that table.
        """

    def depth(self, queue: str) -> int:
        """How many messages wait in ``queue``; 0 for one that does not exist. Raises as ``publish`` does."""

    def close(self) -> None:
        """Close the connections; a later ``publish`` opens them again."""
