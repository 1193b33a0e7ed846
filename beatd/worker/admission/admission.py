"""The last gate before the pool: what keeps a message from running, or from running now, that is not in the message."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from beatd.app.app import App
from beatd.exceptions import StoreError, WorkerLostError
from beatd.store.worker_state import FinishedRuns
from beatd.worker.admission.poison import CHANCES, WAIT_MS, PoisonDetector, try_spare
from beatd.worker.admission.rate_limits import RateLimits
from beatd.worker.request import Request
from beatd.worker.settlement import Settlement

log = logging.getLogger("celery.worker")


class AdmissionControl:
    """Lets requests through one by one: no repeats, no more than the rates allow, no killers."""

    def __init__(
        self,
        app: App,
        settling: Settlement,
        finished: FinishedRuns,
        rates: RateLimits,
        suspects: PoisonDetector,
        *,
        at_work: Mapping[int, Request],
    ) -> None:
        """``at_work``: what was let through and has not ended, kept by the worker."""
        self._at_work = at_work
        self._clock = app.clock
        self._settling = settling
        self._finished = finished
        self._rates = rates
        self._suspects = suspects

    def admit(self, requests: Sequence[Request]) -> list[Request]:
        """Return the requests that may run now; the others are settled or kept here. Raises StoreError."""
        run = self._without_repeats(list(requests))
        run, waiting = self._rates.admit(run, self._clock.monotonic())
        for request, seconds in waiting:
            self._settling.park(request.delivery, self._clock.now_ms() + math.ceil(seconds * 1000))
        return self._without_suspects(run)

    def due(self) -> list[Request]:
        """Return the requests whose rate limit now allows them to run."""
        due = self._rates.due(self._clock.monotonic())
        return self._without_suspects(due) if due else due

    def due_in(self) -> float:
        """Seconds until :meth:`due` has something."""
        return self._rates.next_in(self._clock.monotonic())

    def held(self) -> list[Request]:
        """Requests that are kept here for a moment."""
        return self._rates.held()

    def ended(self, tag: int) -> None:
        """A request that was let through has ended."""
        self._suspects.ended(tag)

    def leave(self, unfinished: Sequence[Request]) -> None:
        """The worker leaves: what was kept here goes back, and ``unfinished`` requests are not to blame for it."""
        self._settling.give_back([request.delivery for request in self.held()])
        try_spare(self._suspects, unfinished)

    def _without_repeats(self, requests: list[Request]) -> list[Request]:
        """Leave out runs of the scheduler that have ended before, or are at work here: their messages came twice."""
        scheduled = [one.id for one in requests if one.headers.entry is not None]
        if not scheduled:
            return requests
        try:
            ended = self._finished.among(scheduled)
        except StoreError:
            self._settling.give_back([one.delivery for one in requests])
            raise
        begun = {_attempt(one) for one in (*self._at_work.values(), *self.held())}
        run = []
        for request in requests:
            if request.headers.entry is None:
                run.append(request)
            elif request.id in ended:
                self._drop(request, "has ended before")
            elif _attempt(request) in begun:
                self._drop(request, "is at work")  # whose message is kept until it has ended
            else:
                begun.add(_attempt(request))
                run.append(request)
        return run

    def _drop(self, request: Request, why: str) -> None:
        extra = {"event": "run_repeated", "entry": request.headers.entry, "task_id": request.id}
        log.warning("Dropping %s[%s]: this run %s", request.name, request.id, why, extra=extra)
        self._settling.drop(request.delivery)

    def _without_suspects(self, requests: list[Request]) -> list[Request]:
        if not any(request.headers.redelivered for request in requests):
            return requests
        try:
            run, later, killers = self._suspects.sift(requests)
        except StoreError:
            self._settling.give_back([one.delivery for one in requests])
            raise
        for request in later:
            self._settling.park(request.delivery, self._clock.now_ms() + WAIT_MS)
        for request in killers:
            reason = f"{request.name} was running {CHANCES} times when its process or worker died"
            self._settling.fail(request, WorkerLostError(f"Worker exited prematurely: {reason}"))
            self._settling.bury(request.delivery, reason)
        return run


def _attempt(request: Request) -> tuple[str, int]:
    """Return the key that a message and its repeat have in common, and a retry has not."""
    return request.id, request.headers.retries
