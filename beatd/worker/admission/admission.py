"""Admission control: the checks before the pool that do not depend on the message alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from beatd.app.app import App
from beatd.exceptions import StoreError, WorkerLostError
from beatd.store.ended_runs import SentRun
from beatd.store.worker_state import FinishedRuns
from beatd.worker.admission.poison import MAX_DEATHS, QUARANTINE_MS, PoisonDetector
from beatd.worker.admission.rate_limits import RateLimits
from beatd.worker.messages import Headers
from beatd.worker.request import Request
from beatd.worker.settlement import Settlement

log = logging.getLogger("celery.worker")


class AdmissionControl:
    """Admits requests: no repeats, no more than the rate limits allow, no poison messages."""

    def __init__(
        self,
        app: App,
        settlement: Settlement,
        finished: FinishedRuns,
        rates: RateLimits,
        poison: PoisonDetector,
        *,
        at_work: Mapping[int, Request],
    ) -> None:
        """``at_work``: the admitted requests that have not ended, kept by the worker."""
        self._at_work = at_work
        self._clock = app.clock
        self._results = app.results
        self._settlement = settlement
        self._finished = finished
        self._rates = rates
        self._poison = poison

    def admit(self, requests: Sequence[Request]) -> list[Request]:
        """Return the requests that may run now; settle or delay the others. Raises StoreError."""
        run = self._without_repeats(list(requests))
        run, waiting = self._rates.admit(run, self._clock.monotonic())
        for request, seconds in waiting:
            self._settlement.park(request.delivery, self._clock.now_ms() + math.ceil(seconds * 1000))
        return self._without_poison(run)

    def due(self) -> list[Request]:
        """Return the delayed requests that may run now."""
        due = self._rates.due(self._clock.monotonic())
        return self._without_poison(due) if due else due

    def due_in(self) -> float:
        """Return the seconds until the next delayed request may run."""
        return self._rates.next_in(self._clock.monotonic())

    def held(self) -> list[Request]:
        """Return the delayed requests."""
        return self._rates.held()

    def withdraw(self, tag: int) -> None:
        """Forget a delayed request: its message is another worker's now."""
        self._rates.withdraw(tag)

    def ended(self, tag: int, *, died: bool = False) -> None:
        """Forget an admitted request that has ended, or whose process has ``died``; :meth:`forgive` follows."""
        self._poison.ended(tag, died=died)

    def forgive(self) -> None:
        """Take back the death counts of what has ended otherwise, before its message is returned."""
        self._poison.forgive()

    def leave(self, unfinished: Sequence[Request]) -> None:
        """Give back delayed requests at the end of the worker; ``unfinished`` requests do not count as poison."""
        self._settlement.give_back([request.delivery for request in self.held()])
        for request in unfinished:
            self.ended(request.delivery.tag)
        self.forgive()

    def _without_repeats(self, requests: list[Request]) -> list[Request]:
        """Drop scheduled runs that have ended before or run here: duplicates of their messages."""
        scheduled = [_sent(one.headers, one.headers.entry) for one in requests if one.headers.entry is not None]
        if not scheduled:
            return requests
        try:
            ended = self._finished.among(scheduled)
            if not type(self._results).keeps_runs:  # a daemon with another store finds only the documents
                self._results.keeps_runs = not self._finished.holds_schedule()
        except StoreError:
            self._settlement.give_back([one.delivery for one in requests])
            raise
        begun = {_attempt(one) for one in (*self._at_work.values(), *self.held())}
        run = []
        for request in requests:
            if request.headers.entry is None:
                run.append(request)
            elif request.id in ended:
                self._drop(request, "has ended before")
            elif _attempt(request) in begun:
                self._drop(request, "is running")  # the first message is kept until the end of the run
            else:
                begun.add(_attempt(request))
                run.append(request)
        return run

    def _drop(self, request: Request, why: str) -> None:
        extra = {"event": "run_repeated", "entry": request.headers.entry, "task_id": request.id}
        log.warning("Dropping %s[%s]: this run %s", request.name, request.id, why, extra=extra)
        self._settlement.drop(request.delivery)

    def _without_poison(self, requests: list[Request]) -> list[Request]:
        if not any(request.headers.redelivered for request in requests):
            return requests
        try:
            run, later, killers = self._poison.sift(requests)
        except StoreError:
            self._settlement.give_back([one.delivery for one in requests])
            raise
        for request in later:
            self._settlement.park(request.delivery, self._clock.now_ms() + QUARANTINE_MS)
        for request in killers:
            reason = f"{request.name} was running {MAX_DEATHS} times when its process or worker died"
            self._settlement.fail(request, WorkerLostError(f"Worker exited prematurely: {reason}"))
            self._settlement.bury(request.delivery, reason)
        return run


def _sent(headers: Headers, entry: str) -> SentRun:
    return SentRun(headers.id, entry, headers.due_at, headers.after_ms, bool(headers.redelivered))


def _attempt(request: Request) -> tuple[str, int]:
    """Return the key that a message shares with its duplicate, but not with a retry."""
    return request.id, request.headers.retries
