"""Request: a task's run in the worker's process, from the message to the acknowledgement.

A task's own ``Request`` class gets a call for each change of its run.
"""

from __future__ import annotations

import importlib
import logging
from datetime import UTC, datetime
from typing import Any, NamedTuple

from beatd.app.task import Task
from beatd.clock import monotonic
from beatd.message import json_codec
from beatd.states import FAILURE, RETRY, STARTED, SUCCESS
from beatd.store.result_document import exception_from
from beatd.worker.messages import KILLED, Delivery, Headers, Job, JobReport


class Request:
    """A message that is going to run. A task may have its own subclass (``Task.Request``).

    The ``on_…`` methods are called in the worker's main process. What they raise is logged and changes nothing.
    """

    __slots__ = ("__dict__", "acknowledged", "counted", "delivery", "headers", "submitted", "task", "terminated")

    def __init__(self, delivery: Delivery, headers: Headers, task: Task[..., Any]) -> None:
        self.delivery = delivery
        self.headers = headers
        self.task = task
        self.acknowledged = False
        self.counted = False
        """True if it counts among the runs that this worker has begun."""
        self.submitted = 0.0
        """Moment at which the pool got it (monotonic seconds)."""
        self.terminated: int | None = None
        """The signal by which its run was ended on request, see ``control revoke --terminate``."""

    @property
    def task_id(self) -> str:
        return self.headers.id

    @property
    def task_name(self) -> str:
        """Name for logs and monitors: the task's name, or the sender's ``shadow``."""
        return self.headers.shadow or self.headers.task

    @property
    def hard_limit(self) -> float | None:
        """Seconds after which the run is killed; the message's limit overrides the task's."""
        limits = self.headers.timelimit
        return (limits and limits[0]) or self.task.time_limit

    @property
    def soft_limit(self) -> float | None:
        """Seconds after which ``SoftTimeLimitExceeded`` is raised in the task."""
        limits = self.headers.timelimit
        return (limits and limits[1]) or self.task.soft_time_limit

    def job(self, *, watched: bool) -> Job:
        """Make the job for the pool. ``watched``: events need its start and its outcome."""
        task, is_scheduled = self.task, self.headers.entry is not None
        return Job(
            self.delivery.tag,
            self.delivery.raw,
            self.delivery.queue,
            announce=not task.acks_late or task.Request is not None or watched or is_scheduled,
            soft_limit=self.soft_limit,
            hard_limit=self.hard_limit,
            describe=watched,
            record=is_scheduled,
            document=self.keeps_result,
        )

    @property
    def keeps_result(self) -> bool:
        """False for a run of the schedule whose result is kept in the outcomes of its entry only."""
        task = self.task
        return self.headers.keeps_result(default=bool(task.keep_result) or task.app.results.keeps_runs)

    id = task_id
    name = task_name

    def on_accepted(self, pid: int | None, time_accepted: float) -> None:
        """A process has begun to run it."""

    def on_success(self, failed__retval__runtime: tuple[bool, Any, float], **kwargs: Any) -> None:
        """It returned."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """It failed, or the process that ran it is gone."""

    def on_retry(self, exc_info: Any) -> None:
        """It asked for another attempt."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The hard time limit was over; ``soft`` is false: a soft limit is raised in the task alone."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name}[{self.id}]>"


def request_class(task: Task[..., Any]) -> type[Request]:
    """Return the class in ``task.Request``, given as a class or as ``"module:Class"``."""
    wanted = task.Request
    if wanted is None:
        return Request
    if isinstance(wanted, str):
        module, _, name = wanted.replace(":", ".").rpartition(".")
        wanted = task.Request = getattr(importlib.import_module(module), name)
    return wanted  # type: ignore[no-any-return]


def moment_ms(text: str, zone: Any) -> int:
    """Convert ISO 8601 to ms since the epoch; naive times are in ``zone``. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=zone)
    return int(aware.astimezone(UTC).timestamp() * 1000)


log = logging.getLogger("beatd.worker.notices")


class FailureInfo(NamedTuple):
    """Argument of ``on_failure`` and ``on_retry``: the exception, and its traceback as text."""

    exception: BaseException | None
    traceback: str | None

    def __str__(self) -> str:
        return self.traceback or repr(self.exception)


def notify(request: Request, report: JobReport) -> None:
    """Call the hook for a report, for requests of a task's own class."""
    if type(request) is Request:
        return
    try:
        _notify(request, report)
    except Exception:
        log.exception(
            "Request class %s of task %s raised",
            type(request).__name__,
            request.name,
            extra={"event": "request_hook_failed", "task": request.name, "task_id": request.id},
        )


def _notify(request: Request, report: JobReport) -> None:
    if report.state == STARTED:
        request.on_accepted(int(report.text or 0), monotonic())
        return
    meta: dict[str, Any] = json_codec.loads(report.document) if report.document else {}
    if report.state == SUCCESS:
        request.on_success((False, meta.get("result"), report.runtime))
        return
    if report.text == KILLED:
        request.on_timeout(False, request.hard_limit or 0.0)
    error = exception_from(meta["result"]) if "result" in meta else None
    info = FailureInfo(error, meta.get("traceback"))
    if report.state == RETRY:
        request.on_retry(info)
    elif report.state == FAILURE:
        request.on_failure(info)
