"""Queues on Redis, as kombu lays them out: lists that producers push to on the left and consumers pop on the right."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping, Sequence

from redis.exceptions import RedisError

from beatd.broker.publisher import PAUSES, Address, OutgoingMessage, Refused, outgoing_message
from beatd.clock import sleep
from beatd.exceptions import BrokerError, BrokerRefused, StoreError, StoreRefused, StoreUnavailable
from beatd.message.protocol import TaskMessage, envelope
from beatd.store.client import connect, place_of, translate_errors, translated
from beatd.urls import redis_url

log = logging.getLogger("beatd.broker")

PRIORITY_STEPS = (0, 3, 6, 9)
"""A queue is one list per step; 0 is taken first (kombu's Redis transport, ``priority_steps``)."""
_SEPARATOR = "\x06\x16"

_RETRYING = {"event": "publish_retrying"}


@functools.lru_cache(maxsize=4096)
def queue_key(queue: str, priority: int | None = 0) -> str:
    """The list that a message of this priority belongs to: the largest step that is not above it.

    Priorities below 0 count as 0, above 9 as 9. Raises UnicodeEncodeError for a name that is no UTF-8.
    """
    str(queue).encode()
    step = max(step for step in PRIORITY_STEPS if step <= max(priority or 0, 0))
    return f"{queue}{_SEPARATOR}{step}" if step else queue


def queue_keys(queue: str) -> list[str]:
    """All lists of a queue, in the order in which consumers take from them."""
    return [queue_key(queue, step) for step in PRIORITY_STEPS]


class RedisPublisher:
    """Publishes natively: an ``LPUSH`` of kombu's envelope."""

    batch = 1_000

    def __init__(self, url: str) -> None:
        self._client = connect(redis_url(url), name="beatd-publisher")
        self._unbound: set[Address] = set()
        """Of which it has been said that nothing is bound to them."""

    def publish(self, message: TaskMessage, *, queue: str, exchange: str = "", routing_key: str | None = None) -> None:
        one = outgoing_message(message, queue, exchange, routing_key)
        for pause in PAUSES:
            try:
                return self._push([one])
            except StoreUnavailable as error:
                if pause is None:
                    raise _as_brokers(error) from error
                log.warning("%s; trying again in %ss", _as_brokers(error), pause, extra=_RETRYING)
                sleep(pause)
            except StoreRefused as error:
                raise _as_brokers(error) from error
        return None

    def publish_many(self, parcels: Sequence[OutgoingMessage]) -> list[Refused]:
        try:
            return self._push_all(parcels)
        except StoreError as error:
            raise _as_brokers(error) from error

    def depth(self, queue: str) -> int:
        try:
            with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
                for key in queue_keys(queue):
                    pipeline.llen(key)
                return sum(pipeline.execute())
        except StoreError as error:
            raise _as_brokers(error) from error

    def close(self) -> None:
        self._client.close()

    def bound(self, address: Address) -> list[str]:
        try:
            return self._bound(address)
        except StoreError as error:
            raise _as_brokers(error) from error

    def _bound(self, address: Address) -> list[str]:
        """What consumers have bound: kombu keeps one set for each exchange.

        kombu's producers drop what nothing is bound to. Here it goes to the queue named like the key, which is what
        workers that bind nothing consume from.
        """
        if not address.exchange:
            return [address.key]
        with translate_errors(self._client):
            members = self._client.smembers(f"_kombu.binding.{address.exchange}")
        bound = (_text(member).split(_SEPARATOR) for member in members)
        if queues := sorted(queue for key, pattern, queue in bound if _fits(address.key, key, pattern)):
            return queues
        if address not in self._unbound:
            self._unbound.add(address)
            extra = {"event": "exchange_unbound", "exchange": address.exchange, "routing_key": address.key}
            log.warning("Nothing is bound to %s; queue %r gets its messages", address, address.key, extra=extra)
        return [address.key]

    def _push(self, parcels: Sequence[OutgoingMessage]) -> None:
        """All of it or nothing: one ``LPUSH`` for each list."""
        queues = {address: self._bound(address) for address in {one.to for one in parcels}}
        lists = _lists(parcels, queues)
        with translate_errors(self._client), self._client.pipeline(transaction=len(lists) > 1) as pipeline:
            for key, numbered in lists.items():
                pipeline.lpush(key, *(raw for _, raw in numbered))
            pipeline.execute()

    def _push_all(self, parcels: Sequence[OutgoingMessage]) -> list[Refused]:
        """Push to each list; returns the parcels for lists that refuse, or for exchanges that cannot be looked up."""
        refused: dict[int, str] = {}
        queues: dict[Address, list[str]] = {}
        for address in {one.to for one in parcels}:
            try:
                queues[address] = self._bound(address)
            except StoreRefused as error:
                reason = str(_as_brokers(error))
                refused |= {number: reason for number, one in enumerate(parcels) if one.to == address}
        lists = _lists(parcels, queues)
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for key, numbered in lists.items():
                pipeline.lpush(key, *(raw for _, raw in numbered))
            answers = pipeline.execute(raise_on_error=False)
        for numbered, answer in zip(lists.values(), answers, strict=True):
            if isinstance(answer, RedisError):
                said = translated(answer, place_of(self._client))
                if not isinstance(said, StoreRefused):
                    raise said
                refused |= {number: str(_as_brokers(said)) for number, _ in numbered}
        return [Refused(number, reason) for number, reason in sorted(refused.items())]


def _lists(
    parcels: Sequence[OutgoingMessage], queues: Mapping[Address, Sequence[str]]
) -> dict[str, list[tuple[int, bytes]]]:
    """What goes to which list, each with the number of its parcel; without those whose address is not known."""
    lists: dict[str, list[tuple[int, bytes]]] = {}
    for number, (message, to) in enumerate(parcels):
        raw = envelope(message, queue=to.key, exchange=to.exchange)
        for queue in queues.get(to, ()):
            lists.setdefault(queue_key(queue, message.properties.get("priority")), []).append((number, raw))
    return lists


def _fits(routing_key: str, key: str, pattern: str) -> bool:
    """Whether a binding takes the routing key: kombu stores a regular expression for topics, nothing for direct."""
    return bool(re.match(pattern, routing_key)) if pattern else key == routing_key


def _as_brokers(error: StoreError) -> BrokerError:
    kind = BrokerRefused if isinstance(error, StoreRefused) else BrokerError
    return kind(str(error).replace("state store", "broker", 1))


def _text(member: bytes | str) -> str:
    return member.decode() if isinstance(member, bytes) else member
