"""Remote control and events in the worker's loop, over one more connection that never blocks it."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence

from beatd.app.app import App
from beatd.broker.bus import Bus, LamportClock, Names, wait_for
from beatd.clock import Backoff
from beatd.exceptions import BrokerError
from beatd.store.worker_state import RevokedStore
from beatd.worker.admission.revoked import Revoked, RevokedSync
from beatd.worker.control.mingle import FIRST_ANSWER_S, Mingle
from beatd.worker.control.node import Node
from beatd.worker.control.panel import WorkerHandles, WorkerView
from beatd.worker.control.revoked_states import RevokedStates
from beatd.worker.effects import Effect, Ended, Started
from beatd.worker.events import EventStream, Heartbeat, TaskEvents
from beatd.worker.messages import MALFORMED
from beatd.worker.request import Request
from beatd.worker.settings import WorkerSettings

log = logging.getLogger("beatd.worker.control.remote")

_COMMANDS_A_TURN = 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_TEND_S = 5.0
_NAMES_MAX = 1_000
"""Names under which runs are counted, before those of tasks alone are taken."""

OpenBus = Callable[[], Bus | None]
"""Makes an unconnected bus; None for a broker that cannot broadcast."""


class RemoteControl:
    """Remote control of one worker. No method raises, and none waits longer than for one call to the broker."""

    def __init__(
        self, app: App, settings: WorkerSettings, open_bus: OpenBus, names: Names, store: RevokedStore
    ) -> None:
        clock = app.clock
        self.revoked = Revoked()
        """Checked for each message."""
        self._app = app
        self._settings = settings
        self._clock = clock
        self._open_bus = open_bus
        self._names = names
        self._bus = open_bus()
        self._online = False
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self._retry_at = self._tend_at = -math.inf
        self._lamport = LamportClock()
        self._totals: Counter[str] = Counter()
        self._stream = EventStream(settings.hostname, clock, self._lamport)
        self.events = TaskEvents(self._stream, on=settings.task_events)
        self._sharing = RevokedSync(self.revoked, store, clock)
        self._mingling: Mingle | None = None
        self._heart: Heartbeat | None = None
        self._node: Node | None = None

    def attach(self, tools: WorkerHandles) -> None:
        """Attach to a worker. Call once, before everything else."""
        self._heart = Heartbeat(
            self._stream, self._clock, lambda: (len(tools.pool.running_since()), self._totals.total())
        )
        url = self._app.conf.broker_url
        view = WorkerView(
            app=self._app,
            settings=self._settings,
            tools=tools,
            lamport=self._lamport,
            revoked=self.revoked,
            states=RevokedStates(self._app),
            events=self.events,
            totals=self._totals,
            started=self._clock.monotonic(),
            remember=self._sharing.remember,
            beat=self._beat_now,
            url=url if isinstance(url, str) else ";".join(url),
        )
        self._node = Node(view, self._lamport)

    def start(self) -> None:
        """Load revoked ids before the first message is taken, and connect."""
        self._sharing.refresh()
        if self._bus is None:
            log.info("This broker cannot broadcast: no remote control", extra={"event": "control_unavailable"})
            return
        self.turn()
        if self._online and (bus := self._open_bus()) is not None:
            self._mingling = Mingle(bus, self._settings.hostname, self._lamport, self._sharing, self._names)
            self._mingling.start()
            if (files := self._mingling.files()) and not self._sharing.kept:
                wait_for(files, FIRST_ANSWER_S)
                self.turn()

    def turn(self) -> float:
        """Answer commands and send events; returns the seconds until the next call."""
        waits = [self._sharing.tend()]
        if self._mingling is not None and not self._continue_mingling(self._mingling):
            self._mingling = None
        if self._bus is not None and self._node is not None and self._heart is not None:
            try:
                waits.append(self._serve(self._bus, self._node, self._heart))
            except BrokerError as error:
                waits.append(self._disconnect(self._bus, error))
            except Exception as error:  # a defect here must not be the end of a worker
                log.exception("Remote control failed", extra={"event": "control_failed"})
                waits.append(self._disconnect(self._bus, error))
        return min(waits)

    @staticmethod
    def _continue_mingling(mingling: Mingle) -> bool:
        """Read answers of other workers; false after the last one."""
        try:
            return mingling.turn()
        except Exception:  # an answer can be anything
            log.exception("Mingling failed", extra={"event": "control_failed"})
            mingling.stop()
            return False

    def files(self) -> list[int]:
        """Return file descriptors that become readable when commands arrive."""
        listening = self._bus.files() if self._bus is not None and self._online else []
        return listening if self._mingling is None else [*listening, *self._mingling.files()]

    def on_effects(self, effects: Sequence[Effect]) -> None:
        """Count the runs that have begun, and send events if they are on."""
        for effect in effects:
            if isinstance(effect, (Ended, Started)):
                request = effect.request
                if not request.counted and effect.report.state != MALFORMED:
                    request.counted = True
                    self._count(request)
        if self.events.on:
            self.events.tell(effects)

    def _count(self, request: Request) -> None:
        """Count a run under its name; senders may give each message a name of its own."""
        is_known = request.name in self._totals or len(self._totals) < _NAMES_MAX
        self._totals[request.name if is_known else request.headers.task] += 1

    def stop(self) -> None:
        """Send the offline event and disconnect."""
        if self._mingling is not None:
            self._mingling.stop()
        if self._bus is not None:
            try:
                if self._online and self._heart is not None:
                    self._stream.flush_all(self._bus)
                    self._heart.stop(self._bus)
            except BrokerError as error:
                log.debug("The offline event was not sent: %s", error, extra={"event": "control_goodbye_failed"})
            self._bus.close()
        self._sharing.close()

    def _serve(self, bus: Bus, node: Node, heart: Heartbeat) -> float:
        now = self._clock.monotonic()
        if not self._online:
            if now < self._retry_at:
                return self._retry_at - now
            self._connect(bus, heart)
        if now >= self._tend_at:
            self._tend_at = now + _TEND_S
            bus.tend()
        next_beat = heart.beat(bus)
        messages = bus.requests(_COMMANDS_A_TURN)
        for message in messages:
            node.take(message, bus)
        flush_in = self._stream.flush_in()
        if flush_in is not None and flush_in <= 0 and bus.listening:
            self._stream.flush(bus)
            flush_in = self._stream.flush_in()
        if len(messages) == _COMMANDS_A_TURN:
            return 0.0
        return min(next_beat, math.inf if flush_in is None or not bus.listening else flush_in)

    def _connect(self, bus: Bus, heart: Heartbeat) -> None:
        bus.connect(node=self._settings.hostname if self._settings.remote_control else None)
        heart.start(bus)
        self._online = True
        self._tend_at = self._clock.monotonic() + _TEND_S
        if self._backoff.attempts:
            log.info("Remote control is back at %s", bus.place, extra={"event": "control_back"})
        self._backoff.succeeded()

    def _disconnect(self, bus: Bus, error: Exception) -> float:
        """Drop a broken connection and back off; tasks go on."""
        bus.close()
        self._online = False
        pause = self._backoff.failed()
        self._retry_at = self._clock.monotonic() + pause
        log.log(
            self._backoff.level,
            "Remote control away%s, trying again in %ss: %s",
            self._backoff.since_text,
            pause,
            error,
            extra={"event": "control_lost", "attempt": self._backoff.attempts, "since": self._backoff.since},
        )
        return pause

    def _beat_now(self) -> None:
        if self._bus is not None and self._heart is not None:
            self._heart.beat_now(self._bus)
