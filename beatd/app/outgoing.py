"""An app's messages on their way out: signals around each of them, and many of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import msgspec

from beatd import wire
from beatd.app import signals
from beatd.app.sending import Route
from beatd.broker import Publisher
from beatd.broker.port import parcel
from beatd.exceptions import BrokerError
from beatd.message import TaskMessage, compressed

Sent = tuple[TaskMessage, Route]


class _Outgoing(NamedTuple):
    message: TaskMessage
    route: Route


class Outgoing:
    """The way of messages from an app to its publisher, which is opened when the first one leaves."""

    def __init__(self, publisher: Callable[[], Publisher], on_sent: Callable[[Sequence[Sent]], None]) -> None:
        """``on_sent`` is told what the broker has got."""
        self._publisher = publisher
        self._on_sent = on_sent
        self._together: ContextVar[list[_Outgoing] | None] = ContextVar("beatd_publishing_together", default=None)

    def send(self, message: TaskMessage, route: Route, compression: str | None = None) -> None:
        """Hand it to the broker; raises :class:`~beatd.exceptions.BrokerError`. Inside :meth:`together`: soon."""
        if signals.before_task_publish:
            message = _announced(message, route)
        if compression:
            message = compressed(message, compression)
        waiting = self._together.get()
        if waiting is not None:
            waiting.append(_Outgoing(message, route))
            return
        self._publisher().publish(message, queue=route.queue, exchange=route.exchange, routing_key=route.routing_key)
        _tell(message, route)
        self._on_sent([(message, route)])

    @contextmanager
    def together(self) -> Iterator[None]:
        """Messages that are sent in the block leave at its end, as many at a time as the broker takes."""
        if self._together.get() is not None:
            yield
            return
        waiting: list[_Outgoing] = []
        token = self._together.set(waiting)
        try:
            yield
        finally:
            self._together.reset(token)
        if len(waiting) == 1:
            self._publisher().publish(waiting[0].message, **_to(waiting[0].route))
        elif waiting:
            self._send_many(waiting)
        for each in waiting:
            _tell(*each)
        self._on_sent(waiting)

    def _send_many(self, messages: list[_Outgoing]) -> None:
        publisher = self._publisher()
        for start in range(0, len(messages), publisher.batch):
            some = messages[start : start + publisher.batch]
            try:
                refused = publisher.publish_many(
                    [parcel(one.message, one.route.queue, one.route.exchange, one.route.routing_key) for one in some]
                )
            except BrokerError:
                for one in some:  # with the patience that a single message gets
                    publisher.publish(one.message, **_to(one.route))
                continue
            if refused:
                raise BrokerError(f"{len(refused)} of {len(some)} messages were refused; the first: {refused[0]}")


def _to(route: Route) -> dict[str, Any]:
    return {"queue": route.queue, "exchange": route.exchange, "routing_key": route.routing_key}


def _announced(message: TaskMessage, route: Route) -> TaskMessage:
    """The message after the receivers of ``before_task_publish``, who may change headers, properties and body."""
    headers, properties = dict(message.headers), dict(message.properties)
    body = wire.loads(message.body)
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
    return msgspec.structs.replace(message, headers=headers, properties=properties, body=wire.dumps(body))


def _tell(message: TaskMessage, route: Route) -> None:
    if signals.after_task_publish:
        signals.after_task_publish.send(
            sender=message.headers["task"],
            headers=message.headers,
            body=None if message.headers.get("compression") else wire.loads(message.body),
            exchange=route.exchange,
            routing_key=route.routing_key or route.queue,
        )
