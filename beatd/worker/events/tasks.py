"""Task events: what becomes of each message, in Celery's words. Nothing is computed while they are off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from beatd import wire
from beatd.exceptions import MessageError
from beatd.message import safe_repr
from beatd.store.outcomes import FAILURE, REJECTED, RETRY, REVOKED, STARTED, SUCCESS
from beatd.worker.events.stream import Stream
from beatd.worker.messages import Delivery, Report, headers_of
from beatd.worker.request import Request


class TaskEvents:
    """Tells ``stream`` what happens to requests, for tasks with ``send_events``, while they are :attr:`on`."""

    def __init__(self, stream: Stream, *, on: bool) -> None:
        self.on = on
        self._stream = stream

    def received(self, requests: Iterable[Request]) -> None:
        """These have come in; also those that will wait for their time."""
        if not self.on:
            return
        for request in requests:
            if not request.task.send_events:
                continue
            headers, words = request.headers, _words(request.delivery.raw)
            fields = {
                "uuid": headers.id,
                "name": request.name,
                "args": words.argsrepr,
                "kwargs": words.kwargsrepr,
                "root_id": headers.root_id,
                "parent_id": headers.parent_id,
                "retries": headers.retries,
                "eta": headers.eta,
                "expires": headers.expires,
            }
            self._stream.put("task-received", fields)

    def reported(self, request: Request, report: Report) -> None:
        """The pool has said something about one."""
        if not self.on or not request.task.send_events:
            return
        if report.state == REVOKED:
            self.revoked(request, terminated=True, signum=request.terminated, expired=False)
        elif kind := _KINDS.get(report.state):
            self._stream.put(kind, {"uuid": request.id, **_outcome(report)})

    def unknown(self, delivery: Delivery, error: BaseException) -> None:
        """No task of that name is known here."""
        if self.on:
            fields = {"uuid": headers_of(delivery.raw).id, "exception": repr(error), "traceback": None}
            self._stream.put("task-failed", fields)

    def revoked(self, request: Request, *, terminated: bool, signum: int | None, expired: bool) -> None:
        """One will not be run, or not to its end."""
        if self.on and request.task.send_events:
            fields = {"uuid": request.id, "terminated": terminated, "signum": signum, "expired": expired}
            self._stream.put("task-revoked", fields)


_KINDS = {
    STARTED: "task-started",
    SUCCESS: "task-succeeded",
    FAILURE: "task-failed",
    RETRY: "task-retried",
    REJECTED: "task-rejected",
}


def _outcome(report: Report) -> dict[str, Any]:
    """What an event of that kind says beside the id."""
    if report.state == STARTED:
        return {}
    if report.state == SUCCESS:
        return {"result": _result(report), "runtime": report.runtime}
    if report.state == REJECTED:
        return {"requeue": report.requeue}
    exception, trace = _failure(report)
    return {"exception": exception, "traceback": trace}


class _Words(msgspec.Struct, frozen=True):
    argsrepr: str = ""
    kwargsrepr: str = ""


class _Envelope(msgspec.Struct, frozen=True):
    headers: _Words


_decode = msgspec.json.Decoder(_Envelope).decode


def _words(raw: bytes) -> _Words:
    """What the sender says of the arguments; nothing if it does not."""
    try:
        return _decode(raw).headers
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _Words()


def _meta(report: Report) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = wire.loads(report.document) if report.document else {}
    except MessageError:
        meta = {}
    return meta


def _result(report: Report) -> str:
    """In words; those of a job that was sent before anybody listened are made here."""
    return report.words or safe_repr(_meta(report).get("result"))


def _failure(report: Report) -> tuple[str, str | None]:
    """The exception as it would print itself, and its traceback."""
    if report.words:
        return report.words, report.trace
    meta = _meta(report)
    match meta.get("result"):
        case {"exc_type": str(name), "exc_message": [*arguments]}:
            return f"{name}({', '.join(map(safe_repr, arguments))})", meta.get("traceback")
        case {"exc_type": str(name)}:
            return f"{name}()", meta.get("traceback")
    return report.text or "None", meta.get("traceback")
