"""The worker: one loop between a consumer and a pool.

Each turn settles what the pool reports, takes what the pool has room for, and then waits until something happens. All
network calls are made here, for whole batches; the pool makes none.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from beatd import signals
from beatd.app.app import App
from beatd.exceptions import BrokerError, StoreError, StoreUnavailable
from beatd.states import STARTED
from beatd.store.worker_state import FinishedRuns
from beatd.worker.admission.admission import AdmissionControl
from beatd.worker.admission.poison import PoisonDetector
from beatd.worker.admission.rate_limits import RateLimits
from beatd.worker.admission.strategy import Decisions, Strategy
from beatd.worker.consumers import Consumer
from beatd.worker.control.panel import WorkerHandles
from beatd.worker.control.remote_control import RemoteControl
from beatd.worker.messages import JobReport
from beatd.worker.poller import Poller
from beatd.worker.pools.autoscale import Autoscaled
from beatd.worker.pools.base import HardTimeLimits, Pool
from beatd.worker.request import Request
from beatd.worker.settings import WorkerSettings
from beatd.worker.settlement import Settlement
from beatd.worker.shutdown import Phase, Shutdown

log = logging.getLogger("celery.worker")

_LONGEST_WAIT_S = 0.5
_PARTING_S = 5.0
"""How long processes that have nothing to do may take to end."""
_RETRY_S = (0.2, 0.5, 1.0, 2.0)
"""Pauses while the broker is away; the last one is repeated for ever."""


class Worker:
    """Runs an app's tasks until it is told to stop: :meth:`stop` once for a warm end, twice for a cold one."""

    def __init__(
        self,
        app: App,
        settings: WorkerSettings,
        *,
        consumer: Consumer,
        pool: Pool,
        finished: FinishedRuns,
        remote: RemoteControl,
        rates: RateLimits,
        suspects: PoisonDetector,
    ) -> None:
        self._app = app
        self._settings = settings
        self._consumer = consumer
        self._pool = pool
        self._arrival = Strategy(app, remote.revoked)
        self._settling = Settlement(app, consumer, finished, settings.hostname)
        self._requests: dict[int, Request] = {}
        """By tag: what the pool has."""
        self._gate = AdmissionControl(app, self._settling, finished, rates, suspects, at_work=self._requests)
        self._hard_limits = HardTimeLimits(pool, self._requests)
        self._waiting = Poller()
        self.ending = Shutdown(
            app.clock.monotonic,
            grace_s=settings.grace_s,
            soft_s=settings.soft_shutdown_s,
            soft_on_idle=settings.soft_shutdown_on_idle,
        )
        self._failures = 0
        self._remote = remote
        remote.attach(
            WorkerHandles(
                pool=pool,
                consumer=consumer,
                requests=self._requests,
                stop=self._stop_once,
                drop=self._drop,
                held=self._gate.held,
                rates=rates,
                autoscaler=pool if isinstance(pool, Autoscaled) else None,
            )
        )

    @property
    def app(self) -> App:
        """Whose tasks it runs."""
        return self._app

    @property
    def hostname(self) -> str:
        """Its name, ``celery@host``."""
        return self._settings.hostname

    def run(self) -> None:
        """Work until stopped. Raises only what keeps it from starting: a broker that refuses."""
        self._pool.start()  # before there are connections and threads that a fork would copy
        try:
            self._connect()
            self._remote.start()
            while not self.ending.is_over(busy=bool(self._requests)):
                self._survive()
        finally:
            self._shut_down()

    def stop(self, *, cold: bool = False) -> None:
        """First: take nothing more, finish what runs (warm). Again, or ``cold``: leave it and give it back."""
        phase = self.ending.ask(cold=cold)
        self._waiting.wake()
        if phase is Phase.COLD:
            self._pool.abandon()

    def _let_go(self, tags: Sequence[int]) -> None:
        """Others have these messages now: what has not begun here is not begun."""
        for tag in tags:
            if self._pool.withdraw(tag):
                self._requests.pop(tag, None)

    def _stop_once(self) -> None:
        """By remote control: a command that came twice is one wish."""
        if not self.ending.begun:
            self.stop()

    def turn(self) -> float:
        """One turn of the loop; returns how long it may sleep, in seconds."""
        reports = self._pool.collect()
        self._settle(reports)
        limit_in = self._hard_limits.enforce(self._app.clock.monotonic())
        self._consumer.tend()
        self._let_go(self._consumer.lost())
        self._settling.flush()
        room = 0 if self.ending.begun else self._pool.room()
        taken = self._admit(room) if room else 0
        due_in = self._admit_late()
        if (room and taken == room) or (reports and not self._pool.files()):
            return 0.0  # there may be more
        return max(0.0, min(_LONGEST_WAIT_S, limit_in, due_in, self.ending.due_in(), self._consumer.idle_for()))

    def _survive(self) -> None:
        """A turn, and a pause after it or after what went wrong with the broker."""
        remote_in = self._remote.turn()
        try:
            pause = min(self.turn(), remote_in)
            self._failures = 0
        except (StoreError, BrokerError) as error:
            pause = _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
            self._failures += 1
            log.warning(
                "Broker or store away, trying again in %ss: %s",
                pause,
                error,
                extra={"event": "worker_reconnecting", "attempt": self._failures},
            )
        if self._failures:
            self._rest(pause)
        else:
            self._waiting.until(pause, [*self._consumer.files(), *self._pool.files(), *self._remote.files()])

    def _rest(self, seconds: float) -> None:
        """Do nothing for so long but answer remote control, until told to stop."""
        clock, phase = self._app.clock, self.ending.phase
        until = clock.monotonic() + seconds
        while (left := until - clock.monotonic()) > 0 and self.ending.phase is phase:
            self._waiting.until(min(left, self._remote.turn()), self._remote.files())

    def _admit(self, room: int) -> int:
        """Take messages and hand those that may run to the pool; returns how many were taken."""
        deliveries = self._consumer.take(room)
        if deliveries:
            verdicts = self._arrival.judge(deliveries, self._app.clock.now_ms())
            self._settling.dispose(verdicts)
            self._remote.judged(verdicts)
            self._start(self._gate.admit(verdicts.run))
            self._settling.flush()
        return len(deliveries)

    def _admit_late(self) -> float:
        """Run what the gate had kept back; returns the seconds until there is more of it."""
        if self.ending.begun:
            return math.inf
        if due := self._gate.due():
            self._start(self._without_revoked(due))
        return self._gate.due_in()

    def _without_revoked(self, requests: list[Request]) -> list[Request]:
        """Leave out what was revoked while it was kept back."""
        revoked = [one for one in requests if self._remote.revoked and self._remote.revoked.covers(one)]
        for request in revoked:
            self._discard(request)
        return [one for one in requests if one not in revoked] if revoked else requests

    def _start(self, requests: Sequence[Request]) -> None:
        watched = self._remote.events.on
        for request in requests:
            self._requests[request.delivery.tag] = request
            self._hard_limits.begun(request)
        if requests:
            self._pool.submit([request.job(watched=watched) for request in requests])

    def _settle(self, reports: Sequence[JobReport]) -> None:
        if not reports:
            return
        pairs = []
        for report in reports:
            request = self._requests.get(report.tag)
            if request is not None:
                pairs.append((report, request))
                if report.state != STARTED:
                    del self._requests[report.tag]
                    self._hard_limits.ended(report.tag)
                    self._gate.ended(report.tag)
                elif request.terminated is not None:
                    self._pool.kill(report.tag, request.terminated)  # revoked when it was about to begin
        for report, request in self._settling.settle(pairs):
            self._remote.reported(request, report)

    def _drop(self, request: Request) -> None:
        """Settle a request as revoked that the pool has given back."""
        tag = request.delivery.tag
        del self._requests[tag]
        self._hard_limits.ended(tag)
        self._gate.ended(tag)
        self._discard(request)

    def _discard(self, request: Request) -> None:
        """Settle a request as revoked that no process has."""
        verdicts = Decisions()
        self._arrival.revoke(request, "revoked", self._app.clock.now_ms(), verdicts)
        self._settling.dispose(verdicts)
        self._remote.judged(verdicts)

    def _connect(self) -> None:
        attempt = 0
        while not self.ending.begun:
            try:
                self._consumer.start()
            except (StoreUnavailable, BrokerError) as error:
                pause = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
                attempt += 1
                log.warning(
                    "Cannot connect to %s: %s. Trying again in %ss.",
                    self._consumer.place,
                    error,
                    pause,
                    extra={"event": "worker_connecting", "attempt": attempt},
                )
                self._waiting.sleep(pause)
            else:
                log.info("Connected to %s", self._consumer.place, extra={"event": "worker_connected"})
                log.info("%s ready.", self._settings.hostname, extra={"event": "worker_ready"})
                signals.worker_ready.send(sender=self)
                return

    def _shut_down(self) -> None:
        signals.worker_shutdown.send(sender=self)
        self._pool.stop(_PARTING_S if self.ending.phase is not Phase.COLD else 0.0)
        try:
            self._settle(self._pool.collect())
            unfinished = list(self._requests.values())
            self._gate.leave(unfinished)
            self._settling.leave(unfinished)
            self._settling.flush()
            self._consumer.stop()
        except (StoreError, BrokerError) as error:
            log.warning(
                "Could not say goodbye to the broker, others will notice: %s",
                error,
                extra={"event": "worker_stop_failed"},
            )
        self._remote.stop()
        self._app.close()
        log.info("%s stopped.", self._settings.hostname, extra={"event": "worker_stopped"})
