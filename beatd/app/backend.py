"""Backend: the result backend with the methods that Celery's have, for programs that use them: ``app.backend``."""

from __future__ import annotations

from typing import Any

from beatd.app.base import AppBase
from beatd.app.context import Context
from beatd.app.result import AsyncResult, decoded
from beatd.exceptions import TimeoutError as ResultTimeout
from beatd.states import (
    EXCEPTION_STATES,
    FAILURE,
    PENDING,
    READY_STATES,
    RETRY,
    REVOKED,
    STARTED,
    SUCCESS,
    UNREADY_STATES,
)
from beatd.store.groups import NoGroups
from beatd.store.result_document import carried, document, exception_payload
from beatd.store.results import Stored


class Backend:
    """Reads and writes result documents by task id. Raises :class:`~beatd.exceptions.StoreError`."""

    READY_STATES = READY_STATES
    UNREADY_STATES = UNREADY_STATES
    EXCEPTION_STATES = EXCEPTION_STATES
    TimeoutError = ResultTimeout

    def __init__(self, app: AppBase) -> None:
        self.app = app

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:  # noqa: ARG002 - Celery's argument
        """Return the result document; an exception in it is an object."""
        stored = self.app.results.get(task_id) or {"status": PENDING, "result": None}
        return {"task_id": task_id, "traceback": None, "children": [], **decoded(stored)}

    def get_state(self, task_id: str) -> str:
        """Return the state of a task; ``PENDING`` if it is unknown."""
        return str(self.get_task_meta(task_id)["status"])

    get_status = get_state

    def get_result(self, task_id: str) -> Any:
        """Return the result, or the exception of a failed task."""
        return self.get_task_meta(task_id)["result"]

    def get_traceback(self, task_id: str) -> str | None:
        """Return the traceback of a failed task, as text."""
        text: str | None = self.get_task_meta(task_id)["traceback"]
        return text

    def get_children(self, task_id: str) -> list[Any]:
        """Return the handles of the tasks that a task has sent."""
        return AsyncResult[Any](task_id, app=self.app).children or []

    def task_result_exists(self, task_id: str) -> bool:
        """Return True if a state is stored for a task."""
        return self.app.results.get(task_id) is not None

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **_: Any
    ) -> Any:
        """Store a state and a result, or an exception; returns the result. A stored ``SUCCESS`` stays.

        ``request`` is that of the task, ``self.request``: its children are stored, too, and its name, arguments and
        worker with ``result_extended``.
        """
        value = exception_payload(result) if isinstance(result, BaseException) else result
        done = self.app.now().isoformat() if state in READY_STATES else None
        sent = getattr(request, "children", None) or ()
        fields: dict[str, Any] = {
            "parent_id": getattr(request, "parent_id", None),
            "group_id": getattr(request, "group", None),
            "children": [child.as_tuple() for child in sent if hasattr(child, "as_tuple")],
        }
        if self.app.conf.result_extended and isinstance(request, Context):
            fields |= carried(request.extended())
        encoded = document(task_id, state, value, traceback=traceback, date_done=done, **fields)
        self.app.store_results([Stored(task_id, encoded, getattr(request, "reply_to", None) or "")])
        return result

    def mark_as_started(self, task_id: str, **meta: Any) -> None:
        """Store the state ``STARTED``."""
        self.store_result(task_id, meta, STARTED)

    def mark_as_done(
        self, task_id: str, result: Any, request: Any = None, store_result: bool = True, state: str = SUCCESS
    ) -> None:
        """Store a result. It sends no callbacks and counts for no chord."""
        if store_result:
            self.store_result(task_id, result, state, request=request)

    def mark_as_failure(  # noqa: PLR0917 - Celery's arguments
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,  # noqa: ARG002
        state: str = FAILURE,
    ) -> None:
        """Store a failure. It calls no errbacks and counts for no chord."""
        if store_result:
            self.store_result(task_id, exc, state, traceback, request)

    def mark_as_revoked(self, task_id: str, reason: str = "", **_: Any) -> None:
        """Store the state ``REVOKED``."""
        named = {"exc_type": "TaskRevokedError", "exc_message": [reason], "exc_module": "celery.exceptions"}
        self.store_result(task_id, named, REVOKED)

    def mark_as_retry(self, task_id: str, exc: BaseException, traceback: str | None = None, **_: Any) -> None:
        """Store the state ``RETRY``."""
        self.store_result(task_id, exc, RETRY, traceback)

    def remove_pending_result(self, result: Any) -> Any:
        """Return ``result``. Celery's clients keep a list of the results they wait for, beatd's have none."""
        return result

    def cleanup(self) -> None:
        """Do nothing: results expire by themselves."""

    def restore_group(self, group_id: str, cache: bool = True) -> Any:  # noqa: ARG002 - Celery's argument
        """Return the handle of a saved group, or None."""
        return self.app.GroupResult.restore(group_id)

    def save_group(self, group_id: str, result: Any) -> Any:
        """Save the members of a group; returns ``result``."""
        self.app.results.groups.save(group_id, result.as_tuple())
        return result

    def forget(self, task_id: str) -> None:
        """Delete the result."""
        self.app.results.forget(task_id)

    def delete_group(self, group_id: str) -> None:
        """Delete the stored list of a group's members."""
        self.app.results.groups.delete(group_id)

    def ensure_chords_allowed(self) -> None:
        """Raise NotImplementedError without a result backend, where chords cannot be counted."""
        groups = self.app.results.groups
        if isinstance(groups, NoGroups):
            raise NotImplementedError(groups.reason)

    def __repr__(self) -> str:
        return f"<Backend of {self.app!r}>"
