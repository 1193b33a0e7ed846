"""Events of workers for monitors, as Celery's ``app.events``: receivers with handlers, and the state of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from importlib import import_module
from itertools import islice
from typing import Any

from beatd import broker
from beatd.app.base import AppBase
from beatd.clock import monotonic
from beatd.exceptions import ImproperlyConfigured

Handler = Callable[[Mapping[str, Any]], Any]


class Receiver:
    """Receiver of events: ``handlers`` by type (``"task-failed"``), and ``"*"`` for all others."""

    def __init__(self, app: AppBase, handlers: Mapping[str, Handler] | None = None) -> None:
        self.app = app
        self.handlers = dict(handlers or {})
        self.should_stop = False

    def process(self, type: str, event: Mapping[str, Any]) -> None:  # noqa: A002 - Celery's name
        """Give an event to its handler."""
        handler = self.handlers.get(type) or self.handlers.get("*")
        if handler is not None:
            handler(event)

    def itercapture(
        self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True
    ) -> Iterator[None]:
        """Receive events; yields after each. Ends after ``limit`` events, or ``timeout`` seconds without one.

        Each has the time at which it came in, ``local_received``, which Celery's state of a cluster asks for.
        ``wakeup`` first asks the workers to introduce themselves. Raises BrokerError.
        """
        if wakeup:
            self.app.control.broadcast("heartbeat")
        with closing(self._received(timeout)) as received:
            for event in islice(received, limit):
                self.process(event["type"], event)
                yield

    def capture(self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True) -> None:
        """Receive events until ``should_stop`` is set; see :meth:`itercapture`."""
        for _ in self.itercapture(limit, timeout, wakeup):
            pass

    def _received(self, timeout: float | None) -> Generator[Mapping[str, Any]]:
        url, last = self.app.conf.broker_url, monotonic()
        first = url if isinstance(url, str) else url[0]
        with closing(broker.read_events(first.split(";")[0], self.app.conf.event_exchange)) as stream:
            for event in stream:
                if self.should_stop or (timeout is not None and event is None and monotonic() - last >= timeout):
                    return
                if event is not None:
                    last = monotonic()
                    yield {"clock": 0, **event, "local_received": self.app.clock.now_ms() / 1000}


class Events:
    """``app.events``."""

    def __init__(self, app: AppBase) -> None:
        self._app = app

    def Receiver(  # noqa: N802 - Celery's name
        self, channel: Any = None, handlers: Mapping[str, Handler] | None = None, **_celerys: Any
    ) -> Receiver:
        """Return a receiver. ``channel`` is not used: it opens a connection of its own."""
        del channel
        return Receiver(self._app, handlers)

    def State(self, **options: Any) -> Any:  # noqa: N802 - Celery's name
        """Return Celery's state of a cluster, which ``state.event`` fills. Celery must be installed."""
        try:
            return import_module("celery.events.state").State(**options)
        except ImportError:
            raise ImproperlyConfigured("app.events.State needs Celery: pip install celery") from None
