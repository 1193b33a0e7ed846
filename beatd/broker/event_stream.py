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
    try:
        ping(url)
        with connection(url, connect_timeout=PUBLISH_TIMEOUT) as opened:
            kind = "fanout" if opened.transport.driver_type in _FANOUT else "topic"  # as Celery has it
            source = kombu.Exchange(exchange, type=kind, durable=True)
            name = f"{exchange}.{socket.gethostname()}.{kombu.uuid()}"
            queue = kombu.Queue(
                name, source, routing_key="#", auto_delete=True, durable=False, expires=60.0, message_ttl=5.0
            )
            with kombu.Consumer(opened, [queue], callbacks=[lambda body, _: received.append(body)], no_ack=True):
                while True:
                    try:
                        opened.drain_events(timeout=_BATCH)
                    except TimeoutError:
                        yield None
                    for body in received:
                        yield from (event for event in (body if isinstance(body, list) else [body]) if _is_event(event))
                    received.clear()
    except BROKEN as error:
        raise BrokerError(f"cannot read events from {shown(url)}: {error}") from None


def _is_event(event: object) -> bool:
    return isinstance(event, dict) and isinstance(event.get("type"), str)
