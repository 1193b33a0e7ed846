"""Tasks that every app has, because compositions send them: Celery's, under Celery's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beatd.app.canvas import chunks as chunked
from beatd.app.signature import as_signature

if TYPE_CHECKING:
    from beatd.app.app import App

PREFIX = "celery."
"""All of their names begin like this."""


def add(app: App) -> None:
    """Add them to ``app``."""

    @app.task(name="celery.accumulate", typing=False)
    def accumulate(*args: Any, index: int | None = None) -> Any:
        """The results of a group as one value; with ``index`` one of its arguments."""
        return args if index is None else args[index]

    @app.task(name="celery.map", typing=False)
    def xmap(task: Any, it: Any) -> list[Any]:
        """``[task(item) for item in it]``."""
        call = as_signature(task, app).type
        return [call(item) for item in it]

    @app.task(name="celery.starmap", typing=False)
    def xstarmap(task: Any, it: Any) -> list[Any]:
        """``[task(*item) for item in it]``."""
        call = as_signature(task, app).type
        return [call(*item) for item in it]

    @app.task(name="celery.chunks", typing=False)
    def chunks(task: Any, it: Any, n: int) -> Any:
        """Send the chunks of :class:`beatd.app.canvas.chunks`; returns their group's id."""
        return chunked(as_signature(task, app), it, n, app=app).apply_async().id

    @app.task(name="celery.backend_cleanup", ignore_result=True, typing=False)
    def backend_cleanup() -> None:
        """Nothing: Redis forgets results by itself."""
