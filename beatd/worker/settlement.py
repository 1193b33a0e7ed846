"""Settling: results to the store, then acknowledgements to the broker, a whole batch at a time.

In this order: a message whose result could not be stored is still held. What could not be settled because a server was
away stays here and is settled when it is back; repeating a step does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from beatd import signals
from beatd.app.app import App
from beatd.app.callbacks import FollowUp
from beatd.exceptions import TaskRevokedError, TimeLimitExceeded, WorkerLostError
from beatd.states import FAILURE, IGNORED, REJECTED, REVOKED, STARTED, SUCCESS
from beatd.store.groups import Part
from beatd.store.result_document import document, exception_payload
from beatd.store.results import Stored
from beatd.store.worker_state import Ended, FinishedRuns
from beatd.worker.admission.strategy import Decisions
from beatd.worker.chord_completion import Chords, aftermath_of
from beatd.worker.consumers import Consumer
from beatd.worker.consumers.envelope import count_death
from beatd.worker.messages import KILLED, LOST, MALFORMED, Delivery, JobReport
from beatd.worker.request import Request, notify

log = logging.getLogger("beatd.worker.settling")


class Settlement:
    """Collects what is to be told to the result store and the broker, and tells it."""

    def __init__(self, app: App, consumer: Consumer, finished: FinishedRuns, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._results: list[Stored] = []
        self._parts: list[Part] = []
        self._finished: list[Ended] = []
        self._park: list[tuple[Delivery, int]] = []
        self._bury: list[tuple[Delivery, str]] = []
        self._return: list[Delivery] = []
        self._ack: list[Delivery] = []
        self._steps: list[tuple[list[Any], Callable[[Any], None]]] = [
            (self._results, app.results.store),
            (self._parts, Chords(app).note),
            (self._finished, finished.remember),
            (self._park, consumer.park),
            (self._bury, consumer.bury),
            (self._return, consumer.give_back),
            (self._ack, consumer.ack),
        ]

    def flush(self) -> None:
        """Tell all that is known. What is not told when this raises will be told by the next call."""
        for items, step in self._steps:
            if items:
                step(items)
                items.clear()

    def dispose(self, verdicts: Decisions) -> None:
        """Take note of what was decided about messages that are not run."""
        self._results += verdicts.results
        for failed in verdicts.failed:
            self._follow(aftermath_of(self._app, *failed))
        self._park += verdicts.park
        for delivery, reason in verdicts.bury:
            self.bury(delivery, reason)
        self._ack += verdicts.drop

    def _follow(self, after: FollowUp) -> None:
        self._results += after.results
        self._parts += after.parts

    def drop(self, delivery: Delivery) -> None:
        """Take note of a message that need not be run."""
        self._ack.append(delivery)

    def park(self, delivery: Delivery, due_ms: int) -> None:
        """Take note of a message that is to be run at that time (ms since the epoch)."""
        self._park.append((delivery, due_ms))

    def fail(self, request: Request, error: Exception) -> None:
        """Take note that a task has failed without a run, or without an end of its run that anybody saw."""
        document = self._failure(request, error)
        if document is not None:
            self._results.append(Stored(request.id, document))
        self._follow(aftermath_of(self._app, request.delivery, FAILURE, error))

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Take note of messages that others shall run."""
        self._return += deliveries

    def leave(self, unfinished: Sequence[Request]) -> None:
        """The worker leaves: what it could not finish goes back, and has failed if that cannot be done any more."""
        for request in unfinished:
            facts = {"task": request.name, "task_id": request.id}
            if not request.acknowledged:
                self._return.append(request.delivery)
                text = "Task %s[%s] is given back unfinished: the worker leaves"
                log.warning(text, request.name, request.id, extra={"event": "task_given_back", **facts})
            else:
                self.fail(request, WorkerLostError("Worker shut down before the task had ended."))
                text = "Task %s[%s] is lost: the worker leaves, and it was acknowledged when it began"
                log.error(text, request.name, request.id, extra={"event": "task_lost", **facts})

    def bury(self, delivery: Delivery, reason: str) -> None:
        """Take note of a message that nobody can run: it goes to the dead letters."""
        log.error(
            "Message from %s goes to the dead letters: %s",
            delivery.queue,
            reason,
            extra={"event": "message_buried", "queue": delivery.queue, "reason": reason},
        )
        signals.task_rejected.send(sender=self._app, message=delivery, exc=reason)
        self._bury.append((delivery, reason))

    def settle(self, pairs: Sequence[tuple[JobReport, Request]]) -> list[tuple[JobReport, Request]]:
        """Take note of what the pool has reported; returns what that means for those whose process is gone."""
        settled = []
        for reported, request in pairs:
            report = self._lost(reported, request) if reported.state in (LOST, KILLED) else reported
            if report.state == STARTED:
                self._begun(report, request)
            else:
                self._ended(report, request)
            notify(request, report)
            settled.append((report, request))
        return settled

    def _begun(self, report: JobReport, request: Request) -> None:
        if request.task.track_started:
            facts = {"pid": int(report.text or 0), "hostname": self._hostname}
            self._results.append(Stored(request.id, document(request.id, STARTED, facts)))
        if not request.task.acks_late:
            self._acknowledge(request)

    def _ended(self, report: JobReport, request: Request) -> None:
        if report.document is not None:
            self._results.append(Stored(request.id, report.document))
        self._follow(FollowUp(report.results, report.parts))
        if report.state == MALFORMED:
            self.bury(request.delivery, report.text)
        elif report.requeue:
            delivery = request.delivery
            died = report.text == LOST
            self._return.append(delivery._replace(raw=count_death(delivery.raw)) if died else delivery)
        elif report.state == FAILURE and not _is_acknowledged_failed(request):
            self.bury(request.delivery, f"{request.name} failed, and acks_on_failure_or_timeout is off")
        else:
            self._acknowledge(request)
        headers = request.headers
        if headers.entry is not None and _is_over(report):
            self._finished.append(Ended(request.id, headers.entry, headers.due_at, report.state, report.runtime))

    def _acknowledge(self, request: Request) -> None:
        if not request.acknowledged:
            request.acknowledged = True
            self._ack.append(request.delivery)

    def _lost(self, report: JobReport, request: Request) -> JobReport:
        """The report for a run whose process is gone: killed by its time limit, or for a reason of its own."""
        task = request.task
        if request.terminated is not None:
            return self._terminated(report, request)
        if report.state == LOST and task.reject_on_worker_lost and not request.acknowledged:
            return JobReport(report.tag, REJECTED, report.runtime, text=LOST, requeue=True)
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
        after = aftermath_of(self._app, request.delivery, FAILURE, error)
        document = self._failure(request, error)
        return JobReport(
            report.tag, FAILURE, report.runtime, document, report.state, results=after.results, parts=after.parts
        )

    def _terminated(self, report: JobReport, request: Request) -> JobReport:
        """The report for a run that was ended by remote control."""
        error = TaskRevokedError("terminated")
        log.info(
            "Task %s[%s] terminated (signal %s)",
            request.name,
            request.id,
            request.terminated,
            extra={"event": "task_terminated", "task": request.name, "task_id": request.id},
        )
        signals.task_revoked.send(
            sender=request.task, request=request, terminated=True, signum=request.terminated, expired=False
        )
        after = aftermath_of(self._app, request.delivery, REVOKED, error)
        document = self._failure(request, error, REVOKED)
        return JobReport(report.tag, REVOKED, report.runtime, document, results=after.results, parts=after.parts)

    def _failure(self, request: Request, error: Exception, state: str = FAILURE) -> bytes | None:
        headers, task = request.headers, request.task
        ignored = task.ignore_result if headers.ignore_result is None else headers.ignore_result
        if ignored and not task.store_errors_even_if_ignored:
            return None
        return document(
            request.id,
            state,
            exception_payload(error),
            date_done=self._app.now().isoformat(),
            parent_id=headers.parent_id,
        )


def _is_acknowledged_failed(request: Request) -> bool:
    """True if the message is acknowledged although its task failed: the default of a task."""
    return request.acknowledged or not request.task.acks_late or request.task.acks_on_failure_or_timeout is not False


def _is_over(report: JobReport) -> bool:
    """True if the run will not be tried again."""
    return report.state in (SUCCESS, FAILURE, IGNORED, REJECTED, REVOKED) and not report.requeue
