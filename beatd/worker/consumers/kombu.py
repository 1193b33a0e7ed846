"""Consumer for all other brokers, through kombu.

kombu blocks, so it has a thread of its own; the worker's loop talks to it through queues and a pipe. The broker keeps
what is not acknowledged and delivers it again when the connection is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kombu as _kombu
from kombu.exceptions import KombuError

from beatd.broker import Arguments
from beatd.broker.amqp_queues import task_queue
from beatd.clock import Backoff, monotonic
from beatd.exceptions import BrokerError
from beatd.message.protocol import TaskMessage, envelope
from beatd.urls import shown
from beatd.worker.consumers.base import log_away, never
from beatd.worker.consumers.parking import Parking
from beatd.worker.messages import Delivery


def queue_of(message: Any) -> str:
    """Return the queue's name, as far as the transport gives it."""
    return str((message.delivery_info or {}).get("routing_key") or "")


def is_redelivered(message: Any) -> bool:
    """True for a message that was delivered before; most of kombu's virtual transports mark only what they decode."""
    decoded = getattr(message, "_raw", None)
    is_marked = isinstance(decoded, dict) and decoded.get("redelivered")
    return bool(is_marked or (message.delivery_info or {}).get("redelivered"))


def envelope_of(message: Any) -> tuple[bytes, str]:
    """Return the envelope, and the reason if it cannot be read."""
    try:
        return _envelope(message), f"it cannot be unpacked: {message.errors[0]!r}" if message.errors else ""
    except Exception as error:  # noqa: BLE001 - transports decode what they get, and anything may come out
        return b"{}", f"it cannot be read: {error!r}"


def _envelope(message: Any) -> bytes:
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body or b"")
    headers = dict(message.headers or {})
    headers.pop("compression", None)  # kombu has decompressed it
    if is_redelivered(message):
        headers["redelivered"] = True
    properties = {
        name: value
        for name in ("correlation_id", "reply_to", "priority")
        if (value := message.properties.get(name)) is not None
    }
    return envelope(
        TaskMessage(
            headers=headers,
            body=body,
            properties=properties,
            content_type=str(message.content_type),
            content_encoding=str(message.content_encoding),
        ),
        queue=queue_of(message),
        exchange=str((message.delivery_info or {}).get("exchange") or ""),
    )


log = logging.getLogger(__name__)

kombu: Any = _kombu

Identity = tuple[str, str, str]

_POLL_S = 0.02
"""Time for which the thread reads before it sends acknowledgements."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_PREFETCH = 256
"""Messages ahead of those that wait here for their time."""
_UNSETTLED_MAX = 65_000
_MISSED_MAX = 10_000
_CONNECT_S = 5.0
_START_WITHIN_S = 10.0
_SLICE_S = 0.1
"""Time for which a stop may be kept waiting while it connects."""
_FINISH_WITHIN_S = 10.0
"""Time to send the last acknowledgements."""


class KombuConsumer:
    """Consumes ``queues``; missing ones are declared with ``arguments``."""

    def __init__(
        self,
        url: str,
        queues: Sequence[str],
        *,
        parking: Parking,
        arguments: Arguments,
        transport_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._url = url
        self._options = {"transport_options": dict(transport_options or {})}
        self._names = list(queues)
        self._arguments = arguments
        self._parking = parking
        self._arrived: deque[Delivery] = deque()
        self._held: dict[int, tuple[int, Any]] = {}
        """By tag: the connection's number and kombu's message."""
        self._commands: queue.SimpleQueue[tuple[str, int | str]] = queue.SimpleQueue()
        self._orphans: dict[Identity, int] = {}
        """Tags of messages from earlier connections that still run."""
        self._missed: dict[Identity, str] = {}
        """Commands for messages of earlier connections."""
        self._tag = 0
        self._prefetch = _PREFETCH
        self._generation = 0
        self._connected = threading.Event()
        self._is_serving = False
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self._thread: threading.Thread | None = None
        self._awake, self._wake = os.pipe()
        os.set_blocking(self._awake, False)
        os.set_blocking(self._wake, False)
        self._errors: tuple[type[BaseException], ...] = (KombuError, OSError, *_transport_errors(url))
        self.place = shown(url)

    def queues(self) -> list[str]:
        return list(self._names)

    def waiting(self, at_most: int) -> list[tuple[Delivery, int]]:
        return self._parking.waiting(at_most)

    def add_queue(self, name: str) -> None:
        if name not in self._names:
            self._names.append(name)
            self._commands.put(("add", name))

    def cancel_queue(self, name: str) -> None:
        if name in self._names:
            self._names.remove(name)
            self._commands.put(("cancel", name))

    def start(self, stopping: Callable[[], bool] = never) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="kombu-consumer", daemon=True)
            self._thread.start()
        until = monotonic() + _START_WITHIN_S
        while not self._connected.wait(_SLICE_S) and not stopping():
            if monotonic() >= until:
                raise BrokerError(f"broker {self.place}: {self._error or 'no answer'}")

    def take(self, at_most: int) -> list[Delivery]:
        with contextlib.suppress(BlockingIOError):
            os.read(self._awake, 4096)
        taken: list[Delivery] = []
        while self._arrived and len(taken) < at_most:
            taken.append(self._arrived.popleft())
        return taken

    def files(self) -> list[int]:
        return [self._awake]

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._command("ack", deliveries)

    def reject(self, deliveries: Sequence[Delivery]) -> None:
        self._command("reject", deliveries)

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        self._command("requeue", deliveries)

    def park(self, deliveries: Sequence[tuple[Delivery, int]]) -> None:
        if deliveries and self._parking.park(deliveries):
            self._command("ack", [delivery for delivery, _ in deliveries])

    def bury(self, deliveries: Sequence[tuple[Delivery, str]]) -> None:
        """Bury deliveries; without a state store they go to the queue's dead-letter exchange, if it has one."""
        if deliveries:
            verb = "ack" if self._parking.bury(deliveries) else "reject"
            self._command(verb, [delivery for delivery, _ in deliveries])

    def tend(self) -> None:
        if due := self._parking.tend():
            self._arrived.extend(due)
            self._wake_loop()

    def lost(self) -> list[int]:
        return []  # unknown: the broker does not tell

    def idle_for(self) -> float:
        return self._parking.idle_for()

    def beat(self) -> None:
        """Do nothing: the broker detects the end of this process itself."""

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:  # without a connection it has nothing to finish, and may hang in the network
            self._thread.join(_FINISH_WITHIN_S if self._is_serving else _SLICE_S)
        self._parking.close()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._serve()
            except Exception as error:  # transports raise anything for what they cannot read
                self._error = error
                pause = self._backoff.failed()
                if isinstance(error, self._errors):
                    log_away(log, self._backoff, f"Broker {self.place}", pause, error)
                else:
                    log.exception("Broker %s: consuming failed", self.place, extra={"event": "consumer_failed"})
                self._stopping.wait(pause)

    def _serve(self) -> None:
        """Serve one connection until it breaks; its unsettled messages come again with the next one."""
        self._generation += 1
        if len(self._missed) > _MISSED_MAX:  # redelivered to other workers
            self._missed.clear()
        self._orphans = {_identity(message): tag for tag, (_, message) in self._held.items()}
        with kombu.Connection(self._url, connect_timeout=_CONNECT_S, heartbeat=30, **self._options) as connection:
            queues = [self._queue(name) for name in self._names]
            consumer = connection.Consumer(
                queues,
                on_message=self._on_message,
                on_decode_error=lambda message, _error: self._on_message(message),
                prefetch_count=self._prefetch,
            )
            with consumer:
                self._connected.set()
                self._backoff.succeeded()
                self._is_serving = True
                try:
                    self._read_messages(connection, consumer)
                finally:
                    self._is_serving = False

    def _read_messages(self, connection: Any, consumer: Any) -> None:
        """Read messages and send acknowledgements until the worker stops."""
        while not self._stopping.is_set():
            self._drain(connection)
            self._run_commands(consumer)
            self._make_room(consumer)
            if connection.transport.supports_heartbeats:
                connection.heartbeat_check()
        self._finish(consumer)

    def _make_room(self, consumer: Any) -> None:
        """Take more messages ahead by those that wait here for their time: they must not keep others from coming."""
        wanted = min(_UNSETTLED_MAX, self._parking.unsettled() + _PREFETCH)
        if wanted >= self._prefetch + _PREFETCH // 2:
            consumer.qos(prefetch_count=wanted)
            self._prefetch = wanted

    def _queue(self, name: str) -> Any:
        return task_queue(name, self._arguments(name))

    def _drain(self, connection: Any) -> None:
        deadline = monotonic() + _POLL_S
        with contextlib.suppress(TimeoutError):
            while monotonic() < deadline:
                connection.drain_events(timeout=_POLL_S)

    def _on_message(self, message: Any) -> None:
        if is_redelivered(message) and self._match_redelivery(message):
            return
        self._tag += 1
        self._held[self._tag] = (self._generation, message)
        raw, fault = envelope_of(message)
        self._arrived.append(Delivery(self._tag, queue_of(message), raw, fault))
        self._wake_loop()

    def _match_redelivery(self, message: Any) -> bool:
        """True if the message came by an earlier connection and runs here or has ended: do not run it again."""
        identity = _identity(message)
        verb = self._missed.pop(identity, None)
        if verb is not None:
            _VERBS[verb](message)
            return True
        tag = self._orphans.pop(identity, None)
        if tag is None or tag not in self._held:
            return False
        self._held[tag] = (self._generation, message)
        return True

    def _run_commands(self, consumer: Any) -> None:
        """Carry out the loop's commands; keep those for messages that must come again first."""
        while not self._commands.empty():
            verb, tag = self._commands.get()
            if isinstance(tag, str):
                self._consume(consumer, verb, tag)
                continue
            generation, message = self._held.pop(tag, (0, None))
            if message is None:
                continue
            if generation != self._generation:
                self._missed[_identity(message)] = verb
                continue
            try:
                _VERBS[verb](message)
            except Exception:  # the connection breaks
                self._missed[_identity(message)] = verb
                raise

    def _consume(self, consumer: Any, verb: str, queue: str) -> None:
        if verb == "cancel":
            consumer.cancel_by_queue(queue)
        elif not consumer.consuming_from(queue):
            consumer.add_queue(self._queue(queue))
            consumer.consume()

    def _finish(self, consumer: Any) -> None:
        """Carry out the last commands, then requeue the unsettled messages."""
        self._run_commands(consumer)
        for generation, message in self._held.values():
            if generation == self._generation:
                message.requeue()
        self._held.clear()

    def _command(self, verb: str, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._commands.put((verb, delivery.tag))

    def _wake_loop(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"!")


_VERBS: dict[str, Callable[[Any], None]] = {
    "ack": lambda message: message.ack(),
    "requeue": lambda message: message.requeue(),
    "reject": lambda message: message.reject(),
}


def _transport_errors(url: str) -> tuple[type[BaseException], ...]:
    """Errors of the transport; raises :class:`BrokerError` if there is none, or if a package of it is not installed."""
    try:
        connection = kombu.Connection(url)
    except (KombuError, ImportError, LookupError, ValueError) as error:
        raise BrokerError(f"broker {shown(url)}: {' '.join(map(str, error.args))}") from error
    return (*connection.connection_errors, *connection.channel_errors)


def _identity(message: Any) -> Identity:
    """Return the identity of a message, equal for its redelivery."""
    headers = message.headers if isinstance(message.headers, dict) else {}
    return str(headers.get("id")), str(headers.get("retries")), str(headers.get("replaced_task_nesting"))
