"""Worker: the loop between a consumer and a pool.

Each turn settles the reports of the pool, takes as many messages as the pool has room for, and waits for the next
event. All network calls of the worker are made here, in batches.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Sequence

from beatd import signals
from beatd.app.app import App
from beatd.broker.publisher import PUBLISH_ATTEMPTS
from beatd.clock import Backoff
from beatd.exceptions import BrokerError, StoreError, StoreUnavailable
from beatd.store.worker_state import FinishedRuns
from beatd.worker.admission.admission import AdmissionControl
from beatd.worker.admission.poison import PoisonDetector
from beatd.worker.admission.rate_limits import RateLimits
from beatd.worker.admission.strategy import Decisions, Strategy
from beatd.worker.consumers import Consumer
from beatd.worker.consumers.base import UNWANTED_S, log_away
from beatd.worker.control.panel import WorkerHandles
from beatd.worker.control.remote_control import RemoteControl
from beatd.worker.effects import Effect, Ended, Revoked
from beatd.worker.messages import LOST, NO_JOB, JobReport, is_end
from beatd.worker.metrics import WorkerMetrics, WorkerState
from beatd.worker.poller import Poller
from beatd.worker.pools.autoscale import Autoscaled
from beatd.worker.pools.base import HardTimeLimits, Pool
from beatd.worker.request import Request
from beatd.worker.settings import WorkerSettings
from beatd.worker.settlement import Settlement
from beatd.worker.shutdown import Phase, Shutdown

log = logging.getLogger("celery.worker")

_LONGEST_WAIT_S = 0.5
_POOL_STOP_S = 5.0
"""Time for idle processes to end."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 2.0
"""Pauses while the broker is away."""
_UNWANTED_LOOK_S = 0.5
"""Period of the check for messages that wait behind long tasks."""


class Worker:
    """Runs an app's tasks until :meth:`stop`: the first call shuts it down warm, the second cold."""

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
        poison: PoisonDetector,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._consumer = consumer
        self._pool = pool
        self._strategy = Strategy(app, remote.revoked, settings.hostname)
        self._settlement = Settlement(app, consumer, finished, settings.hostname)
        self._requests: dict[int, Request] = {}
        """By tag: the requests in the pool."""
        self._admission = AdmissionControl(app, self._settlement, finished, rates, poison, at_work=self._requests)
        self._hard_limits = HardTimeLimits(pool, self._requests, self._discard)
        self._poller = Poller()
        self.shutdown = Shutdown(
            app.clock.monotonic,
            grace_s=settings.grace_s,
            soft_s=settings.soft_shutdown_s,
            soft_on_idle=settings.soft_shutdown_on_idle,
        )
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self._tended = False
        """True if the broker answered in this turn."""
        self._unwanted_look_at = 0.0
        self._remote = remote
        self._metrics = metrics or WorkerMetrics()
        self._metrics.attach(WorkerState(pool, consumer, self._requests, self.shutdown))
        remote.attach(
            WorkerHandles(
                pool=pool,
                consumer=consumer,
                requests=self._requests,
                stop=self._stop_once,
                drop=self._discard,
                condemn=self._hard_limits.condemn,
                held=self._admission.held,
                rates=rates,
                autoscaler=pool if isinstance(pool, Autoscaled) else None,
            )
        )

    @property
    def app(self) -> App:
        """The app whose tasks it runs."""
        return self._app

    @property
    def hostname(self) -> str:
        """The worker's name, ``celery@host``."""
        return self._settings.hostname

    def run(self) -> None:
        """Work until stopped. Raises only at the start: when the broker refuses the connection."""
        self._pool.start()  # before there are connections and threads that a fork would copy
        try:
            is_connected = self._connect()
            self._remote.start()
            if is_connected:
                self._say_ready()
            while not self.shutdown.is_over(busy=bool(self._requests), unsettled=self._settlement.pending):
                self._turn_or_back_off()
        finally:
            self._shut_down()

    def stop(self, *, cold: bool = False) -> None:
        """Shut down warm: take nothing more, finish the running tasks. The second call, or ``cold``: give them back."""
        phase = self.shutdown.request(cold=cold)
        self._poller.wake()
        if phase is Phase.COLD:
            self._pool.abandon()

    def _stop_once(self) -> None:
        """Shut down by remote control; a command that comes twice counts once."""
        if not self.shutdown.begun:
            self.stop()

    def turn(self) -> float:
        """Run one turn of the loop; returns how long it may sleep, in seconds."""
        reports = self._pool.collect()
        self._settle(reports)
        limit_in = self._hard_limits.enforce(self._app.clock.monotonic())
        self._tended = False
        self._consumer.tend()
        self._tended = True
        self._withdraw(self._consumer.lost())
        self._return_unwanted()
        self._settlement.flush()
        room = 0 if self.shutdown.begun else self._pool.room()
        taken = self._take(room) if room else 0
        due_in, look_in = self._start_due(), self._pool.look_in()
        if (room and taken == room) or (reports and not self._pool.files()):
            return 0.0  # there may be more
        others_in = min(self.shutdown.due_in(), self._consumer.idle_for())
        return max(0.0, min(_LONGEST_WAIT_S, limit_in, due_in, look_in, others_in))

    def _turn_or_back_off(self) -> None:
        """Answer commands, run a turn, and wait for the next; after an error of the broker or store, back off."""
        remote_in = self._remote.turn()
        self._metrics.turn()
        try:
            pause = min(self.turn(), remote_in)
            if self._backoff.attempts:
                self._consumer.beat()  # a server that can be read may take no writes: then this raises
                extra = {"event": "worker_reconnected", "attempts": self._backoff.attempts}
                log.info("All servers answer again, after %s", self._backoff.away_text, extra=extra)
            self._backoff.succeeded()
            self._app.outgoing.backlog.open()
            self._metrics.works()
        except (StoreError, BrokerError) as error:
            self._metrics.failed(error)
            pause = self._backoff.failed()
            if self._backoff.attempts >= PUBLISH_ATTEMPTS:
                self._app.outgoing.backlog.close(str(error))
            log_away(log, self._backoff, "A server is", pause, error)
            self._beat()
            self._back_off(pause)
            return
        files = [*self._consumer.files(), *self._pool.files(), *self._remote.files(), *self._metrics.files()]
        self._poller.until(pause, files, self._pool.unsent())

    def _beat(self) -> None:
        """Send the heartbeat after a turn in which another server than the broker has kept the worker waiting."""
        if self._tended and self._consumer.idle_for() <= 0:
            with contextlib.suppress(StoreError, BrokerError):  # the next turn finds it away
                self._consumer.beat()

    def _back_off(self, seconds: float) -> None:
        """Pause, but answer remote control; a shutdown ends the pause."""
        clock, phase = self._app.clock, self.shutdown.phase
        until = clock.monotonic() + seconds
        while (left := until - clock.monotonic()) > 0 and self.shutdown.phase is phase:
            self._poller.until(min(left, self._remote.turn()), [*self._remote.files(), *self._metrics.files()])
            self._metrics.turn()

    def _take(self, room: int) -> int:
        """Take messages and start the admitted ones; returns how many were taken."""
        deliveries = self._consumer.take(room)
        if deliveries:
            decisions = self._strategy.decide(deliveries, self._app.clock.now_ms())
            self._apply(self._settlement.settle_decisions(decisions))
            self._start(self._admission.admit(decisions.run))
            self._settlement.flush()
        return len(deliveries)

    def _start_due(self) -> float:
        """Start the requests that rate limits have delayed until now; returns the seconds until the next one."""
        if self.shutdown.begun:
            return math.inf
        if due := self._admission.due():
            self._start(self._without_revoked(due))
            if not self._pool.files():
                return 0.0  # the pool runs them in the next turn
        return self._admission.due_in()

    def _without_revoked(self, requests: list[Request]) -> list[Request]:
        """Leave out requests that were revoked during their delay."""
        revoked = [request for request in requests if self._remote.revoked and self._remote.revoked.covers(request)]
        for request in revoked:
            self._discard(request)
        return [request for request in requests if request not in revoked] if revoked else requests

    def _start(self, requests: Sequence[Request]) -> None:
        watched = self._remote.events.on
        now = self._app.clock.monotonic()
        for request in requests:
            request.submitted = now
            self._requests[request.delivery.tag] = request
            self._hard_limits.begun(request)
        if requests:
            self._pool.submit([request.job(watched=watched) for request in requests])

    def _settle(self, reports: Iterable[JobReport]) -> None:
        pairs = []
        for report in reports:
            if report.tag == NO_JOB:
                self._settlement.send(report.follow_ups)
                continue
            ended = is_end(report)
            request = self._requests.pop(report.tag, None) if ended else self._requests.get(report.tag)
            if request is not None:
                pairs.append((report, request))
            elif report.follow_ups and not ended:
                self._settlement.drop_messages(report.follow_ups)
        if pairs:
            self._apply(self._settlement.settle_reports(pairs))

    def _apply(self, effects: Sequence[Effect]) -> None:
        """Tell all parts of the worker what has changed."""
        for effect in effects:
            if isinstance(effect, (Ended, Revoked)):
                died = isinstance(effect, Ended) and effect.report.text == LOST
                self._forget(effect.request.delivery.tag, died=died)
        self._admission.forgive()
        self._metrics.on_effects(effects)
        self._remote.on_effects(effects)

    def _withdraw(self, tags: Iterable[int]) -> None:
        """Do not start messages that other workers have now."""
        for tag in tags:
            self._admission.withdraw(tag)
            if self._pool.withdraw(tag):
                self._forget(tag)

    def _return_unwanted(self) -> None:
        """Give back the messages that wait behind long tasks; a warm shutdown finishes them."""
        now = self._app.clock.monotonic()
        if now < self._unwanted_look_at or len(self._requests) <= self._pool.size or self.shutdown.begun:
            return
        self._unwanted_look_at = now + _UNWANTED_LOOK_S
        running = self._pool.running_since()
        if len(running) < self._pool.size:
            return
        waiting = [one for tag, one in self._requests.items() if tag not in running]
        unwanted = [
            one.delivery
            for one in waiting
            if now - one.submitted > UNWANTED_S and self._pool.withdraw(one.delivery.tag)
        ]
        if unwanted:
            log.debug("Gave back %d messages", len(unwanted), extra={"event": "prefetched_returned"})
        for delivery in unwanted:
            self._forget(delivery.tag)
        self._admission.forgive()
        self._settlement.give_back(unwanted)

    def _forget(self, tag: int, *, died: bool = False) -> None:
        self._requests.pop(tag, None)
        self._hard_limits.ended(tag)
        self._admission.ended(tag, died=died)

    def _discard(self, request: Request) -> None:
        """Settle a request as revoked that no process has."""
        decisions = Decisions()
        self._strategy.revoke(request, "revoked", self._app.clock.now_ms(), decisions)
        self._apply(self._settlement.settle_decisions(decisions))

    def _connect(self) -> bool:
        """Connect to the broker; False if the worker is told to stop before."""
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while not self.shutdown.begun:
            try:
                self._consumer.start(lambda: self.shutdown.begun)
            except (StoreUnavailable, BrokerError) as error:
                pause = backoff.failed()
                log.log(
                    backoff.level,
                    "Cannot connect to %s%s: %s. Trying again in %ss.",
                    self._consumer.place,
                    backoff.since_text,
                    error,
                    pause,
                    extra={"event": "worker_connecting", "attempt": backoff.attempts, "since": backoff.since},
                )
                self._metrics.failed(error)
                self._poller.until(pause, self._metrics.files())
                self._metrics.turn()
            else:
                if self.shutdown.begun:
                    return False
                log.info("Connected to %s", self._consumer.place, extra={"event": "worker_connected"})
                return True
        return False

    def _say_ready(self) -> None:
        """Say that messages and commands are taken from now on."""
        log.info("%s ready.", self._settings.hostname, extra={"event": "worker_ready"})
        self._metrics.works()
        signals.worker_ready.send(sender=self)

    def _settle_last(self) -> None:
        """Settle what has ended, and give back what has not."""
        self._settle(self._pool.collect())
        unfinished = list(self._requests.values())
        self._admission.leave(unfinished)
        self._settlement.leave(unfinished)
        self._settlement.flush()

    def _shut_down(self) -> None:
        signals.worker_shutdown.send(sender=self)
        self._pool.stop(_POOL_STOP_S if self.shutdown.phase is not Phase.COLD else 0.0)
        for step in (self._settle_last, self._consumer.stop):  # messages go back although results cannot be stored
            try:
                step()
            except (StoreError, BrokerError) as error:
                log.warning(
                    "The last results and acknowledgements were not sent, other workers run their messages again: %s",
                    error,
                    extra={"event": "worker_stop_failed"},
                )
        self._settlement.stop()
        self._remote.stop()
        self._metrics.stop()
        self._app.close()
        log.info("%s stopped.", self._settings.hostname, extra={"event": "worker_stopped"})
