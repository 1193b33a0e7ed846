"""Settling: results to the store, then acknowledgements to the broker, a whole batch at a time.

In this order: a message whose result could not be stored is still held, and comes again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from beatd.app.app import App
from beatd.exceptions import TimeLimitExceeded, WorkerLostError
from beatd.store.outcomes import FAILURE, REJECTED, STARTED, document, exception_payload
from beatd.store.results import Stored
from beatd.worker.arrival import Verdicts
from beatd.worker.consumers import Consumer
from beatd.worker.messages import KILLED, LOST, MALFORMED, Delivery, Report
from beatd.worker.request import Request

log = logging.getLogger(__name__)


class Settling:
    """Turns verdicts and reports into calls of the result store and the consumer."""

    def __init__(self, app: App, consumer: Consumer) -> None:
        self._app = app
        self._consumer = consumer

    def dispose(self, verdicts: Verdicts) -> None:
        """Carry out what was decided about messages that are not run."""
        self._app.results.store(verdicts.results)
        self._consumer.park(verdicts.park)
        self._consumer.bury(verdicts.bury)
        self._consumer.ack(verdicts.drop)

    def settle(self, pairs: Sequence[tuple[Report, Request]]) -> None:
        """Store and acknowledge what the pool has reported."""
        results: list[Stored] = []
        done: list[Delivery] = []
        again: list[Delivery] = []
        buried: list[tuple[Delivery, str]] = []
        for reported, request in pairs:
            report = self._lost(reported, request) if reported.state in (LOST, KILLED) else reported
            if report.document is not None:
                results.append(Stored(request.id, report.document))
            if report.state == MALFORMED:
                buried.append((request.delivery, report.text))
            elif report.requeue:
                again.append(request.delivery)
            elif not request.acknowledged and (report.state != STARTED or not request.task.acks_late):
                request.acknowledged = True
                done.append(request.delivery)
        self._app.results.store(results)
        self._consumer.bury(buried)
        self._consumer.give_back(again)
        self._consumer.ack(done)

    def _lost(self, report: Report, request: Request) -> Report:
        """The report for a run whose process is gone: killed by its time limit, or for a reason of its own."""
        task = request.task
        if report.state == LOST and task.reject_on_worker_lost and not request.acknowledged:
            return Report(report.tag, REJECTED, report.runtime, requeue=True)
        error: Exception = WorkerLostError(report.text)
        if report.state == KILLED:
            error = TimeLimitExceeded(request.hard_limit)
        log.error(
            "Task %s[%s] raised unexpected: %r",
            request.name,
            request.id,
            error,
            extra={"event": "task_failed", "task": request.name, "task_id": request.id},
        )
        return Report(report.tag, FAILURE, report.runtime, self._document(request, error))

    def _document(self, request: Request, error: Exception) -> bytes | None:
        headers, task = request.headers, request.task
        ignored = task.ignore_result if headers.ignore_result is None else headers.ignore_result
        if ignored and not task.store_errors_even_if_ignored:
            return None
        return document(
            request.id,
            FAILURE,
            exception_payload(error),
            date_done=self._app.now().isoformat(),
            parent_id=headers.parent_id,
        )
