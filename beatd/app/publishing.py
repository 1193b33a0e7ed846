"""Publishing: enqueue an app's task messages on the broker, singly or in batches, with Celery's signals.

With ``task_send_sent_event``, monitors get a ``task-sent`` event for each message.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import msgspec

from beatd import signals
from beatd.app.conf import Conf
from beatd.app.context import outlet
from beatd.app.message_options import origin
from beatd.app.routing import Route
from beatd.app.settings import DEFAULTS
from beatd.broker import Publisher, bus
from beatd.broker.bus import Bus, EventFactory, LamportClock, Names
from beatd.broker.publisher import OutgoingMessage, Refused, RetryPolicy, outgoing_message, publish_with_retries
from beatd.clock import Clock
from beatd.exceptions import BrokerError, BrokerRefused
from beatd.message import json_codec
from beatd.message.compression import compressed
from beatd.message.protocol import JSON, TaskMessage


class Collected(NamedTuple):
    """A message that is ready to be published, and its route."""

    message: TaskMessage
    route: Route

    def outgoing(self) -> OutgoingMessage:
        """The message and its address."""
        return outgoing_message(self.message, self.route.queue, self.route.exchange, self.route.routing_key)


def retry_policy(options: Mapping[str, Any], conf: Conf) -> RetryPolicy | None:
    """Return the policy of a call (``retry``, ``retry_policy``), else of the app; None for the default one."""
    retry, default = options.get("retry"), DEFAULTS["task_publish_retry_policy"]
    if not (conf["task_publish_retry"] if retry is None else retry):
        return RetryPolicy(0, 0, 0, 0)
    wanted = {**default, **(conf["task_publish_retry_policy"] or {}), **(options.get("retry_policy") or {})}
    return RetryPolicy(*(wanted[name] for name in RetryPolicy._fields)) if wanted != default else None


BACKLOG_MAX = 10_000
"""Messages of coroutines that may wait for their worker to publish them."""


class Backlog:
    """Messages of coroutines that wait for their worker to publish them; bounded. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._outage: str | None = None

    def enter(self, count: int) -> None:
        """Count messages; raises BrokerError when there are too many, or the worker has found the broker away."""
        with self._lock:
            if self._outage is not None:
                raise BrokerError(f"the worker cannot publish: {self._outage}")
            if self._count + count > BACKLOG_MAX:
                raise BrokerError(
                    f"{self._count} messages of coroutines wait for the broker, expected {BACKLOG_MAX} at most"
                )
            self._count += count

    def leave(self, count: int) -> None:
        """Count messages off: they were published, given up or dropped."""
        with self._lock:
            self._count -= count

    def close(self, outage: str) -> None:
        """Refuse messages from now on."""
        self._outage = outage

    def open(self) -> None:
        """Take messages again."""
        self._outage = None


class Outgoing:
    """The publishing pipeline of an app. The publisher is opened for the first message."""

    def __init__(
        self, publisher: Callable[[], Publisher], on_sent: Callable[[Sequence[Collected]], None], probed: str = "celery"
    ) -> None:
        """``on_sent`` is called with the messages that the broker has accepted. ``probed``: see :meth:`is_answered`."""
        self._publisher = publisher
        self._probed = probed
        self._on_sent = on_sent
        self.backlog = Backlog()
        self._together: ContextVar[list[Collected] | None] = ContextVar("beatd_publishing_together", default=None)

    def send(
        self, message: TaskMessage, route: Route, compression: str | None = None, policy: RetryPolicy | None = None
    ) -> None:
        """Publish a message, or add it to the batch of :meth:`together`; raises BrokerError.

        ``policy`` says how often it is tried while the broker is away; a batch has the default policy.
        """
        if signals.before_task_publish:
            message = _before_publish(message, route)
        if compression:
            message = compressed(message, compression)
        collected, batch = Collected(message, route), self._together.get()
        if batch is not None:
            batch.append(collected)
            return
        if self._left_to_worker([collected]):
            return
        if policy is None:
            self._publisher().publish(message, **_address(route))
        else:
            outgoing = collected.outgoing()
            publish_with_retries(lambda: self._publish_once(outgoing), policy)
        _after_publish(message, route)
        self._on_sent([collected])

    @contextmanager
    def together(self) -> Iterator[None]:
        """Batch the messages that are sent in the block; they are published at its end."""
        if self._together.get() is not None:
            yield
            return
        batch: list[Collected] = []
        token = self._together.set(batch)
        try:
            yield
        finally:
            self._together.reset(token)
        if self._left_to_worker(batch):
            return
        if len(batch) == 1:
            self._publisher().publish(batch[0].message, **_address(batch[0].route))
        elif batch:
            self._send_many(batch)
        for message, route in batch:
            _after_publish(message, route)
        self._on_sent(batch)

    @contextmanager
    def collect(self) -> Iterator[list[Collected]]:
        """Collect the messages sent in the block in a list, for a later :meth:`offer`; nothing is published here."""
        collected: list[Collected] = []
        token = self._together.set(collected)
        try:
            yield collected
        finally:
            self._together.reset(token)

    def offer(self, messages: Sequence[Collected]) -> list[Refused]:
        """Publish collected messages in batches; returns the refused ones, by their number in ``messages``.

        One attempt of bounded length: raises :class:`~beatd.exceptions.BrokerError` when the broker is away. Offer the
        same messages again then.
        """
        refused: list[Refused] = []
        publisher = self._publisher()
        for start, batch in _batches(messages, publisher.batch):
            answer = publisher.publish_many([one.outgoing() for one in batch])
            refused += [Refused(start + number, reason) for number, reason in answer]
        lost = {number for number, _ in refused}
        published = [each for number, each in enumerate(messages) if number not in lost]
        for message, route in published:
            _after_publish(message, route)
        self._on_sent(published)
        return refused

    def is_answered(self) -> bool:
        """True if the broker answers: where a message cannot be published all the same, the message is the reason."""
        try:
            self._publisher().depth(self._probed)
        except BrokerRefused:
            return True
        except BrokerError:
            return False
        return True

    def _left_to_worker(self, batch: Sequence[Collected]) -> bool:
        """Leave messages of a coroutine to its worker, as the event loop must not wait for the broker; True if done."""
        way_out = outlet.get()
        if way_out is None or not way_out.takes_messages or not batch:
            return False
        self.backlog.enter(len(batch))
        try:
            way_out.messages(batch)
        except BaseException:
            self.backlog.leave(len(batch))
            raise
        return True

    def _publish_once(self, outgoing: OutgoingMessage) -> None:
        """Publish in one attempt; raises BrokerError."""
        if refused := self._publisher().publish_many([outgoing]):
            raise BrokerRefused(refused[0].reason)

    def _send_many(self, messages: list[Collected]) -> None:
        publisher = self._publisher()
        for start in range(0, len(messages), publisher.batch):
            batch = messages[start : start + publisher.batch]
            try:
                refused = publisher.publish_many([one.outgoing() for one in batch])
            except BrokerError:
                for message, route in batch:  # one by one, with the retries of a single message
                    publisher.publish(message, **_address(route))
                continue
            if refused:
                raise BrokerError(f"{len(refused)} of {len(batch)} messages were refused; the first: {refused[0]}")


def _batches(messages: Sequence[Collected], size: int) -> Iterator[tuple[int, Sequence[Collected]]]:
    """Split messages into batches of at most ``size`` with unique ids, each with the number of its first message."""
    start, ids = 0, set[str]()
    for number, (message, _) in enumerate(messages):
        if number - start >= size or message.id in ids:
            yield start, messages[start:number]
            start, ids = number, set()
        ids.add(message.id)
    if start < len(messages):
        yield start, messages[start:]


def _address(route: Route) -> dict[str, Any]:
    return {"queue": route.queue, "exchange": route.exchange, "routing_key": route.routing_key}


def _before_publish(message: TaskMessage, route: Route) -> TaskMessage:
    """Send ``before_task_publish``; returns the message, whose headers, properties and body receivers may change."""
    headers, properties = dict(message.headers), dict(message.properties)
    body = _loads(message)
    signals.before_task_publish.send(
        sender=headers["task"],
        body=body,
        exchange=route.exchange,
        routing_key=route.routing_key or route.queue,
        headers=headers,
        properties=properties,
        declare=[],
        retry_policy=None,
    )
    return msgspec.structs.replace(message, headers=headers, properties=properties, body=_dumps(body, message))


def _loads(message: TaskMessage) -> Any:
    if message.content_type == JSON:
        return json_codec.loads(message.body)
    return _serialization().loads(message.body, message.content_type, message.content_encoding)


def _dumps(body: Any, message: TaskMessage) -> bytes:
    if message.content_type == JSON:
        return json_codec.dumps(body)
    encoded: bytes = _serialization().dumps(body, message.content_type)[2]
    return encoded


def _serialization() -> Any:
    from beatd.broker import serialization  # noqa: PLC0415 - costs memory and time; few need it

    return serialization


def _after_publish(message: TaskMessage, route: Route) -> None:
    if signals.after_task_publish:
        signals.after_task_publish.send(
            sender=message.headers["task"],
            headers=message.headers,
            body=None if message.headers.get("compression") else _loads(message),
            exchange=route.exchange,
            routing_key=route.routing_key or route.queue,
        )


log = logging.getLogger("beatd.app.sent_events")

_PAUSE_S = 30.0
"""Seconds without events after a failure: an unreachable broker must not slow down the sending of tasks."""
_TIMEOUT_S = 2.0


class SentEvents:
    """Sender of ``task-sent`` events and of a task's own. Thread-safe and fork-safe; never raises."""

    def __init__(self, conf: Conf, clock: Clock) -> None:
        self._conf = conf
        self._clock = clock
        self._lock, self._process = threading.Lock(), os.getpid()
        self._bus: Bus | None = None
        self._event_factory: EventFactory | None = None
        self._owner = 0
        self._silent_until = 0.0

    def tell(self, sent: Iterable[tuple[TaskMessage, Route]]) -> None:
        """Send the events of messages that the broker has accepted."""
        self._send([("task-sent", _fields(message, route)) for message, route in sent])

    def send(self, kind: str, fields: dict[str, Any]) -> None:
        """Send an event of a task's own, such as ``task-progress``."""
        self._send([(kind, fields)])

    def _send(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        if self._process != os.getpid():  # a thread of the parent may have held the lock, and does not go on here
            self._lock, self._process = threading.Lock(), os.getpid()
        with self._lock:
            if self._clock.monotonic() < self._silent_until:
                return
            try:
                self._emit(events)
            except BrokerError as error:
                self._silent_until = self._clock.monotonic() + _PAUSE_S
                self._drop()
                log.warning("Cannot send %s events: %s", events[0][0], error, extra={"event": "sent_event_lost"})

    def close(self) -> None:
        """Disconnect; the next event connects again."""
        with self._lock:
            self._drop()

    def _emit(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        used = self._bus is not None and self._owner == os.getpid()
        if not used and not self._connect():
            return
        try:
            self._publish(events)
        except BrokerError:
            if not used:
                raise
            self._drop()  # the broker may have closed an idle connection
            self._connect()
            self._publish(events)

    def _publish(self, sent: list[tuple[str, dict[str, Any]]]) -> None:
        if self._bus is None or self._event_factory is None:
            return
        self._bus.requests(1)  # process pending frames of the broker, such as a close
        events = [self._event_factory.event(kind, fields) for kind, fields in sent]
        if len(events) == 1:
            self._bus.emit(sent[0][0].replace("-", "."), self._event_factory.message(events[0]))
        elif events:
            self._bus.emit("task.multi", self._event_factory.message(events))

    def _connect(self) -> bool:
        """Connect; returns False if the broker cannot broadcast. A connection from before a fork is the parent's."""
        url = self._conf.broker_url if isinstance(self._conf.broker_url, str) else ";".join(self._conf.broker_url)
        names = Names(self._conf.control_exchange, self._conf.event_exchange)
        self._bus, self._owner = bus.open(url, names, timeout=_TIMEOUT_S), os.getpid()
        if self._bus is None:
            return False
        self._event_factory = EventFactory(origin(), self._clock, LamportClock())
        self._bus.connect()
        return True

    def _drop(self) -> None:
        bus, self._bus = self._bus, None
        if bus is not None and self._owner == os.getpid():
            bus.close()


def _fields(message: TaskMessage, route: Route) -> dict[str, Any]:
    headers = message.headers
    return {
        "uuid": message.id,
        "root_id": headers.get("root_id"),
        "parent_id": headers.get("parent_id"),
        "name": headers.get("task"),
        "args": headers.get("argsrepr"),
        "kwargs": headers.get("kwargsrepr"),
        "retries": headers.get("retries"),
        "eta": headers.get("eta"),
        "expires": headers.get("expires"),
        "queue": route.queue,
        "exchange": route.exchange,
        "routing_key": route.routing_key or route.queue,
    }
