"""Publishing of follow-up messages: callbacks, errbacks and next steps of chains, as a step of the settlement.

They leave after the result is stored and before the message is acknowledged. While the broker is away they are kept;
a message that the broker refuses, or does not take for a long time, fails the task that it follows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from beatd.app.app import App
from beatd.clock import Backoff
from beatd.exceptions import BrokerError, StoreUnavailable
from beatd.message.protocol import TaskMessage
from beatd.states import FAILURE
from beatd.store.result_document import document, exception_payload
from beatd.store.results import Stored
from beatd.worker.messages import FollowUpMessage
from beatd.worker.request import Request

log = logging.getLogger("beatd.worker.following")

Pending = tuple[Request | None, FollowUpMessage]
"""A message, and the request that fails if it cannot be published; None for the errbacks of such a failure."""

_BATCH = 64
_ATTEMPTS = 30
"""Attempts at one batch before a message in it is taken for the reason, if the broker answers. The worker's loop pauses
between them."""


class CallbacksPublisher:
    """Publishes follow-up messages of one app; ``on_failed`` gets each request whose message was given up.

    ``on_result`` gets the failures of tasks that coroutines have sent, and whose messages were given up.
    """

    def __init__(
        self,
        app: App,
        on_failed: Callable[[Request, Exception], None],
        on_result: Callable[[Stored], None],
    ) -> None:
        self._app = app
        self._on_failed = on_failed
        self._on_result = on_result
        self.of_coroutines: list[FollowUpMessage] = []
        """Those of the pending messages that running coroutines have sent."""
        self._attempts = 0
        self._backoff = Backoff(1.0, 1.0)
        """Of its failures, for the levels of their records."""

    def publish(self, pending: list[Pending]) -> None:
        """Publish and remove the messages; raises while the broker is away, and keeps what it does not have."""
        while pending:
            batch = pending[:_BATCH]
            failed = self._offer(batch)
            del pending[: len(batch)]
            for (request, message), reason in failed:
                self._give_up(request, message, reason)  # may append errbacks
        self._app.outgoing.backlog.leave(len(self.of_coroutines))
        self.of_coroutines.clear()

    def _offer(self, batch: Sequence[Pending]) -> list[tuple[Pending, str]]:
        messages = [message.unpack() for _, message in batch]
        try:
            refused = self._app.outgoing.offer(messages)
        except (BrokerError, StoreUnavailable) as error:
            self._attempts += 1
            self._backoff.failed()
            is_away = self._attempts >= _ATTEMPTS and not self._app.outgoing.is_answered()
            if is_away or self._attempts < _ATTEMPTS:
                self._attempts %= _ATTEMPTS
                log.log(
                    self._backoff.level,
                    "%d callbacks cannot be sent yet: %s",
                    len(batch),
                    error,
                    extra={"event": "followup_retrying", "task": "", "task_id": messages[0].message.id},
                )
                raise
            self._attempts = 0
            return self._offer_singly(batch)
        self._attempts = 0
        self._backoff.succeeded()
        return [(batch[number], reason) for number, reason in refused]

    def _offer_singly(self, batch: Sequence[Pending]) -> list[tuple[Pending, str]]:
        """Find the messages for which the broker ends the connection or does not answer."""
        failed = []
        for pending in batch:
            try:
                refused = self._app.outgoing.offer([pending[1].unpack()])
            except (BrokerError, StoreUnavailable) as error:
                failed.append((pending, str(error)))
            else:
                failed += [(pending, reason) for _, reason in refused]
        return failed

    def _give_up(self, request: Request | None, message: FollowUpMessage, reason: str) -> None:
        if request is None:
            lost = message.unpack().message
            name, task_id = str(lost.headers["task"]), lost.id
            extra = {"event": "message_lost", "task": name, "task_id": task_id}
            log.error("A message for task %s[%s] cannot be sent: %s", name, task_id, reason, extra=extra)
            if any(message is sent for sent in self.of_coroutines) and not lost.headers.get("ignore_result"):
                self._on_result(self._failure(lost, reason))
            return
        name, task_id = request.name, request.id
        log.error(
            "Task %s[%s]: its callbacks cannot be sent: %s",
            name,
            task_id,
            reason,
            extra={"event": "followup_failed", "task": name, "task_id": task_id},
        )
        self._on_failed(request, BrokerError(f"a callback cannot be sent: {reason}"))

    def _failure(self, lost: TaskMessage, reason: str) -> Stored:
        """Return the result of a task whose message is lost, for those who wait for it."""
        error = BrokerError(f"the message of the task could not be sent: {reason}")
        done = self._app.now().isoformat()
        failure = document(lost.id, FAILURE, exception_payload(error), date_done=done)
        return Stored(lost.id, failure, lost.properties.get("reply_to") or "")
