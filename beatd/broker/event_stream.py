"""Stream of the events that workers send, as monitors read it: from any broker, through kombu."""

from __future__ import annotations

import socket
from collections.abc import Generator, Mapping
from typing import Any

import kombu as _kombu

from beatd.broker.kombu import BROKEN, connection, ping
from beatd.broker.publisher import PUBLISH_TIMEOUT
from beatd.exceptions import BrokerError
from beatd.urls import shown

kombu: Any = _kombu  # only half of it is typed

_FANOUT = ("redis", "gcpubsub")
"""Transports that have no topics for many readers."""

_BATCH = 1.0
"""Seconds of waiting at once."""


def read_events(url: str, exchange: str = "celeryev") -> Generator[Mapping[str, Any] | None]:
    """Yield events as they come, and None after each second without one. Raises BrokerError."""
    received: list[Any] = []

    def receive(body: Any, _message: Any) -> None:
        received.extend(body if isinstance(body, list) else [body])

    try:
        ping(url)
        with (
            connection(url, connect_timeout=PUBLISH_TIMEOUT) as opened,
            kombu.Consumer(opened, [_queue(opened, exchange)], callbacks=[receive], no_ack=True),
        ):
            while True:
                try:
                    opened.drain_events(timeout=_BATCH)
                except TimeoutError:
                    yield None
                yield from filter(_is_event, received)
                received.clear()
    except BROKEN as error:
        raise BrokerError(f"cannot read events from {shown(url)}: {error}") from None


def _queue(opened: Any, exchange: str) -> Any:
    """Return a queue of this reader alone, bound to the exchange of events as Celery declares it."""
    kind = "fanout" if opened.transport.driver_type in _FANOUT else "topic"
    source = kombu.Exchange(exchange, type=kind, durable=True)
    name = f"{exchange}.{socket.gethostname()}.{kombu.uuid()}"
    return kombu.Queue(name, source, routing_key="#", auto_delete=True, durable=False, expires=60.0, message_ttl=5.0)


def _is_event(event: object) -> bool:
    return isinstance(event, dict) and isinstance(event.get("type"), str)
