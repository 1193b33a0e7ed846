"""Where claimed messages go: straight into the broker's queue, or into the outbox and from there to the broker.

The claim pushes to a list either way. If the state store is the broker, that list is the queue, and with the claim the
message has arrived: exactly once. Else it is the outbox, which :meth:`Outlet.flush` empties into the broker: at least
once, and a repeat carries the same id.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Protocol

from beatd.beat.seat import Term
from beatd.broker import Publisher
from beatd.broker.redis import queue_key
from beatd.clock import Clock, to_ms
from beatd.message import TaskMessage, open_envelope
from beatd.store.outbox import Outbox

log = logging.getLogger("beatd.beat.outlet")

BATCH = 100
"""Messages published before they are struck off together: as many are sent again when the leader dies in between."""


class Outlet(Protocol):
    """The way of a claimed message to the broker."""

    def list_key(self, queue: str, priority: int | None) -> str:
        """The list that the claim is to push to."""

    def flush(self, term: Term) -> None:
        """Bring everything claimed to the broker; raises :class:`~beatd.exceptions.BrokerError` if it cannot."""

    def depth(self, queue: str) -> int:
        """How many messages wait in a queue; one that does not exist is empty."""


class StoreOutlet:
    """The state store is the broker: nothing is left to do after the claim."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def list_key(self, queue: str, priority: int | None) -> str:
        return queue_key(queue, priority)

    def flush(self, term: Term) -> None:
        pass

    def depth(self, queue: str) -> int:
        return self._publisher.depth(queue)


class OutboxOutlet:
    """Another broker. While it does not take what is in the outbox, nothing more is claimed: one batch is the bound."""

    def __init__(self, outbox: Outbox, publisher: Publisher, clock: Clock) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._clock = clock
        self._empty_in = 0  # the token of the term in which the outbox was last seen empty

    def list_key(self, queue: str, priority: int | None) -> str:  # noqa: ARG002 - the envelope knows them
        self._empty_in = 0
        return self._outbox.key

    def flush(self, term: Term) -> None:
        """Publish the oldest first, so that leftovers of a leader that died go before what is new."""
        while self._empty_in != term.token:
            envelopes = self._outbox.oldest(BATCH)
            for raw in envelopes:
                self._publish(open_envelope(raw))
            if not envelopes or self._outbox.strike(len(envelopes), lease_value=term.lease_value) == 0:
                self._empty_in = term.token

    def depth(self, queue: str) -> int:
        return self._publisher.depth(queue)

    def _publish(self, message: TaskMessage) -> None:
        expires = message.headers.get("expires")
        if expires and to_ms(datetime.fromisoformat(expires)) <= self._clock.now_ms():
            extra = {"event": "run_skipped", "entry": message.headers["beatd-entry"], "reason": "expired"}
            log.info("Skipped %s: expired in the outbox", extra["entry"], extra=extra)
            return
        self._publisher.publish(message, queue=message.properties["delivery_info"]["routing_key"])
