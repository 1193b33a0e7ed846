"""Telling a task's own ``Request`` class what happens to its run, in the worker's main process."""

from __future__ import annotations

import logging
import time
from typing import Any, NamedTuple

from beatd import wire
from beatd.store.outcomes import FAILURE, RETRY, STARTED, SUCCESS, exception_from
from beatd.worker.messages import KILLED, Report
from beatd.worker.request import Request

log = logging.getLogger(__name__)


class FailureInfo(NamedTuple):
    """What ``on_failure`` and ``on_retry`` get: the exception, and its traceback as text."""

    exception: BaseException | None
    traceback: str | None

    def __str__(self) -> str:
        return self.traceback or repr(self.exception)


def notify(request: Request, report: Report) -> None:
    """Call the method that belongs to the report, for requests of a class of the task's own."""
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


def _notify(request: Request, report: Report) -> None:
    if report.state == STARTED:
        request.on_accepted(int(report.text or 0), time.monotonic())
        return
    meta: dict[str, Any] = wire.loads(report.document) if report.document else {}
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
