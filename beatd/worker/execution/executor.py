"""Executor: opens a job's message, runs the task, logs the outcome and returns a report. Runs inside the pools."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec

from beatd import signals
from beatd.app.app import App
from beatd.app.callbacks import FollowUp, ended
from beatd.app.context import Context
from beatd.app.task import Task
from beatd.app.trace import Abandoned, ExceptionInfo, Outcome, run_task, run_task_async
from beatd.clock import perf_counter
from beatd.exceptions import MessageError, Reject, TimeLimitExceeded
from beatd.message.protocol import TaskMessage, open_envelope, safe_repr
from beatd.states import FAILURE, REJECTED, RETRY, STARTED, SUCCESS
from beatd.store.result_document import exception_payload, named_error
from beatd.store.results import Stored
from beatd.store.run_record import RunRecord, arguments_text, encoded, error_texts, result_text
from beatd.worker.execution.call import Calling
from beatd.worker.execution.callbacks import failure_messages, follow_up_messages, pack
from beatd.worker.execution.decode import accepted_types, decode_body
from beatd.worker.execution.documents import Documents, is_ignored, is_stored, wants_document
from beatd.worker.execution.job_outlet import outlet_of
from beatd.worker.execution.outcome_log import log_outcome, log_soft_limit, outcome_repr
from beatd.worker.execution.output import UNCAPTURED, Output, captured
from beatd.worker.execution.traces import task_traces
from beatd.worker.messages import KILLED, LOST, MALFORMED, FollowUpMessage, Job, JobReport

log = logging.getLogger("celery.app.trace")


class EncodeError(MessageError):
    """The failure of a task that returned a value which cannot be stored."""

    __module__ = "kombu.exceptions"  # where clients of Celery find it


class Attempt(NamedTuple):
    """A job with its opened message."""

    job: Job
    task: Task[..., Any]
    context: Context


class Executor:
    """Runs the jobs of one app under one worker's name."""

    def __init__(self, app: App, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._largest: int = app.conf.message_max_bytes
        self._accepted = accepted_types(app.conf.accept_content)
        self._largest_result: int = app.conf.result_max_bytes
        self._documents = Documents(app, hostname)
        self.traces = task_traces(app.clock)
        self.tidy: Callable[[], None] | None = None
        """Called after a task's function, to restore the state of the process; set by the pool."""
        self.say: Callable[[JobReport], object] | None = None
        """Takes reports of jobs that go on; set by a pool of threads of the worker's process."""

    def prepare(self, job: Job) -> Attempt | JobReport:
        """Open the message; returns an attempt to :meth:`run`, or the report of a malformed message."""
        try:
            message = open_envelope(job.raw)
            args, kwargs, embed = decode_body(message, self._largest, self._accepted)
        except MessageError as error:
            return JobReport(job.tag, MALFORMED, text=str(error))
        task = self._app.tasks[message.headers["task"]]
        try:
            return Attempt(job, task, self._context(message, job, args, kwargs, embed))
        except Exception as error:  # noqa: BLE001 - headers are the sender's: none of them may end this process
            return JobReport(job.tag, MALFORMED, text=f"its headers cannot be used: {error!r}")

    def run(self, attempt: Attempt, hard_limit: float | None = None) -> JobReport:
        """Run to the end in this thread and report; raises only :class:`~beatd.app.trace.Abandoned`.

        ``hard_limit`` (seconds) is for the pool in which no other process can end the run.
        """
        if self.say is None:
            return self._run(attempt, hard_limit)
        with outlet_of(attempt.job.tag, self.say):
            return self._run(attempt, hard_limit)

    def _run(self, attempt: Attempt, hard_limit: float | None) -> JobReport:
        if attempt.task.track_started:
            self._store_start(attempt)
        started = perf_counter()
        try:
            with captured() if attempt.job.record else UNCAPTURED as output, self.traces.run(attempt.context) as done:
                call = Calling(attempt.job.soft_limit, hard_limit)
                outcome = run_task(attempt.task, attempt.context, call.call, partial(self._encode, attempt))
                done(outcome)
            if call.is_over:
                log_soft_limit(log, attempt.context, attempt.job.soft_limit)
            return self._recorded(attempt, outcome, output, self._report(*attempt, outcome, perf_counter() - started))
        except Abandoned:
            raise
        except BaseException as error:  # noqa: BLE001
            return self._defect(attempt, error, perf_counter() - started)

    async def run_async(self, attempt: Attempt) -> JobReport:
        """:meth:`run` in the event loop that is running. Raises ``CancelledError`` when this run is cancelled."""
        with outlet_of(attempt.job.tag, self.say, takes_messages=True):
            return await self._run_async(attempt)

    async def _run_async(self, attempt: Attempt) -> JobReport:
        if attempt.task.track_started:
            self._store_start(attempt)
        started = perf_counter()
        try:
            with captured() if attempt.job.record else UNCAPTURED as output, self.traces.run(attempt.context) as done:
                call = Calling(attempt.job.soft_limit)
                check = partial(self._encode, attempt)
                outcome = await run_task_async(attempt.task, attempt.context, call.call_async, check)
                done(outcome)
            if call.is_over:
                log_soft_limit(log, attempt.context, attempt.job.soft_limit)
            return await self._reported(attempt, outcome, output, perf_counter() - started)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001
            return self._defect(attempt, error, perf_counter() - started)

    async def cancelled(self, attempt: Attempt, runtime: float) -> JobReport:
        """Make the report of a run that code of another task has cancelled: it failed. Raises ``CancelledError``."""
        error = asyncio.CancelledError("code in the event loop has cancelled the task")
        outcome = Outcome(FAILURE, error, ExceptionInfo(error))
        try:
            with outlet_of(attempt.job.tag, self.say, takes_messages=True):
                return await self._reported(attempt, outcome, Output(), runtime)
        except asyncio.CancelledError:
            raise
        except BaseException as again:  # noqa: BLE001
            return self._defect(attempt, again, runtime)

    async def _reported(self, attempt: Attempt, outcome: Outcome, output: Output, runtime: float) -> JobReport:
        if not _has_followers(attempt.context):
            report = self._report(*attempt, outcome, runtime)
        else:  # errbacks run in a report, and a chord is registered in the result backend: not in this thread
            report = await asyncio.to_thread(self._report, *attempt, outcome, runtime)
        return self._recorded(attempt, outcome, output, report)

    def __call__(self, job: Job, on_begin: Callable[[int], object]) -> JobReport:
        """Prepare and run one job; ``on_begin`` gets its tag when its task begins, if the job's start is reported."""
        prepared = self.prepare(job)
        if isinstance(prepared, JobReport):
            return prepared
        if job.announce:
            on_begin(job.tag)
        return self.run(prepared)

    def _context(self, message: TaskMessage, job: Job, args: Any, kwargs: Any, embed: dict[str, Any]) -> Context:
        info = dict(message.properties.get("delivery_info") or {})
        info.setdefault("routing_key", job.queue)
        info["priority"] = message.properties.get("priority")
        info["redelivered"] = bool(message.headers.get("redelivered"))
        return Context(
            message.headers,
            **_OF_THIS_ATTEMPT,
            args=args,
            kwargs=kwargs,
            callbacks=embed.get("callbacks"),
            errbacks=embed.get("errbacks"),
            chain=embed.get("chain"),
            chord=embed.get("chord"),
            called_directly=False,
            hostname=self._hostname,
            delivery_info=info,
            properties=message.properties,
            postponed=[],
            correlation_id=message.properties.get("correlation_id"),
            reply_to=message.properties.get("reply_to"),
        )

    def _encode(self, attempt: Attempt, value: Any) -> None:
        """Encode the document of a result, if it is to be stored; raises :class:`EncodeError`.

        It is done before hooks and signals are told of a success that would be none.
        """
        job, task, context = attempt
        if type(value) not in _ALWAYS_STORABLE and wants_document(job, task, context):
            context.encoded = len(context.children), self._document(context, value)

    def _store_start(self, attempt: Attempt) -> None:
        """Store STARTED for a task with ``track_started``, on the way of the states that the task itself stores."""
        job, task, context = attempt
        if not wants_document(job, task, context):
            return
        facts = {"pid": os.getpid(), "hostname": self._hostname}
        try:
            stored = Stored(str(context.id), self._documents.of(context, STARTED, facts), context.reply_to or "")
            self._app.store_results([stored])
        except Exception as error:  # noqa: BLE001 - the task runs all the same
            log.warning(
                "Task %s[%s]: STARTED cannot be stored: %s",
                task.name,
                context.id,
                error,
                extra={"event": "start_not_stored", "task": task.name, "task_id": context.id},
            )

    def _report(self, job: Job, task: Task[..., Any], context: Context, outcome: Outcome, runtime: float) -> JobReport:
        if self.tidy is not None:  # not before: its time does not belong to the task
            self.tidy()
        outcome, encoded = self._encoded(job, task, context, _possible(task, outcome))
        follow_ups = pack(context.postponed) if context.postponed else []
        if outcome.state == SUCCESS and (context.callbacks or context.chain):
            callbacks, error = follow_up_messages(self._app, task, context, outcome.value)
            follow_ups += callbacks
            if error is not None:
                failed = Outcome(FAILURE, error, ExceptionInfo(error))
                outcome, encoded = self._encoded(job, task, context, failed)
            elif context.children and encoded is not None:
                encoded = self._documents.of_outcome(context, outcome)  # its children are known only now
        log_outcome(log, task, context, outcome, runtime)
        after, errbacks = self._after(context, outcome)
        requeue = outcome.state == REJECTED and bool(outcome.value.requeue)
        text = KILLED if isinstance(outcome.value, TimeLimitExceeded) else ""
        return JobReport(
            job.tag,
            outcome.state,
            runtime,
            encoded,
            text=text,
            requeue=requeue,
            results=after.results,
            parts=after.parts,
            outcome_repr=outcome_repr(task, outcome) if job.describe else "",
            traceback=outcome.traceback if job.describe else None,
            follow_ups=follow_ups + errbacks,
        )

    def _recorded(self, attempt: Attempt, outcome: Outcome, output: Output, report: JobReport) -> JobReport:
        """Return the report with the record of the attempt, if the job asks for one."""
        if not attempt.job.record:
            return report
        error = None
        if outcome.state in (FAILURE, RETRY, REJECTED):
            error = (outcome.value.exc if outcome.state == RETRY else outcome.value) or outcome.value
        elif report.state == FAILURE:  # the result could not be stored, or a callback not be made
            error = MessageError("the result cannot be stored, or a callback cannot be sent; the worker's log says why")
        result = ""
        if report.state == SUCCESS and not is_ignored(attempt.task, attempt.context):
            result = result_text(outcome.value)
        record = self._record(attempt, report, error, outcome.traceback, output.text, result=result)
        return msgspec.structs.replace(report, record=record)

    def _record(
        self,
        attempt: Attempt,
        report: JobReport,
        error: BaseException | None,
        traceback: str | None,
        output: str,
        *,
        result: str = "",
    ) -> bytes:
        _, task, context = attempt
        end_ms = self._app.clock.now_ms()
        record = RunRecord(
            run_id=str(context.id),
            state=report.state,
            end_ms=end_ms,
            start_ms=end_ms - int(report.runtime * 1000),
            worker=self._hostname,
            task=task.name,
            attempt=(context.retries or 0) + 1,
            output=output,
            args=arguments_text(context.args),
            kwargs=arguments_text(context.kwargs),
            result=result,
            **({} if error is None else error_texts(error, traceback)),
        )
        return encoded(record)

    def _after(self, context: Context, outcome: Outcome) -> tuple[FollowUp, list[FollowUpMessage]]:
        """Return the effects of the outcome on other tasks, for the store and the broker; call the errbacks."""
        if outcome.state == SUCCESS:
            if not context.chord:
                return _NOTHING
            try:
                return FollowUp([], ended(context, SUCCESS, outcome.value)), []
            except MessageError as error:  # the result is not stored, but the chord needs it
                return FollowUp([], ended(context, FAILURE, exception_payload(error))), []
        if outcome.state == FAILURE or (outcome.state == REJECTED and not outcome.value.requeue):
            if not (context.chord or context.chain or context.errbacks):
                return _NOTHING
            after, messages = failure_messages(self._app, context, outcome.value, outcome.traceback)
            own = ended(context, FAILURE, exception_payload(outcome.value))
            return FollowUp(after.results, own + after.parts), messages
        return _NOTHING

    def _defect(self, attempt: Attempt, error: BaseException, runtime: float) -> JobReport:
        """Make the report of an attempt that failed after the end of the task's function; never raises."""
        try:
            return self._defect_report(attempt, error, runtime)
        except Exception as again:  # noqa: BLE001 - what nobody has thought of must not end a thread without a report
            return JobReport(attempt.job.tag, LOST, runtime, text=f"its end could not be reported: {safe_repr(again)}")

    def _defect_report(self, attempt: Attempt, error: BaseException, runtime: float) -> JobReport:
        job, task, context = attempt
        if self.tidy is not None:  # a hook may have closed what the log is written to
            self.tidy()
        log.error(
            "Task %s[%s]: its outcome could not be reported",
            task.name,
            context.id,
            exc_info=error,
            extra={"event": "execution_failed", "task": task.name, "task_id": context.id},
        )
        facts = {"task_id": context.id, "args": context.args, "kwargs": context.kwargs, "request": context}
        signals.task_internal_error.send(sender=task, exception=error, traceback=error.__traceback__, **facts)
        payload = named_error(type(error).__name__, safe_repr(error), module="builtins")
        wanted = wants_document(job, task, context)
        try:
            after, errbacks = failure_messages(self._app, context, error, None)
        except Exception:  # noqa: BLE001 - this may be the defect
            after, errbacks = _NOTHING
        report = JobReport(
            job.tag,
            FAILURE,
            runtime,
            self._documents.of(context, FAILURE, payload) if wanted else None,
            results=after.results,
            parts=ended(context, FAILURE, payload) + after.parts,
            follow_ups=errbacks,
        )
        if not job.record:
            return report
        return msgspec.structs.replace(report, record=self._record(attempt, report, error, None, ""))

    def _encoded(
        self, job: Job, task: Task[..., Any], context: Context, outcome: Outcome
    ) -> tuple[Outcome, bytes | None]:
        """Return the outcome and the document to store; a result that JSON cannot carry is a failure."""
        if not is_stored(job, task, context, outcome):
            return outcome, None
        if outcome.state == SUCCESS:
            children, encoded = context.encoded or (-1, b"")
            try:
                return outcome, encoded if children == len(context.children) else self._document(context, outcome.value)
            except EncodeError as refused:
                outcome = Outcome(FAILURE, refused)
        try:
            encoded = self._documents.of_outcome(context, outcome)
            if len(encoded) <= self._largest_result:
                return outcome, encoded
        except Exception as failed:  # noqa: BLE001 - an exception's own methods may do anything
            log.debug("Task %s[%s]: its exception is stored as text: %s", task.name, context.id, safe_repr(failed))
        kind = type(outcome.value)
        arguments = outcome.value.args if kind is EncodeError else (safe_repr(outcome.value),)
        payload = named_error(kind.__qualname__, *arguments, module=kind.__module__)
        return outcome, self._documents.of(context, outcome.state, payload)

    def _document(self, context: Context, value: Any) -> bytes:
        """Return the document of a result; raises :class:`EncodeError`."""
        try:
            encoded = self._documents.of(context, SUCCESS, value)
            if len(encoded) <= self._largest_result:
                return encoded
            error = MessageError(f"{len(encoded)} bytes, more than result_max_bytes ({self._largest_result}) allows")
        except Exception as failed:  # noqa: BLE001 - a result's own methods may do anything
            error = failed if isinstance(failed, MessageError) else MessageError(safe_repr(failed))
        raise EncodeError(f"the result cannot be stored: {error}")


_ALWAYS_STORABLE = frozenset({type(None), bool, int, float})
_NOTHING: tuple[FollowUp, list[FollowUpMessage]] = (FollowUp([], []), [])
_OF_THIS_ATTEMPT: dict[str, Any] = {"stored_state": False, "override_max_retries": None, "encoded": None}
"""Fields of a context that are no headers of a message, whatever its sender has written."""


def begun(tag: int, pid: int | None = None) -> JobReport:
    """Make the report of a job's start in a process, by default in this one."""
    return JobReport(tag, STARTED, text=str(pid or os.getpid()))


def _has_followers(context: Context) -> bool:
    return bool(context.callbacks or context.chain or context.errbacks)


def _possible(task: Task[..., Any], outcome: Outcome) -> Outcome:
    """Return the outcome; a message that was acknowledged when its task began cannot be requeued."""
    if outcome.state != REJECTED or task.acks_late or not outcome.value.requeue:
        return outcome
    reason = f"{outcome.value.reason} (not requeued: without acks_late it was acknowledged when the task began)"
    return Outcome(REJECTED, Reject(reason, requeue=False), outcome.einfo)
