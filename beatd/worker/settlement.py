"""Settlement: results to the store, follow-up messages and acknowledgements to the broker, in batches.

The order of the steps is the promise: a message is acknowledged after its result is stored and its callbacks are
published. A step that fails because a server is away keeps its items for the next flush. Every step is idempotent.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from beatd import signals
from beatd.app.app import App
from beatd.app.callbacks import FollowUp
from beatd.exceptions import (
    BrokerError,
    MessageError,
    NotRegistered,
    StoreError,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from beatd.message.protocol import safe_repr
from beatd.states import FAILURE, IGNORED, REJECTED, RETRY, REVOKED, STARTED, SUCCESS
from beatd.store.groups import Part
from beatd.store.results import Stored
from beatd.store.run_record import EXPIRED
from beatd.store.worker_state import FinishedRuns
from beatd.worker import builtin
from beatd.worker.admission.strategy import Decisions
from beatd.worker.callbacks_publisher import CallbacksPublisher, Pending
from beatd.worker.chord_completion import Chords, follow_up_of
from beatd.worker.consumers import Consumer
from beatd.worker.consumers.envelope import count_death
from beatd.worker.effects import Effect, Ended, Revoked, Started, Unregistered
from beatd.worker.execution.documents import EndDocuments
from beatd.worker.messages import (
    KILLED,
    LOST,
    MALFORMED,
    MEANWHILE,
    Delivery,
    FollowUpMessage,
    JobReport,
    headers_of,
)
from beatd.worker.request import Request, notify
from beatd.worker.result_writer import writer_of
from beatd.worker.run_outcomes import RunOutcomes, state_of

log = logging.getLogger("beatd.worker.settling")


class Settlement:
    """Collects results, follow-up messages and acknowledgements, and sends them in batches."""

    def __init__(self, app: App, consumer: Consumer, finished: FinishedRuns, hostname: str) -> None:
        self._app = app
        self._finished = finished
        self._results: list[Stored] = []
        self._follow_ups: list[Pending] = []
        self._parts: list[Part] = []
        """Ends of members of chords, to be counted."""
        self._outcomes = RunOutcomes(app.clock, hostname)
        self._documents = EndDocuments(app, hostname)
        self._park: list[tuple[Delivery, int]] = []
        self._bury: list[tuple[Delivery, str]] = []
        self._return: list[Delivery] = []
        self._reject: list[Delivery] = []
        self._ack: list[Delivery] = []
        self._publisher = CallbacksPublisher(app, self.fail, self._results.append)
        self._chords = Chords(app)
        self._writer = writer_of(app)
        store = app.results.store if self._writer is None else self._writer.store
        # What is sent, and how, in this order.
        self._steps: list[tuple[list[Any], Callable[[Any], None]]] = [
            (self._results, store),
            (self._follow_ups, self._publisher.publish),
            (self._results, store),  # of tasks whose callbacks were refused
            (self._parts, self._chords.note),
            (self._outcomes.long_runs, lambda runs: finished.began(self._outcomes.marks(runs))),
            (self._outcomes.ended, finished.remember),
            (self._park, consumer.park),
            (self._bury, consumer.bury),
            (self._return, consumer.give_back),
            (self._reject, consumer.reject),
            (self._ack, consumer.ack),
        ]

    @property
    def pending(self) -> bool:
        """True while something has not been sent."""
        return self._chords.waits or any(items for items, _ in self._steps)

    def stop(self) -> None:
        """End the thread that stores results, if there is one."""
        if self._writer is not None:
            self._writer.stop()

    def flush(self) -> None:
        """Take all steps. Raises while a server is away; the next call goes on with the step that failed."""
        self._outcomes.collect_long_runs()
        self._parts += self._chords.due()
        for items, step in self._steps:
            if items:
                try:
                    step(items)
                except (StoreError, BrokerError):
                    raise
                except Exception as error:
                    log.exception(
                        "A step of the settlement failed, its items are tried one by one",
                        extra={"event": "settlement_failed", "error": safe_repr(error), "count": len(items)},
                    )
                    _take_singly(items, step)
                items.clear()
        self._finished.remember_owed()  # last: no result and no acknowledgement waits for it

    def settle_decisions(self, decisions: Decisions) -> list[Effect]:
        """Settle the messages that are not run; returns the effects of all decisions."""
        self._results += decisions.results
        for failed in decisions.failed:
            self._add_follow_up(None, *follow_up_of(self._app, *failed))
        self._park += decisions.park
        for delivery, reason in decisions.bury:
            with contextlib.suppress(MessageError):
                self._outcomes.add(headers_of(delivery.raw), FAILURE, MessageError(reason), is_over=False)
            self.bury(delivery, reason)
        for effect in decisions.effects:
            if isinstance(effect, Revoked):
                error: Exception = TaskRevokedError(EXPIRED if effect.expired else "revoked")
                self._outcomes.add(effect.request.headers, REVOKED, error)
            elif isinstance(effect, Unregistered):
                option = builtin.step(effect.headers.task)
                step = f"; start the worker with {option}" if option else ""
                error = NotRegistered(f"the app of the worker has no task {effect.headers.task!r}{step}")
                self._outcomes.add(effect.headers, FAILURE, error)
        self._ack += decisions.drop
        return decisions.effects

    def _add_follow_up(
        self, request: Request | None, after: FollowUp, messages: Sequence[FollowUpMessage] = ()
    ) -> None:
        self._results += after.results
        self._parts += after.parts
        self._follow_ups += [(request, message) for message in messages]

    def drop(self, delivery: Delivery) -> None:
        """Acknowledge a message that is not run."""
        self._ack.append(delivery)

    def park(self, delivery: Delivery, due_ms: int) -> None:
        """Put a message aside until its time (ms since the epoch)."""
        self._park.append((delivery, due_ms))

    def fail(self, request: Request, error: Exception) -> None:
        """Store the failure of a task that did not run, or whose process did not report its end."""
        self._outcomes.add(request.headers, state_of(error), error, is_over=False)
        document = self._failure(request, error)
        if document is not None:
            self._results.append(Stored(request.id, document, request.headers.reply_to))
        self._add_follow_up(None, *follow_up_of(self._app, request.delivery, FAILURE, error))

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Return messages to the broker, for other workers."""
        self._return += deliveries

    def leave(self, unfinished: Sequence[Request]) -> None:
        """Give back unfinished requests at the end of the worker; the acknowledged ones have failed."""
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
        """Move a message that cannot be run to the dead letters."""
        log.error(
            "Message from %s goes to the dead letters: %s",
            delivery.queue,
            reason,
            extra={"event": "message_buried", "queue": delivery.queue, "reason": reason},
        )
        signals.task_rejected.send(sender=self._app, message=delivery, exc=reason)
        self._bury.append((delivery, reason))

    def settle_reports(self, pairs: Sequence[tuple[JobReport, Request]]) -> list[Effect]:
        """Settle what the pool has reported; returns the effects."""
        effects: list[Effect] = []
        for reported, request in pairs:
            if reported.state == MEANWHILE:
                self._results += reported.results
                self.send(reported.follow_ups)
                continue
            if reported.state == STARTED:
                self._settle_start(request)
                effects.append(Started(request, reported))
                notify(request, reported)
                continue
            report = self._lost(reported, request) if reported.state in (LOST, KILLED) else reported
            self._settle_end(report, request)
            effects.append(Ended(request, report))
            notify(request, report)
        return effects

    def send(self, messages: Sequence[FollowUpMessage]) -> None:
        """Publish messages of coroutines."""
        self._follow_ups += [(None, message) for message in messages]
        self._publisher.of_coroutines += messages

    def drop_messages(self, messages: Sequence[FollowUpMessage]) -> None:
        """Drop messages of a coroutine that was given up at its time limit."""
        self._app.outgoing.backlog.leave(len(messages))
        for message in messages:
            lost = message.unpack().message
            name = str(lost.headers["task"])
            text = "A message for task %s[%s] is dropped: the task that has sent it was ended before"
            log.warning(text, name, lost.id, extra={"event": "message_dropped", "task": name, "task_id": lost.id})

    def _settle_start(self, request: Request) -> None:
        self._outcomes.begin(request)
        if not request.task.acks_late:
            self._acknowledge(request)

    def _settle_end(self, report: JobReport, request: Request) -> None:
        if report.document is not None:
            self._results.append(Stored(request.id, report.document, request.headers.reply_to))
        self._results += report.results
        self._parts += report.parts
        if report.follow_ups:
            # Errbacks of a task that has failed anyway change nothing when they are refused.
            owner = request if report.state in (SUCCESS, RETRY, IGNORED) else None
            self._follow_ups += [(owner, message) for message in report.follow_ups]
        if report.state == MALFORMED:
            self.bury(request.delivery, report.text)
        elif report.requeue:
            delivery = request.delivery
            self._return.append(delivery._replace(raw=count_death(delivery.raw)) if report.text == LOST else delivery)
        elif report.state == FAILURE and not _is_acknowledged_failed(request):
            self.bury(request.delivery, f"{request.name} failed, and acks_on_failure_or_timeout is off")
        elif report.state == REJECTED and not request.acknowledged:
            self._reject.append(request.delivery)
        else:
            self._acknowledge(request)
        self._outcomes.end(report, request)

    def _acknowledge(self, request: Request) -> None:
        if not request.acknowledged:
            request.acknowledged = True
            self._ack.append(request.delivery)

    def _lost(self, report: JobReport, request: Request) -> JobReport:
        """Make the report of a run whose process is gone: killed at its time limit, or crashed."""
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
        return self._end_report(report, request, FAILURE, error, text=report.state)

    def _terminated(self, report: JobReport, request: Request) -> JobReport:
        """Make the report of a run that remote control has ended."""
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
        return self._end_report(report, request, REVOKED, error)

    def _end_report(
        self, report: JobReport, request: Request, state: str, error: Exception, text: str = ""
    ) -> JobReport:
        after, messages = follow_up_of(self._app, request.delivery, state, error)
        return JobReport(
            report.tag,
            state,
            report.runtime,
            self._failure(request, error, state),
            text,
            results=after.results,
            parts=after.parts,
            follow_ups=messages,
        )

    def _failure(self, request: Request, error: Exception, state: str = FAILURE) -> bytes | None:
        headers, task = request.headers, request.task
        ignored = task.ignore_result if headers.ignore_result is None else headers.ignore_result
        if (ignored or not request.keeps_result) and not task.store_errors_even_if_ignored:
            return None
        return self._documents.of(request.delivery, headers, state, error, self._app.clock.now_ms())


def _take_singly(items: list[Any], step: Callable[[Any], None]) -> None:
    """Take a step for each item, so that an item that no server can take holds up no other; that one is dropped."""
    while items:
        item = items[0]
        label = safe_repr(getattr(item, "task_id", type(item).__name__))
        try:
            step([item])
        except (StoreError, BrokerError):
            raise
        except Exception as error:
            log.exception(
                "Dropped by the settlement: %s",
                label,
                extra={"event": "settlement_dropped", "error": safe_repr(error), "item": label},
            )
        del items[0]


def _is_acknowledged_failed(request: Request) -> bool:
    """True if the message of a failed task is acknowledged, the default for tasks."""
    return request.acknowledged or not request.task.acks_late or request.task.acks_on_failure_or_timeout is not False
