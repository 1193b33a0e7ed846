"""The worker: one loop between a consumer and a pool.

Each turn settles what the pool reports, takes what the pool has room for, and then waits until something happens. All
network calls are made here, for whole batches; the pool makes none.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from beatd.app import signals
from beatd.app.app import App
from beatd.exceptions import BrokerError, StoreError, StoreUnavailable
from beatd.store.outcomes import STARTED
from beatd.worker.arrival import Arrival, Verdicts
from beatd.worker.consumers import Consumer
from beatd.worker.control.remote import Remote
from beatd.worker.control.station import Tools
from beatd.worker.finished import FinishedRuns
from beatd.worker.messages import Job, Report
from beatd.worker.pools.port import Pool
from beatd.worker.request import Request
from beatd.worker.settings import WorkerSettings
from beatd.worker.settling import Settling
from beatd.worker.waiting import Waiting

log = logging.getLogger("celery.worker")

_LONGEST_WAIT_S = 0.5
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
        remote: Remote,
    ) -> None:
        self._app = app
        self._settings = settings
        self._consumer = consumer
        self._pool = pool
        self._arrival = Arrival(app, remote.revoked)
        self._finished_runs = finished
        self._settling = Settling(app, consumer, finished, settings.hostname)
        self._requests: dict[int, Request] = {}
        """By tag: what the pool has."""
        self._waiting = Waiting()
        self._stops = 0
        self._failures = 0
        self._remote = remote
        remote.attach(
            Tools(pool=pool, consumer=consumer, requests=self._requests, stop=self._stop_once, drop=self._drop)
        )

    def run(self) -> None:
        """Work until stopped. Raises only what keeps it from starting: a broker that refuses."""
        self._pool.start()  # before there are connections and threads that a fork would copy
        try:
            self._connect()
            self._remote.start()
            while not self._finished():
                self._survive()
        finally:
            self._shut_down()

    def stop(self, *, cold: bool = False) -> None:
        """First: take nothing more, finish what runs (warm). Again, or ``cold``: leave it and give it back."""
        self._stops += 2 if cold else 1
        self._waiting.wake()

    def _stop_once(self) -> None:
        """By remote control: a command that came twice is one wish."""
        if not self._stops:
            self.stop()

    @property
    def stops(self) -> int:
        """How often :meth:`stop` was called."""
        return self._stops

    def turn(self) -> float:
        """One turn of the loop; returns how long it may sleep, in seconds."""
        reports = self._pool.collect()
        self._settle(reports)
        limit_in = self._enforce_limits()
        self._consumer.tend()
        self._settling.flush()
        room = 0 if self._stops else self._pool.room()
        taken = self._admit(room) if room else 0
        if (room and taken == room) or (reports and not self._pool.files()):
            return 0.0  # there may be more
        return max(0.0, min(_LONGEST_WAIT_S, limit_in, self._consumer.idle_for()))

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
            self._waiting.sleep(pause)
        else:
            self._waiting.until(pause, [*self._consumer.files(), *self._pool.files(), *self._remote.files()])

    def _admit(self, room: int) -> int:
        """Take messages and hand those that may run to the pool; returns how many were taken."""
        deliveries = self._consumer.take(room)
        if deliveries:
            verdicts = self._arrival.judge(deliveries, self._app.clock.now_ms())
            self._settling.dispose(verdicts)
            self._remote.judged(verdicts)
            self._start(self._without_repeats(verdicts.run))
            self._settling.flush()
        return len(deliveries)

    def _without_repeats(self, requests: list[Request]) -> list[Request]:
        """Leave out runs of the scheduler that have ended before: their messages were sent, or delivered, twice."""
        scheduled = [one.id for one in requests if one.headers.entry is not None]
        if not scheduled:
            return requests
        try:
            repeats = self._finished_runs.among(scheduled)
        except StoreError:
            self._settling.give_back([one.delivery for one in requests])
            raise
        for request in requests:
            if request.id in repeats:
                log.warning(
                    "Dropping %s[%s]: this run has ended before",
                    request.name,
                    request.id,
                    extra={"event": "run_repeated", "entry": request.headers.entry, "task_id": request.id},
                )
                self._settling.drop(request.delivery)
        return [one for one in requests if one.id not in repeats]

    def _start(self, requests: Sequence[Request]) -> None:
        jobs = []
        watched = self._remote.events.on
        for request in requests:
            delivery = request.delivery
            self._requests[delivery.tag] = request
            task = request.task
            jobs.append(
                Job(
                    delivery.tag,
                    delivery.raw,
                    delivery.queue,
                    announce=not task.acks_late or bool(task.track_started) or task.Request is not None or watched,
                    soft_limit=request.soft_limit,
                    hard_limit=request.hard_limit,
                )
            )
        if jobs:
            self._pool.submit(jobs)

    def _settle(self, reports: Sequence[Report]) -> None:
        if not reports:
            return
        pairs = []
        for report in reports:
            request = self._requests.get(report.tag)
            if request is not None:
                pairs.append((report, request))
                if report.state != STARTED:
                    del self._requests[report.tag]
                elif request.terminated is not None:
                    self._pool.kill(report.tag, request.terminated)  # revoked when it was about to begin
        for report, request in self._settling.settle(pairs):
            self._remote.reported(request, report)

    def _drop(self, request: Request) -> None:
        """Settle a request as revoked that the pool has given back."""
        del self._requests[request.delivery.tag]
        verdicts = Verdicts()
        self._arrival.revoke(request, "revoked", self._app.clock.now_ms(), verdicts)
        self._settling.dispose(verdicts)
        self._remote.judged(verdicts)

    def _enforce_limits(self) -> float:
        """End runs that have used up their hard time limit; returns the seconds until the next one will have."""
        now, next_in = self._app.clock.monotonic(), math.inf
        for tag, since in self._pool.running_since().items():
            request = self._requests.get(tag)
            limit = request.hard_limit if request is not None else None
            if request is None or not limit:
                continue
            left = since + limit - now
            if left > 0:
                next_in = min(next_in, left)
            elif self._pool.kill(tag):
                log.error(
                    "Hard time limit (%ss) exceeded for %s[%s]",
                    limit,
                    request.name,
                    request.id,
                    extra={"event": "task_time_limit", "task": request.name, "task_id": request.id},
                )
        return next_in

    def _finished(self) -> bool:
        return self._stops > 1 or (self._stops == 1 and not self._requests)

    def _connect(self) -> None:
        attempt = 0
        while not self._stops:
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
        self._pool.stop(5.0 if self._stops < 2 else 0.0)
        self._remote.stop()
        try:
            self._settle(self._pool.collect())
            self._settling.flush()
            self._consumer.stop()
        except (StoreError, BrokerError) as error:
            log.warning(
                "Could not say goodbye to the broker, others will notice: %s",
                error,
                extra={"event": "worker_stop_failed"},
            )
        self._app.close()
        log.info("%s stopped.", self._settings.hostname, extra={"event": "worker_stopped"})
