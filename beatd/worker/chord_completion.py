"""Chord completion: counts the ended tasks of a header, and publishes the body after the last one.

A step of the settlement: an end is counted after the task's result is stored and before its message is acknowledged,
and retried until the store has it. So no failure leaves a header one short.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from beatd.app import callbacks
from beatd.app.app import App
from beatd.app.canvas.signature import as_signature, listed
from beatd.app.context import Context
from beatd.exceptions import BrokerError, ChordError, MessageError, StoreError, StoreUnavailable
from beatd.message import json_codec
from beatd.message.protocol import open_envelope
from beatd.states import EXCEPTION_STATES, FAILURE, PROPAGATE_STATES
from beatd.store.groups import Complete, NoGroups, Part
from beatd.store.result_document import document, exception_from, exception_payload
from beatd.store.results import Stored
from beatd.worker.execution.callbacks import pack
from beatd.worker.execution.decode import accepted_types, decode_body
from beatd.worker.messages import Delivery, FollowUpMessage

log = logging.getLogger("beatd.worker.chords")

_ATTEMPTS = 20
"""Attempts to publish a body before the chord fails, unless the broker is away."""
_ASK_AGAIN_S = 5.0
"""Seconds until the store is asked again whether another worker has sent the body of a chord."""
_CLAIMED_MAX = 10_000
"""Chords whose body another worker has to send; of more, the oldest are not asked about again."""


class Chords:
    """Counts the ends of chord members in the store, for one worker."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._owner = str(uuid.uuid4())
        self._attempts: dict[str, int] = {}
        self._claimed: dict[str, tuple[Part, float]] = {}
        """By chord whose body another worker has to send: an end, and when (monotonic) to count it again. If that
        worker is gone by then, this one sends the body."""

    @property
    def waits(self) -> bool:
        """True while other workers have bodies to send of chords whose last end this one has counted."""
        return bool(self._claimed)

    def due(self) -> list[Part]:
        """Return the ends to be counted again, as the worker that had the body to send may be gone."""
        if not self._claimed:
            return []
        now = self._app.clock.monotonic()
        due = {group: part for group, (part, at) in self._claimed.items() if at <= now}
        for group in due:
            del self._claimed[group]
        return list(due.values())

    def note(self, parts: Sequence[Part]) -> None:
        """Count these ends; publish the bodies of the headers that are complete. Idempotent."""
        waiting = list(parts)
        if isinstance(groups := self._app.results.groups, NoGroups):
            extra = {"event": "chord_failed", "task": "", "task_id": parts[0].task_id}
            log.error("Chord %s cannot be counted: %s", parts[0].group, groups.reason, extra=extra)
            return
        while waiting:
            ends = groups.end(waiting, self._owner)
            for part, seconds in ends.claimed[-_CLAIMED_MAX:]:
                self._claimed[part.group] = part, self._app.clock.monotonic() + min(seconds, _ASK_AGAIN_S)
            waiting = [part for each in ends.complete for part in self.finish(each)]
        while len(self._claimed) > _CLAIMED_MAX:
            del self._claimed[next(iter(self._claimed))]

    def finish(self, complete: Complete) -> list[Part]:
        """Publish the body, or fail it; returns the ends for outer chords."""
        body, group = json_codec.loads(complete.part.body), complete.part.group
        failure = _failure(complete)
        if failure is None and (error := self._send(body, complete)) is not None:
            failure = Failure(error, exception_payload(error))
        parts = []
        if failure is not None:
            try:
                parts = self._fail(body, complete.part, failure)
            except (BrokerError, StoreError):
                raise
            except Exception as error:  # noqa: BLE001 - see _send(); the chord is over all the same
                self._log(body, complete.part, f"its body cannot be failed: {error!r}")
        self._app.results.groups.sent(group, self._owner, failed=failure is not None)
        self._attempts.pop(group, None)
        return parts

    def _send(self, body: dict[str, Any], complete: Complete) -> ChordError | None:
        """Publish the body; returns the error if it cannot be sent. Raises while the broker is away."""
        part = complete.part
        try:
            origin: dict[str, Any] = {"parent_id": part.task_id}
            if part.root_id:
                origin["root_id"] = part.root_id
            with self._app.outgoing.collect() as collected:
                as_signature(body, self._app).apply_async((_values(complete),), **origin)
            if refused := self._app.outgoing.offer(collected):
                return ChordError(f"the broker does not take the body's message: {refused[0].reason}")
        except (BrokerError, StoreUnavailable):
            attempts = self._attempts.get(part.group, 0) + 1
            self._attempts[part.group] = attempts % _ATTEMPTS
            if attempts < _ATTEMPTS or not self._app.outgoing.is_answered():
                raise
            return ChordError("the broker does not take the body's message")
        except Exception as error:  # noqa: BLE001 - a signature of somebody else's making may be wrong in any way
            return ChordError(f"Callback error: {error!r}")
        return None

    def _fail(self, body: dict[str, Any], part: Part, failure: Failure) -> list[Part]:
        error = failure.error
        self._log(body, part, error)
        is_group = body.get("subtask_type") == "group"  # as in Celery, its members get the cause
        payload = failure.cause if is_group else exception_payload(error)
        errbacks = [call for call in callbacks.errbacks_of(body) if call not in failure.called]
        failed = {_id(call, part): (call, each) for call, each in _errbacks_by_task(body, errbacks)}
        calls = {task_id: callbacks.with_ids(self._app, each, task_id) for task_id, (_, each) in failed.items()}
        children = {task_id: sent for task_id, (_, sent) in calls.items()}
        called = [*failure.called, *errbacks]
        after = callbacks.never_run(self._app, [body], payload, called=called, children=children)
        self._app.results.store([*after.results, *(self._group_failure(body, payload) if is_group else ())])
        for task_id, (errbacks, _) in calls.items():
            call = failed[task_id][0]
            own: dict[str, Any] = {"id": task_id, "errbacks": errbacks, "root_id": part.root_id, "delivery_info": {}}
            context = Context(**own, **{name: call.get(name) for name in _CALL})
            callbacks.call_errbacks(self._app, context, exception_from(payload), None)
        return after.parts

    @staticmethod
    def _log(body: Mapping[str, Any], part: Part, error: object) -> None:
        extra = {"event": "chord_failed", "task": str(body.get("task")), "task_id": part.task_id}
        log.error("Chord %s: %s", part.group, error, extra=extra)

    def _group_failure(self, body: Mapping[str, Any], payload: Mapping[str, Any]) -> Iterator[Stored]:
        """Yield the failure under the group's own id, which Celery stores, too."""
        options = body.get("options") or {}
        if group_id := options.get("task_id"):
            encoded = document(group_id, FAILURE, payload, date_done=self._app.now().isoformat())
            yield Stored(group_id, encoded, options.get("reply_to") or "")


class Failure(NamedTuple):
    """The failure of a chord's header, or of sending its body."""

    error: ChordError
    cause: Mapping[str, Any]
    """The exception of the task in the header, as it is stored."""
    called: Sequence[Any] = ()
    """Errbacks that a failed chord in the header has called already."""


def _id(body: Mapping[str, Any], part: Part) -> str:
    return (body.get("options") or {}).get("task_id") or part.task_id


_CALL = ("task", "args", "kwargs", "options", "subtask_type", "immutable")
"""What the request that an errback gets has of a call that has not been sent, as in Celery."""


def _errbacks_by_task(
    body: Mapping[str, Any], errbacks: Sequence[Any]
) -> Iterator[tuple[Mapping[str, Any], Sequence[Any]]]:
    """Yield the body, or the members of a group, with the errbacks to call: their own, and those of the group."""
    if body.get("subtask_type") != "group":
        yield body, errbacks
        return
    of_group = listed((body.get("options") or {}).get("link_error"))
    for member in (body.get("kwargs") or {}).get("tasks") or ():
        calls = [call for call in errbacks if call in callbacks.errbacks_of(member) or call in of_group]
        yield member, calls


def follow_up_of(
    app: App, delivery: Delivery, state: str, error: BaseException
) -> tuple[callbacks.FollowUp, list[FollowUpMessage]]:
    """Return the effects on other tasks of a task that ended outside the pool: results, chord parts, errbacks."""
    nothing = callbacks.FollowUp([], [])
    try:
        message = open_envelope(delivery.raw)
        args, kwargs, embed = decode_body(message, app.conf.message_max_bytes, accepted_types(app.conf.accept_content))
    except MessageError:
        return nothing, []  # its callbacks are unknown
    if not any(embed.values()):
        return nothing, []
    context = Context(message.headers, args=args, kwargs=kwargs, called_directly=False, **_names(embed))
    payload = exception_payload(error)
    try:
        own = callbacks.ended(context, state, payload)
        messages: list[FollowUpMessage] = []
        if state == FAILURE:  # no errbacks for a revoked task: its end was asked for
            with app.outgoing.collect() as collected:
                callbacks.call_errbacks(app, context, error, None)
            messages = pack(collected)
        after = callbacks.never_run(app, context.chain or (), payload)
    except Exception:  # signatures come with the message, anything may be wrong in them
        log.exception(
            "Task %s[%s]: its callbacks cannot be used",
            context.task,
            context.id,
            extra={"event": "followup_failed", "task": context.task, "task_id": context.id},
        )
        return nothing, []
    return callbacks.FollowUp(after.results, own + after.parts), messages


def _names(embed: Mapping[str, Any]) -> dict[str, Any]:
    return {name: embed.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}


def _failure(complete: Complete) -> Failure | None:
    """Return the failure of the first failed task in the header's order, or None."""
    for task_id, state, result in complete.ends:
        if state in PROPAGATE_STATES:
            try:
                cause = exception_from(result)
            except MessageError as unreadable:
                cause = unreadable
            error = ChordError(f"Dependency {task_id} raised {cause!r}")
            return Failure(error, result, callbacks.called_in(result))
    return None


def _values(complete: Complete) -> list[Any]:
    """Return the body's argument: the results in the header's order, nested groups as lists."""
    if complete.shape is None:
        return [exception_from(v) if state in EXCEPTION_STATES else v for _, state, v in complete.ends]
    _, members = complete.shape
    values = {task_id: value for task_id, _, value in complete.ends}
    return [_shaped(member, values) for member in members]


def _shaped(member: Any, values: Mapping[str, Any]) -> Any:
    described, members = member
    if members is not None:
        return [_shaped(each, values) for each in members]
    task_id = described[0] if isinstance(described, list) else described
    return values.get(task_id)
