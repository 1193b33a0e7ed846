"""Chords: counting the tasks of a header that have ended, and sending the body after the last one.

Runs in the worker's own process, as part of settling: an end is noted after the task's result is stored and before its
message is acknowledged, again and again until the store has it. So no header is left one short by a failure.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from beatd.app import callbacks
from beatd.app.app import App
from beatd.app.canvas.signature import as_signature
from beatd.app.context import Context
from beatd.exceptions import BrokerError, ChordError, MessageError, StoreUnavailable
from beatd.message import json_codec
from beatd.message.protocol import open_envelope
from beatd.states import EXCEPTION_STATES, FAILURE, PROPAGATE_STATES
from beatd.store.groups import Complete, NoGroups, Part
from beatd.store.result_document import exception_from, exception_payload
from beatd.worker.execution.decode import decode_body
from beatd.worker.messages import Delivery

log = logging.getLogger("beatd.worker.chords")

_ATTEMPTS = 20
"""How often a broker may refuse a body before the chord is given up."""


class Chords:
    """The ends of tasks that chords wait for, told to the store by one worker."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._owner = str(uuid.uuid4())
        self._attempts: dict[str, int] = {}

    def note(self, parts: Sequence[Part]) -> None:
        """Tell the store; send the bodies of which these were the last. Repeating it does no harm."""
        waiting = list(parts)
        if isinstance(self._app.results.groups, NoGroups):
            extra = {"event": "chord_failed", "task": "", "task_id": parts[0].task_id}
            log.error("Chord %s: this worker has no result backend to count in", parts[0].group, extra=extra)
            return
        while waiting:
            complete = self._app.results.groups.end(waiting, self._owner)
            waiting = [part for each in complete for part in self._finish(each)]

    def _finish(self, complete: Complete) -> list[Part]:
        """Send the body, or fail it; returns the ends that chords around this one wait for."""
        body, group = json_codec.loads(complete.part.body), complete.part.group
        error = _failure(complete)
        if error is None:
            error = self._send(body, complete)
        parts = self._fail(body, complete.part, error) if error is not None else []
        self._app.results.groups.sent(group)
        self._attempts.pop(group, None)
        return parts

    def _send(self, body: dict[str, Any], complete: Complete) -> ChordError | None:
        """Send the body; returns why that cannot be done. Raises while the broker is away."""
        part = complete.part
        try:
            origin: dict[str, Any] = {"parent_id": part.task_id}
            if part.root_id:
                origin["root_id"] = part.root_id
            as_signature(body, self._app).apply_async((_values(complete),), **origin)
        except (BrokerError, StoreUnavailable):
            self._attempts[part.group] = self._attempts.get(part.group, 0) + 1
            if self._attempts[part.group] < _ATTEMPTS:
                raise
            return ChordError("the broker does not take the body's message")
        except Exception as error:  # noqa: BLE001 - a signature of somebody else's making may be wrong in any way
            return ChordError(f"Callback error: {error!r}")
        return None

    def _fail(self, body: dict[str, Any], part: Part, error: ChordError) -> list[Part]:
        log.error(
            "Chord %s: %s",
            part.group,
            error,
            extra={"event": "chord_failed", "task": str(body.get("task")), "task_id": part.task_id},
        )
        after = callbacks.never_run(self._app, [body], exception_payload(error))
        self._app.results.store(after.results)
        task_id = (body.get("options") or {}).get("task_id") or part.task_id
        context = Context(id=task_id, task=body.get("task"), errbacks=callbacks.errbacks_of(body), root_id=part.root_id)
        callbacks.call_errbacks(self._app, context, error, None)
        return after.parts


def aftermath_of(app: App, delivery: Delivery, state: str, error: BaseException) -> callbacks.FollowUp:
    """Follow-up of a message's task that failed outside the pool; errbacks are called."""
    try:
        message = open_envelope(delivery.raw)
        args, kwargs, embed = decode_body(message, app.conf.message_max_bytes)
    except MessageError:
        return callbacks.FollowUp([], [])  # who could be told is not known
    if not any(embed.values()):
        return callbacks.FollowUp([], [])
    context = Context(message.headers, args=args, kwargs=kwargs, called_directly=False, **_names(embed))
    payload = exception_payload(error)
    own = callbacks.ended(context, state, payload)
    if state == FAILURE:
        callbacks.call_errbacks(app, context, error, None)  # not for what was revoked: somebody wanted that
    after = callbacks.never_run(app, context.chain or (), payload)
    return callbacks.FollowUp(after.results, own + after.parts)


def _names(embed: Mapping[str, Any]) -> dict[str, Any]:
    return {name: embed.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}


def _failure(complete: Complete) -> ChordError | None:
    """The error for a header in which a task failed: the first one, in the header's order."""
    for task_id, state, result in complete.ends:
        if state in PROPAGATE_STATES:
            return ChordError(f"Dependency {task_id} raised {exception_from(result)!r}")
    return None


def _values(complete: Complete) -> list[Any]:
    """Return the arguments of the body: results in the header's order, those of groups inside as lists."""
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
