"""``task-sent`` events, which monitors show before any worker has the task: for ``task_send_sent_event``."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable

from beatd.app.conf import Conf
from beatd.app.sending import Route, origin
from beatd.broker import bus
from beatd.broker.bus import Bus, LamportClock, Names, Teller
from beatd.broker.bus.teller import Event
from beatd.clock import Clock
from beatd.exceptions import BrokerError
from beatd.message import TaskMessage

log = logging.getLogger(__name__)

_AWAY_S = 30.0
"""How long nothing is told after that could not be done: sending tasks must not be slower for it."""
_TIMEOUT_S = 2.0


class SentEvents:
    """Tells what an app sends. Safe to share between threads, and usable after a fork; never raises."""

    def __init__(self, conf: Conf, clock: Clock) -> None:
        self._conf = conf
        self._clock = clock
        self._lock = threading.Lock()
        self._bus: Bus | None = None
        self._teller: Teller | None = None
        self._owner = 0
        self._silent_until = 0.0

    def tell(self, sent: Iterable[tuple[TaskMessage, Route]]) -> None:
        """These messages are in the broker."""
        with self._lock:
            if self._clock.monotonic() < self._silent_until:
                return
            try:
                self._emit(list(sent))
            except BrokerError as error:
                self._silent_until = self._clock.monotonic() + _AWAY_S
                self._drop()
                log.warning("Monitors cannot be told what is sent: %s", error, extra={"event": "sent_event_lost"})

    def close(self) -> None:
        """Disconnect; the next call connects again."""
        with self._lock:
            self._drop()

    def _emit(self, sent: list[tuple[TaskMessage, Route]]) -> None:
        used = self._bus is not None and self._owner == os.getpid()
        if not used and not self._connect():
            return
        try:
            self._publish(sent)
        except BrokerError:
            if not used:
                raise
            self._drop()  # the broker has closed a connection that was idle for long
            self._connect()
            self._publish(sent)

    def _publish(self, sent: list[tuple[TaskMessage, Route]]) -> None:
        if self._bus is None or self._teller is None:
            return
        self._bus.requests(1)  # reads what the broker says meanwhile, such as that it closes the connection
        events = [_event(self._teller, message, route) for message, route in sent]
        if len(events) == 1:
            self._bus.emit("task.sent", self._teller.letter(events[0]))
        elif events:
            self._bus.emit("task.multi", self._teller.letter(events))

    def _connect(self) -> bool:
        """Whether the broker can broadcast at all. A connection from before a fork belongs to the parent."""
        url = self._conf.broker_url if isinstance(self._conf.broker_url, str) else ";".join(self._conf.broker_url)
        names = Names(self._conf.control_exchange, self._conf.event_exchange)
        self._bus, self._owner = bus.open(url, names, timeout=_TIMEOUT_S), os.getpid()
        if self._bus is None:
            return False
        self._teller = Teller(origin(), self._clock, LamportClock())
        self._bus.connect()
        return True

    def _drop(self) -> None:
        bus, self._bus = self._bus, None
        if bus is not None and self._owner == os.getpid():
            bus.close()


def _event(teller: Teller, message: TaskMessage, route: Route) -> Event:
    headers = message.headers
    fields = {
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
    return teller.event("task-sent", fields)
