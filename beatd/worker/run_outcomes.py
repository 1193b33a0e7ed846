"""Outcomes of the scheduler's runs, collected for the store: which are running, and how each attempt ended.

Most ends come with a record that the task's process has made. This module makes the records of runs that had no
process, or whose process ended before it could report: refused, revoked, expired, killed, lost.
"""

from __future__ import annotations

from collections.abc import Sequence

from beatd.clock import Clock
from beatd.exceptions import MessageError, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from beatd.states import FAILURE, IGNORED, REJECTED, RETRY, REVOKED, SUCCESS
from beatd.store.outcomes import Ended, Started
from beatd.store.run_record import RunRecord, encoded, error_texts
from beatd.worker.messages import KILLED, LOST, MALFORMED, Headers, JobReport
from beatd.worker.request import Request

MARK_MS = 2_000
"""Runs that take longer are marked as running, and again every so often."""


class RunOutcomes:
    """Collects the outcomes of the scheduler's runs for the store; messages of other clients are passed over."""

    def __init__(self, clock: Clock, hostname: str) -> None:
        self.ended: list[Ended] = []
        """Ends of attempts that have not been sent to the store."""
        self.long_runs: list[Request] = []
        """Runs to be marked as running."""
        self._clock = clock
        self._hostname = hostname
        self._running: dict[int, tuple[Request, int]] = {}  # runs that have begun, by tag, and when (ms)
        self._marked_ms = 0

    def begin(self, request: Request) -> None:
        """Note that a run has begun."""
        if request.headers.entry is not None:
            self._running[request.delivery.tag] = request, self._clock.now_ms()

    def collect_long_runs(self) -> None:
        """Collect the runs that take a while: status commands show them as running while they are marked again."""
        if not self._running:
            return
        now_ms = self._clock.now_ms()
        if _is_long(self._marked_ms, now_ms):
            self._marked_ms = now_ms
            self.long_runs[:] = [run for run, begun_ms in self._running.values() if _is_long(begun_ms, now_ms)]

    def marks(self, runs: Sequence[Request]) -> dict[str, Started]:
        """Return the marks of these runs, by their id."""
        return {run.id: self._mark(run) for run in runs}

    def _mark(self, request: Request) -> Started:
        begun_ms = self._running.get(request.delivery.tag, (request, self._marked_ms))[1]
        return Started(begun_ms, self._clock.now_ms(), request.headers.retries + 1, self._hostname)

    def end(self, report: JobReport, request: Request) -> None:
        """Note the end of an attempt that the pool has reported."""
        headers = request.headers
        _, begun_ms = self._running.pop(request.delivery.tag, (None, None))
        if headers.entry is None:
            return
        end_ms = self._clock.now_ms()
        was_marked = bool(headers.redelivered) or (begun_ms is not None and _is_long(begun_ms, end_ms))
        is_over = _is_over(report)
        if report.record and (is_over or report.state == RETRY):
            self.ended.append(
                Ended(
                    request.id,
                    headers.entry,
                    headers.due_at,
                    report.state,
                    report.runtime,
                    report.record,
                    is_over=is_over,
                    end_ms=end_ms,
                    after_ms=headers.after_ms,
                    was_marked=was_marked,
                )
            )
        elif report.state in (MALFORMED, LOST, FAILURE, REJECTED, REVOKED, SUCCESS, IGNORED):
            state = LOST if report.text == LOST else FAILURE if report.state == MALFORMED else report.state
            error = _error_of(report, request)
            self.add(headers, state, error, report.runtime, is_over=is_over, was_marked=was_marked)

    def add(
        self,
        headers: Headers,
        state: str,
        error: BaseException | None,
        runtime: float = 0.0,
        *,
        is_over: bool = True,
        was_marked: bool = False,
    ) -> None:
        """Note the end of a run of which no process has made a record; ``runtime`` in seconds."""
        if headers.entry is None:
            return
        end_ms = self._clock.now_ms()
        record = RunRecord(
            run_id=headers.id,
            state=state,
            end_ms=end_ms,
            start_ms=end_ms - int(runtime * 1000) if runtime else None,
            worker=self._hostname,
            task=headers.task,
            attempt=headers.retries + 1,
            **({} if error is None else error_texts(error)),
        )
        end = Ended(headers.id, headers.entry, headers.due_at, state, runtime, encoded(record), record.mark)
        end = end._replace(is_over=is_over, end_ms=end_ms, after_ms=headers.after_ms, was_marked=was_marked)
        self.ended.append(end)


def _is_long(since_ms: int, now_ms: int) -> bool:
    """True after :data:`MARK_MS`, and after the clock was set back: nobody knows how long it was then."""
    return not 0 <= now_ms - since_ms < MARK_MS


def state_of(error: Exception) -> str:
    """Return the state of a run that has no report: its process was lost, or it failed."""
    return LOST if isinstance(error, WorkerLostError) else FAILURE


def _error_of(report: JobReport, request: Request) -> Exception | None:
    """The reason why a run has no record of its process."""
    if request.terminated is not None:
        return TaskRevokedError("terminated")
    if report.text == KILLED:
        return TimeLimitExceeded(f"the time limit of {request.hard_limit:g} s was over")
    if report.text == LOST:
        return WorkerLostError("The process that ran it died.")
    return MessageError(report.text) if report.text else None


def _is_over(report: JobReport) -> bool:
    """True if the run is not tried again."""
    return report.state in (SUCCESS, FAILURE, IGNORED, REJECTED, REVOKED) and not report.requeue
