"""Strategy: the decision about each incoming message, to run, park, drop or bury it. No I/O."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from beatd import signals
from beatd.app.app import App
from beatd.exceptions import MessageError, NotRegistered, TaskRevokedError
from beatd.states import FAILURE, REVOKED
from beatd.store.results import Stored
from beatd.worker import builtin
from beatd.worker.admission.revoked import Revoked as RevokedTasks
from beatd.worker.effects import Effect, Received, Revoked, Unregistered
from beatd.worker.execution.decode import accepted_types, upgrade_protocol_1
from beatd.worker.execution.documents import EndDocuments
from beatd.worker.messages import Delivery, Headers, headers_of
from beatd.worker.request import Request, moment_ms, request_class

log = logging.getLogger("celery.worker.strategy")


class Decisions:
    """The decisions about a batch of messages."""

    def __init__(self) -> None:
        self.run: list[Request] = []
        self.park: list[tuple[Delivery, int]] = []
        self.bury: list[tuple[Delivery, str]] = []
        self.drop: list[Delivery] = []
        """Acknowledged without a run."""
        self.results: list[Stored] = []
        self.failed: list[tuple[Delivery, str, BaseException]] = []
        """Messages that end here, with state and error: chords and errbacks of their tasks are told."""
        self.effects: list[Effect] = []


_HEADERS_MAX = 64 * 1024
"""Bytes of an envelope beside the body, which is in base 64: its limit is checked once it is decoded."""


class Strategy:
    """Decides about incoming messages for one app."""

    def __init__(self, app: App, revoked: RevokedTasks, hostname: str = "") -> None:
        self._app = app
        self._documents = EndDocuments(app, hostname)
        self._revoked = revoked
        self._zone = app.timezone
        self._largest: int = app.conf.message_max_bytes
        self._largest_raw = self._largest * 4 // 3 + _HEADERS_MAX
        self._accepted = accepted_types(app.conf.accept_content)

    def decide(self, deliveries: Sequence[Delivery], now_ms: int) -> Decisions:
        """Decide about each message; no message makes this raise."""
        decisions = Decisions()
        for delivery in deliveries:
            try:
                self._decide(*self._read(delivery), now_ms, decisions)
            except MessageError as error:
                decisions.bury.append((delivery, str(error)))
            except Exception as error:  # a task's own Request class can do anything
                log.exception("Request class raised", extra={"event": "request_failed"})
                decisions.bury.append((delivery, f"its Request class raised {error!r}"))
        return decisions

    def _read(self, delivery: Delivery) -> tuple[Delivery, Headers]:
        """Read the headers; a message of protocol 1 becomes one of protocol 2 first."""
        if delivery.fault:
            raise MessageError(delivery.fault)
        if len(delivery.raw) > self._largest_raw:
            raise MessageError(f"it has {len(delivery.raw):,} bytes, message_max_bytes allows {self._largest:,}")
        try:
            return delivery, headers_of(delivery.raw, self._accepted)
        except MessageError:
            second = upgrade_protocol_1(delivery.raw, delivery.queue, self._largest, self._accepted)
            if second is None:
                raise
            return delivery._replace(raw=second, first=delivery.raw), headers_of(second)

    def _decide(self, delivery: Delivery, headers: Headers, now_ms: int, decisions: Decisions) -> None:
        task = self._app.tasks.get(headers.task)
        if task is None:
            self._refuse_unregistered(delivery, headers, now_ms, decisions)
            return
        expires_ms = None if headers.expires is None else self._moment(headers.expires, "expires")
        eta_ms = None if headers.eta is None else self._moment(headers.eta, "eta")
        request = request_class(task)(delivery, headers, task)
        waits = eta_ms is not None and eta_ms > now_ms
        if not headers.received:
            self._announce(request, waits=waits)
        if expires_ms is not None and expires_ms <= now_ms:
            self.revoke(request, "expired", now_ms, decisions)
        elif self._revoked and self._revoked.covers(request):
            self.revoke(request, "revoked", now_ms, decisions)
        else:
            if eta_ms is not None and waits:
                decisions.park.append((delivery, eta_ms))
            else:
                decisions.run.append(request)
            if not headers.received:
                decisions.effects.append(Received(request))

    def _announce(self, request: Request, *, waits: bool) -> None:
        """Log a message that has come in and is not back from its parking; tell the signal's receivers."""
        headers = request.headers
        if log.isEnabledFor(logging.INFO):
            log.info(
                "Task %s[%s] received%s",
                request.name,
                headers.id,
                f"  ETA:[{headers.eta}]" if waits else "",
                extra={"event": "task_received", "task": headers.task, "task_id": headers.id},
            )
        if signals.task_received:
            signals.task_received.send(sender=self._app, request=request)

    def _moment(self, text: str, what: str) -> int:
        try:
            return moment_ms(text, self._zone)
        except (ValueError, OverflowError):
            raise MessageError(f"{what} {text!r} is no ISO 8601 time") from None

    def _refuse_unregistered(self, delivery: Delivery, headers: Headers, now_ms: int, decisions: Decisions) -> None:
        """Fail a task that this app does not have; the log names tasks with similar names."""
        near = self._app.tasks.near(headers.task)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        if option := builtin.step(headers.task):
            hint = f" Start the worker with {option}."
        log.error(
            "Received unregistered task of type %r, task id %s.%s",
            headers.task,
            headers.id,
            hint,
            extra={"event": "task_unknown", "task": headers.task, "task_id": headers.id, "near": near},
        )
        error = NotRegistered(headers.task)
        signals.task_unknown.send(sender=self._app, message=delivery, name=headers.task, id=headers.id, exc=error)
        keeps = bool(self._app.conf.task_keep_result) or self._app.results.keeps_runs
        if not headers.ignore_result and headers.keeps_result(default=keeps):
            decisions.results.append(self._failed(delivery, headers, FAILURE, error, now_ms))
        decisions.failed.append((delivery, FAILURE, error))
        decisions.drop.append(delivery)
        decisions.effects.append(Unregistered(headers, error))

    def revoke(self, request: Request, reason: str, now_ms: int, decisions: Decisions) -> None:
        """Do not run a request: ``reason`` is ``expired`` or ``revoked``."""
        expired = reason == "expired"
        log.info(
            "Discarding revoked task: %s[%s]",
            request.name,
            request.id,
            extra={"event": "task_expired" if expired else "task_revoked", "task": request.name, "task_id": request.id},
        )
        signals.task_revoked.send(sender=request.task, request=request, terminated=False, signum=None, expired=expired)
        error = TaskRevokedError(reason)
        if request.keeps_result:
            decisions.results.append(self._failed(request.delivery, request.headers, REVOKED, error, now_ms))
        decisions.failed.append((request.delivery, REVOKED, error))
        decisions.drop.append(request.delivery)
        decisions.effects.append(Revoked(request, expired))

    def _failed(self, delivery: Delivery, headers: Headers, state: str, error: BaseException, now_ms: int) -> Stored:
        return Stored(headers.id, self._documents.of(delivery, headers, state, error, now_ms), headers.reply_to)
