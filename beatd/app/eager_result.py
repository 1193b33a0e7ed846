"""The outcome of a task that ran in the process of its caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beatd.app.result import AsyncResult, R_co

if TYPE_CHECKING:
    from beatd.app.app import App


class EagerResult(AsyncResult[R_co]):
    """The outcome of a task that ran in this process (``apply``, ``task_always_eager``)."""

    def __init__(  # noqa: PLR0917 - Celery's signature
        self,
        id: str,  # noqa: A002
        ret_value: Any,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
        app: App | None = None,
    ) -> None:
        super().__init__(id, app=app)
        self._final = {"status": state, "result": ret_value, "traceback": traceback, "name": name}

    def get(
        self,
        timeout: float | None = None,  # noqa: ARG002 - it has ended already
        propagate: bool = True,
        *_: Any,
        **__: Any,
    ) -> R_co:
        if propagate:
            self.maybe_throw()
        return self.result  # type: ignore[no-any-return]

    wait = get

    def forget(self) -> None:
        """Nothing is stored."""

    def revoke(self, *_: Any, **__: Any) -> None:
        """It has ended already."""
