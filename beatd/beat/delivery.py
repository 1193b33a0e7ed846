"""Delivery: claimed messages go straight into the broker's queue, or into the outbox and from there to the broker.

The claim pushes to a list either way. If the state store is the broker, that list is the queue, and with the claim the
message has arrived: exactly once. Else it is the outbox, which :meth:`Delivery.flush` empties into the broker: at least
once, and a repeat carries the same id.

``tests/model/outbox.py`` checks every order of failures between the two.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from beatd.beat.dispatch_log import DispatchLog
from beatd.beat.term import Term
from beatd.broker import Address, OutgoingMessage, Publisher
from beatd.broker.redis_keys import RedisKeys
from beatd.clock import Clock
from beatd.exceptions import MessageError, StoreDenied, StoreRefused
from beatd.message.protocol import TaskMessage, open_envelope
from beatd.model import Run
from beatd.store import dead_letters
from beatd.store.outbox import Outbox, Undeliverable
from beatd.timestamps import iso_ms, to_ms

log = logging.getLogger("beatd.beat.dispatcher")

FLUSH_AT_MOST = 10.0
"""Seconds after which :meth:`OutboxDelivery.flush` begins no further batch."""

LOOK_AGAIN = 10.0
"""Seconds after which an outbox that was empty is looked at again: for what was claimed by a request that came late, or
was struck off by one that the store forgot."""


class Delivery(Protocol):
    """The way of a claimed message to the broker."""

    def list_key(self, address: Address, priority: int | None) -> str:
        """The list that the claim is to push to.

        Raises :class:`~beatd.exceptions.MessageError` if the address cannot be served.
        """

    def claimed(self, runs: Sequence[Run], report: DispatchLog, now_ms: int) -> None:
        """Note runs that were just claimed, with their messages; they count as dispatched once the broker has them."""

    def flush(self, term: Term, report: DispatchLog, *, more_comes: bool = False) -> bool:
        """Bring everything claimed to the broker; raises :class:`~beatd.exceptions.BrokerError` if it cannot.

        Returns whether it has done so: a slow broker is left after a while, so that the loop goes on turning. With
        ``more_comes`` it may wait until there is enough for a batch: the answer of a broker that writes to its disk
        takes as long for a few messages as for many.
        """

    def depth(self, queue: str) -> int:
        """Return the number of messages that wait in a queue; one that does not exist is empty."""


class DirectDelivery:
    """The state store is the broker: nothing is left to do after the claim.

    ``leftovers`` is for an outbox that was filled when there was another broker. ``keys`` are the names of queues.
    """

    def __init__(
        self, publisher: Publisher, leftovers: OutboxDelivery | None = None, keys: RedisKeys | None = None
    ) -> None:
        self._publisher = publisher
        self._keys = keys or RedisKeys()
        self._leftovers = leftovers
        self._flushed_token = 0  # the token of the term in which flush was last called
        self._bound: dict[Address, str] = {}
        """The queues behind exchanges, as looked up since the last flush."""

    def list_key(self, address: Address, priority: int | None) -> str:
        return self._keys.queue(self._queue_behind(address) if address.exchange else address.key, priority)

    def claimed(self, runs: Sequence[Run], report: DispatchLog, now_ms: int) -> None:
        report.dispatched(runs, now_ms)

    def flush(self, term: Term, report: DispatchLog, *, more_comes: bool = False) -> bool:
        self._bound.clear()
        if self._leftovers is None or self._flushed_token != term.token:
            self._flushed_token = term.token  # the first runs of a term do not wait for leftovers of a former broker
            return True
        try:
            return self._leftovers.flush(term, report, more_comes=more_comes)
        except StoreDenied:
            raise  # no key of it can be read
        except StoreRefused as error:  # an outbox that is none: nothing is claimed into it, so no run waits for it
            self._leftovers.leave_alone(term)
            report.outbox_unreadable(error)
            return True

    def depth(self, queue: str) -> int:
        return self._publisher.depth(queue)

    def _queue_behind(self, address: Address) -> str:
        """The one queue that is bound to the address: a claim pushes each message to one list."""
        if (queue := self._bound.get(address)) is not None:
            return queue
        queues = self._publisher.bound(address)
        if queues is None or len(queues) != 1:
            reached = "cannot be looked up" if queues is None else f"reaches {len(queues)} queues: {', '.join(queues)}"
            raise MessageError(f"{address} {reached}; on this broker an entry sends to one queue: name it as its queue")
        self._bound[address] = queues[0]
        return queues[0]


class NoDelivery:
    """Delivery of a dry run: runs are claimed and logged, and no message leaves."""

    def list_key(self, address: Address, priority: int | None) -> str:  # noqa: ARG002 - there is no message
        """No list: the claim stores no message."""
        return ""

    def claimed(self, runs: Sequence[Run], report: DispatchLog, now_ms: int) -> None:  # noqa: ARG002 - none is sent
        for run in runs:
            about = {"entry": run.entry.name, "run_id": run.id, "due_at": iso_ms(run.due_ms)}
            extra = {"event": "run_not_sent", "lateness_ms": now_ms - run.fire_ms, **about}
            log.info("Would send %s (%s)", run.entry.name, run.entry.task, extra=extra)

    def flush(self, term: Term, report: DispatchLog, *, more_comes: bool = False) -> bool:  # noqa: ARG002 - as above
        return True

    def depth(self, queue: str) -> int:  # noqa: ARG002 - as above
        return 0


class OutboxDelivery:
    """Transactional outbox for another broker: the claim pushes to it, :meth:`flush` publishes and then removes.

    Broker down: the outbox is flushed before anything is claimed, and while the broker does not take it, nothing more
    is claimed. So it is never longer than what one turn claims. The loop tries again with back-off (event
    ``broker_unavailable``); due runs are late meanwhile, and catch-up decides about those that are missed by then. A
    message that the broker refuses for ever becomes a dead letter, and the others go on.
    """

    def __init__(self, outbox: Outbox, publisher: Publisher, clock: Clock) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._clock = clock
        self._empty_token = 0  # the token of the term in which the outbox was last seen empty
        self._empty_at = 0.0  # and when that was
        self._inherited_token = 0  # the token of the term in which the outboxes of former shards were taken over
        self._tried_token, self._try_again_at = 0, 0.0  # that in which it was tried, and when it is tried again
        self._claimed: dict[str, Run] = {}
        """Runs of our own that are in the outbox, by id."""
        self._handed_over: tuple[list[bytes], list[Undeliverable]] = [], []
        """What the broker has got of the outbox, and what it will never get, that is not struck off yet."""

    def list_key(self, address: Address, priority: int | None) -> str:  # noqa: ARG002 - the envelope knows them
        self._empty_token = 0
        return self._outbox.key

    def claimed(self, runs: Sequence[Run], report: DispatchLog, now_ms: int) -> None:  # noqa: ARG002 - said by flush
        self._claimed.update((run.id, run) for run in runs)

    def flush(self, term: Term, report: DispatchLog, *, more_comes: bool = False) -> bool:
        """Publish the oldest first, so that leftovers of a leader that died go before what is new."""
        if self._is_empty(term) or (more_comes and len(self._claimed) < self._publisher.batch):
            return True
        self._inherit(term)
        until = self._clock.monotonic() + FLUSH_AT_MOST
        while envelopes := self._outbox.oldest(self._publisher.batch):
            if self._clock.monotonic() > until:
                return False
            if self._hand_over(envelopes, term, report) == 0:
                break
        self.leave_alone(term)
        self._claimed.clear()
        return True

    def _inherit(self, term: Term) -> None:
        """Take over the outboxes of former shards, unless that is done, or some were left as they are a moment ago."""
        if self._inherited_token == term.token:
            return
        now = self._clock.monotonic()
        if self._tried_token != term.token or now >= self._try_again_at:
            self._tried_token, self._try_again_at = term.token, now + LOOK_AGAIN
            self._inherited_token = term.token if self._outbox.inherit(lease_value=term.lease_value) else 0

    def leave_alone(self, term: Term) -> None:
        """Do not read the outbox again before a while has passed."""
        self._empty_token, self._empty_at = term.token, self._clock.monotonic()

    def _is_empty(self, term: Term) -> bool:
        return self._empty_token == term.token and self._clock.monotonic() - self._empty_at < LOOK_AGAIN

    def _hand_over(self, envelopes: list[bytes], term: Term, report: DispatchLog) -> int:
        """Publish and strike off; returns how many are left. What was published and could not be struck off, because
        the store was away, is not published again."""
        published, dead = self._handed_over
        if not published or envelopes[: len(published)] != published:
            dead = self._publish(envelopes, report)
            published = envelopes
            self._handed_over = published, dead
        left = self._outbox.strike(published, dead, lease_value=term.lease_value)
        self._handed_over = [], []
        return left

    def depth(self, queue: str) -> int:
        return self._publisher.depth(queue)

    def _publish(self, envelopes: Sequence[bytes], report: DispatchLog) -> list[Undeliverable]:
        """Hand envelopes to the broker; returns those that it will never take."""
        now_ms = self._clock.now_ms()
        dead: list[Undeliverable] = []
        outgoing: list[tuple[bytes, OutgoingMessage]] = []
        for raw in envelopes:
            try:
                message = _outgoing_message(raw, now_ms)
            except MessageError as error:
                report.corrupt(error)
                letter = dead_letters.encode(raw, reason=str(error), queue="", at=iso_ms(now_ms))
                dead.append(Undeliverable(letter, str(error)))
                continue
            if message is None:
                report.expired_in_outbox(open_envelope(raw))
            else:
                outgoing.append((raw, message))
        refused = self._publisher.publish_many([message for _, message in outgoing]) if outgoing else []
        of_reason: dict[str, list[OutgoingMessage]] = {}
        for number, reason in refused:
            raw, message = outgoing[number]
            of_reason.setdefault(reason, []).append(message)
            letter = dead_letters.encode(raw, reason=reason, queue=message.to.key, at=iso_ms(now_ms))
            dead.append(Undeliverable(letter, reason, message.message.headers))
        for reason, messages in of_reason.items():
            report.refused(messages, reason)
        kept_back = {number for number, _ in refused}
        self._log_dispatched(
            [message.message.id for n, (_, message) in enumerate(outgoing) if n not in kept_back], report
        )
        return dead

    def _log_dispatched(self, ids: Sequence[str], report: DispatchLog) -> None:
        now_ms = self._clock.now_ms()
        ours = [run for task_id in ids if (run := self._claimed.pop(task_id, None))]
        if ours:
            report.dispatched(ours, now_ms)
        if left := len(ids) - len(ours):
            report.left_over(left)


def _outgoing_message(raw: bytes, now_ms: int) -> OutgoingMessage | None:
    """The message in an element of the outbox; None if it has expired there.

    Raises :class:`~beatd.exceptions.MessageError` for anything else than a message with an address.
    """
    message = open_envelope(raw)
    try:
        address = message.properties["delivery_info"]
        to = Address(str(address["routing_key"]), str(address.get("exchange") or ""))
        f"{to.key}{to.exchange}".encode()
        str.encode(message.headers["id"])
        left_ms = _left_ms(message, now_ms)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MessageError(f"an envelope without what sending needs: {error!r}") from None
    if left_ms is None:
        return OutgoingMessage(message, to)
    return OutgoingMessage(_with_left(message, left_ms), to) if left_ms > 0 else None


def _left_ms(message: TaskMessage, now_ms: int) -> int | None:
    expires = message.headers.get("expires")
    return to_ms(datetime.fromisoformat(expires)) - now_ms if expires else None


def _with_left(message: TaskMessage, left_ms: int) -> TaskMessage:
    """Reduce the time to live of a message by the time that it waited in the outbox."""
    if "expiration" in message.properties:
        message.properties["expiration"] = str(left_ms)
    return message
