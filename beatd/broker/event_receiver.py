"""Receiver of the workers' events, as monitors hear them: on any broker that kombu knows."""

from __future__ import annotations

import contextlib
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from amqp.exceptions import AMQPError
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from beatd.broker.kombu import connection as open_connection
from beatd.broker.kombu import kombu
from beatd.exceptions import BrokerError
from beatd.urls import place_of

_FANOUT = ("redis", "gcpubsub")
"""Transports on which the exchange of events is a fanout, as Celery has it."""
_STEP_S = 1.0
_CONNECT_TIMEOUT_S = 5
_EXPIRES_S = 60.0


def receive(url: str, exchange: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Yield events as they arrive, and None about once a second without one.

    Raises :class:`~beatd.exceptions.BrokerError` when the broker cannot be reached, or is lost.
    """
    waiting: deque[dict[str, Any]] = deque()

    def heard(body: Any, message: Any) -> None:
        waiting.extend(each for each in (body if isinstance(body, list) else [body]) if isinstance(each, dict))
        message.ack()

    try:
        with open_connection(url, connect_timeout=_CONNECT_TIMEOUT_S, transport_options=dict(options)) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.2, timeout=_CONNECT_TIMEOUT_S)
            kind = "fanout" if connection.transport.driver_type in _FANOUT else "topic"
            queue = kombu.Queue(
                f"celeryev.{uuid.uuid4()}",
                kombu.Exchange(exchange, type=kind, durable=True),
                routing_key="#",
                auto_delete=True,
                durable=False,
                expires=_EXPIRES_S,
            )
            with connection.Consumer([queue], callbacks=[heard], accept=["json"]):
                while True:
                    with contextlib.suppress(TimeoutError):
                        connection.drain_events(timeout=_STEP_S)
                    if not waiting:
                        yield None
                    while waiting:
                        yield waiting.popleft()
    except (OSError, KombuError, AMQPError, RedisError) as error:
        raise BrokerError(f"no events from the broker at {place_of(url)}: {error}") from None
