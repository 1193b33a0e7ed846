"""Queues on Redis, in kombu's layout: lists that producers push to on the left and consumers pop on the right."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

from redis import Redis
from redis.exceptions import RedisError

from beatd.broker.bindings import Binding, log_not_bound
from beatd.broker.publisher import Address, OutgoingMessage, Refused, Waiting, outgoing_message, publish_with_retries
from beatd.broker.redis_keys import PRIORITY_STEPS, SEPARATOR, RedisKeys, binding_member
from beatd.exceptions import BrokerError, BrokerRefused, StoreError, StoreRefused
from beatd.message.protocol import TaskMessage, envelope
from beatd.store.client import connect, server_of, store_error, translate_errors
from beatd.urls import redis_url

log = logging.getLogger("beatd.broker")


def bind(client: Redis, bindings: Iterable[Binding], keys: RedisKeys) -> None:
    """Add bindings to kombu's tables, in which producers look for the queues of an exchange; a refusal is logged."""
    for one in bindings:
        member = binding_member(one.key, one.pattern, one.queue)
        try:
            with translate_errors(client):
                client.sadd(keys.bindings(one.exchange), member)
                client.sadd(keys.permanent_bindings(one.exchange), member)
        except StoreRefused as error:
            log_not_bound(one, error)


class RedisPublisher:
    """Publishes natively: an ``LPUSH`` of kombu's envelope."""

    batch = 1_000

    def __init__(self, url: str) -> None:
        self._client = connect(redis_url(url), name="beatd-publisher", role="broker")
        self._keys = RedisKeys.of(url)
        self._unbound: set[Address] = set()
        """Addresses that a warning has named as unbound."""

    def publish(self, message: TaskMessage, *, queue: str, exchange: str = "", routing_key: str | None = None) -> None:
        outgoing = outgoing_message(message, queue, exchange, routing_key)
        publish_with_retries(lambda: self._push([outgoing]))

    def publish_many(self, messages: Sequence[OutgoingMessage]) -> list[Refused]:
        with _broker_errors():
            return self._push_each(messages)

    def depth(self, queue: str) -> int:
        with _broker_errors(), translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for key in self._keys.queues(queue):
                pipeline.llen(key)
            return sum(pipeline.execute())

    def waiting(self, queues: Sequence[str]) -> list[Waiting]:
        with _broker_errors(), translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for key in chain.from_iterable(map(self._keys.queues, queues)):
                pipeline.llen(key)
                pipeline.lindex(key, -1)
            answers = pipeline.execute(raise_on_error=False)
            lengths, ends = answers[::2], answers[1::2]
            if error := next((one for one in lengths if isinstance(one, RedisError)), None):
                raise error
        step = len(PRIORITY_STEPS)
        of_queues = (slice(first, first + step) for first in range(0, len(lengths), step))
        # a user without the right to look into a queue gets its length
        return [Waiting(sum(lengths[own]), [raw for raw in ends[own] if isinstance(raw, bytes)]) for own in of_queues]

    def close(self) -> None:
        self._client.close()

    def bound(self, address: Address) -> list[str]:
        with _broker_errors():
            return self._bound(address)

    def _bound(self, address: Address) -> list[str]:
        """Return the queues that consumers have bound: kombu keeps one set for each exchange.

        kombu's producers drop a message to an unbound key. Here it goes to the queue named like the key, from which
        workers that bind nothing consume.
        """
        if not address.exchange:
            return [address.key]
        with translate_errors(self._client):
            members = self._client.smembers(self._keys.bindings(address.exchange))
        bound = [_text(member).split(SEPARATOR) for member in members]
        if any(len(parts) != 3 for parts in bound):
            reason = 'its bindings are written with another separator (broker_transport_options: "sep")'
            raise BrokerRefused(f"{address}: {reason}; name a queue instead of the exchange")
        if queues := sorted(queue for key, pattern, queue in bound if _fits(address.key, key, pattern)):
            return queues
        if address not in self._unbound:
            self._unbound.add(address)
            extra = {"event": "exchange_unbound", "exchange": address.exchange, "routing_key": address.key}
            log.warning("Nothing is bound to %s; queue %r gets its messages", address, address.key, extra=extra)
        return [address.key]

    def _push(self, messages: Sequence[OutgoingMessage]) -> None:
        """Push all messages or none: one ``LPUSH`` for each list."""
        with _broker_errors():
            queues = {address: self._bound(address) for address in {outgoing.to for outgoing in messages}}
            lists = self._lists(messages, queues)
            with translate_errors(self._client), self._client.pipeline(transaction=len(lists) > 1) as pipeline:
                for key, numbered in lists.items():
                    pipeline.lpush(key, *(raw for _, raw in numbered))
                pipeline.execute()

    def _push_each(self, messages: Sequence[OutgoingMessage]) -> list[Refused]:
        """Push to each list; returns the messages for lists that refuse, or for exchanges that cannot be looked up."""
        refused: dict[int, str] = {}
        queues: dict[Address, list[str]] = {}
        for address in {outgoing.to for outgoing in messages}:
            try:
                queues[address] = self._bound(address)
            except (StoreRefused, BrokerRefused) as error:
                reason = str(error)
                refused |= {number: reason for number, outgoing in enumerate(messages) if outgoing.to == address}
        lists = self._lists(messages, queues)
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for key, numbered in lists.items():
                pipeline.lpush(key, *(raw for _, raw in numbered))
            answers = pipeline.execute(raise_on_error=False)
        for numbered, answer in zip(lists.values(), answers, strict=True):
            if isinstance(answer, RedisError):
                cause = store_error(answer, server_of(self._client))
                if not isinstance(cause, StoreRefused):
                    raise cause
                refused |= {number: str(_broker_error(cause)) for number, _ in numbered}
        return [Refused(number, reason) for number, reason in sorted(refused.items())]

    def _lists(
        self, messages: Sequence[OutgoingMessage], queues: Mapping[Address, Sequence[str]]
    ) -> dict[str, list[tuple[int, bytes]]]:
        """Return envelopes by list, each with the number of its message; without messages whose address is unknown."""
        lists: dict[str, list[tuple[int, bytes]]] = {}
        for number, (message, to) in enumerate(messages):
            raw = envelope(message, queue=to.key, exchange=to.exchange)
            for queue in queues.get(to, ()):
                lists.setdefault(self._keys.queue(queue, message.properties.get("priority")), []).append((number, raw))
        return lists


def _fits(routing_key: str, key: str, pattern: str) -> bool:
    """True if a binding takes the routing key: kombu stores a regular expression for topics, nothing for direct."""
    try:
        return bool(re.match(pattern, routing_key)) if pattern else key == routing_key
    except re.error as error:
        raise BrokerRefused(f"a binding has the pattern {pattern!r}, which is none: {error}") from None


@contextmanager
def _broker_errors() -> Iterator[None]:
    """Raise the broker's errors in place of the store's: this Redis is the broker here."""
    try:
        yield
    except StoreError as error:
        raise _broker_error(error) from error


def _broker_error(error: StoreError) -> BrokerError:
    kind = BrokerRefused if isinstance(error, StoreRefused) else BrokerError
    return kind(str(error))


def _text(member: bytes | str) -> str:
    return member.decode(errors="backslashreplace") if isinstance(member, bytes) else member
