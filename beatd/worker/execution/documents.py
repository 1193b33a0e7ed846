"""Documents of attempts: what is stored as the result of a task, with the fields of ``result_extended``."""

from __future__ import annotations

from datetime import UTC, tzinfo
from typing import Any

from beatd.app.app import App
from beatd.app.context import Context
from beatd.app.task import Task
from beatd.app.trace import Outcome
from beatd.exceptions import MessageError
from beatd.message.protocol import open_envelope
from beatd.states import FAILURE, IGNORED, READY_STATES, REJECTED, RETRY, SUCCESS
from beatd.store.result_document import carried, document, exception_payload
from beatd.timestamps import from_ms
from beatd.worker.execution.decode import accepted_types, decode_body
from beatd.worker.messages import Delivery, Headers, Job

_OWN_FIELDS = {
    "task_id", "state", "status", "result", "traceback", "date_done", "children", "parent_id", "group_id",
}  # fmt: skip
"""Fields of every result; a stamp of such a name is not stored."""


class Documents:
    """Documents of the attempts of one worker."""

    def __init__(self, app: App, hostname: str) -> None:
        self._clock = app.clock
        self._hostname = hostname
        self._is_extended: bool = app.conf.result_extended
        self._zone: tzinfo = UTC if app.timezone.key == "UTC" else app.timezone

    def of_outcome(self, context: Context, outcome: Outcome) -> bytes:
        """Return the document of an outcome; raises MessageError if JSON cannot carry the result."""
        state, value = outcome.state, outcome.value
        if state == SUCCESS:
            return self.of(context, state, value)
        if state == REJECTED:
            state = FAILURE
        error = value.exc if state == RETRY else value
        payload = None if error is None else exception_payload(error)  # None: a retry without a reason
        return self.of(context, state, payload, outcome.traceback)

    def of(self, context: Context, state: str, result: Any, traceback: str | None = None) -> bytes:
        """Return the document of a state; raises MessageError if JSON cannot carry ``result``."""
        fields: dict[str, Any] = {
            "traceback": traceback,
            "date_done": self._now() if state in READY_STATES else None,
            "children": [child.as_tuple() for child in context.children if hasattr(child, "as_tuple")],
            "parent_id": context.parent_id,
            "group_id": context.group,
        }
        if not self._is_extended:
            return document(str(context.id), state, result, **fields)
        extended = self._extended(context)
        try:
            return document(str(context.id), state, result, **fields, **extended)
        except MessageError:  # of the result, or of arguments that came as a pickle, for one
            return document(str(context.id), state, result, **fields, **carried(extended))

    def _now(self) -> str:
        """Return the time in the app's zone."""
        return from_ms(self._clock.now_ms()).astimezone(self._zone).isoformat()

    def _extended(self, context: Context) -> dict[str, Any]:
        return extended(context, self._hostname)


def extended(context: Context, hostname: str) -> dict[str, Any]:
    """Return the fields that ``result_extended`` adds to results; ``hostname`` is the worker's name."""
    given = context.stamps if isinstance(context.stamps, dict) else {}
    stamps = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
    stored = {name: value for name, value in stamps.items() if name not in _OWN_FIELDS}
    return {**stored, "stamped_headers": context.stamped_headers, **context.extended(), "worker": hostname}


class EndDocuments:
    """Documents of tasks that end outside the pool: expired, revoked, killed at their limit, lost with a process."""

    def __init__(self, app: App, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._zone: tzinfo = app.timezone

    def of(self, delivery: Delivery, headers: Headers, state: str, error: BaseException, now_ms: int) -> bytes:
        """Return the document of a task that ends with ``error``."""
        done = from_ms(now_ms).astimezone(self._zone).isoformat()
        fields: dict[str, Any] = {"date_done": done, "parent_id": headers.parent_id, "group_id": headers.group}
        more = self._extended(delivery) if self._app.conf.result_extended else {}
        return document(headers.id, state, exception_payload(error), **fields, **more)

    def _extended(self, delivery: Delivery) -> dict[str, Any]:
        conf = self._app.conf
        try:
            message = open_envelope(delivery.raw)
            args, kwargs, _ = decode_body(message, conf.message_max_bytes, accepted_types(conf.accept_content))
        except MessageError:
            return {}
        place = {"routing_key": delivery.queue, **(message.properties.get("delivery_info") or {})}
        context = Context(message.headers, args=args, kwargs=kwargs, delivery_info=place)
        return {name: carried(value) for name, value in extended(context, self._hostname).items()}


def is_ignored(task: Task[..., Any], context: Context) -> bool:
    """True if the result of a run is not wanted."""
    return bool(task.ignore_result if context.ignore_result is None else context.ignore_result)


def wants_document(job: Job, task: Task[..., Any], context: Context) -> bool:
    """True if the result is to be stored; a task that stores states of its own is not left at one of these."""
    return (job.document or context.stored_state) and not is_ignored(task, context)


def is_stored(job: Job, task: Task[..., Any], context: Context, outcome: Outcome) -> bool:
    """True if an outcome has a document."""
    if outcome.state == IGNORED or (outcome.state == REJECTED and outcome.value.requeue):
        return False
    if wants_document(job, task, context):
        return True
    return outcome.state != SUCCESS and bool(task.store_errors_even_if_ignored)
