"""What a base class of tasks may override: told of what happens to each run, where the task runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beatd.app.app import App


class Hooks:
    """What they raise is logged and changes nothing, but for ``before_start``: that is a failure of the task."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called before each attempt."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called when the task returned."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called when the task failed for good."""

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called when the task will be tried again."""

    def after_return(  # noqa: PLR0917 - Celery's signature
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Called at the end, after success and failure."""

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
        """What logs and monitors shall call a run of it, if that is not its name."""

    @classmethod
    def on_bound(cls, app: App) -> None:
        """Called when it becomes a task of ``app``."""
