"""Eager results: the handles of tasks that ran in this process."""

from __future__ import annotations

from typing import Any

from beatd.app.base import AppBase
from beatd.app.result import AsyncResult, R_co
from beatd.exceptions import TaskRevokedError
from beatd.states import READY_STATES, REVOKED


class EagerResult(AsyncResult[R_co]):
    """The outcome of a task that ran in this process (``apply``, ``task_always_eager``)."""

    def __init__(  # noqa: PLR0917 - Celery's signature
        self,
        id: str,  # noqa: A002
        ret_value: Any,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
        app: AppBase | None = None,
    ) -> None:
        super().__init__(id, app=app)
        self._final: dict[str, Any] = {"status": state, "result": ret_value, "traceback": traceback, "name": name}

    def get(
        self,
        timeout: float | None = None,  # noqa: ARG002 - the task has finished already
        propagate: bool = True,
        *_: Any,
        **__: Any,
    ) -> R_co:
        if propagate:
            self.maybe_throw()
        return self.result if self.state in READY_STATES else None  # type: ignore[return-value]

    wait = get

    def ready(self) -> bool:
        """Return True: it has ended, also if the task was ignored or rejected."""
        return True

    def forget(self) -> None:
        """Do nothing: no result is stored."""

    def revoke(self, *_: Any, **__: Any) -> None:
        """Mark the result as revoked, though the task has finished: ``get`` raises TaskRevokedError from now on."""
        self._final |= {"status": REVOKED, "result": TaskRevokedError("revoked"), "traceback": None}
