"""Task ``celery.chord_unlock``: waits for the header of a chord, with a result backend that cannot count.

As in Celery, the client sends it with the chord; each attempt looks at the results, and the last publishes the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beatd.app.app import App
from beatd.app.group_result import GroupResult, result_from_tuple
from beatd.exceptions import BrokerError, StoreUnavailable
from beatd.message import json_codec
from beatd.states import READY_STATES
from beatd.store.groups import Complete, Part
from beatd.worker.chord_completion import Chords

NAME = "celery.chord_unlock"


def register(app: App) -> None:
    """Add the task to an app whose result backend cannot count."""
    if not app.results.groups.is_polled or NAME in app.tasks:
        return
    chords = Chords(app)

    def unlock(  # noqa: PLR0917 - Celery's signature
        self: Any,
        /,
        group_id: str,
        callback: Any,
        interval: float | None = None,
        max_retries: int | None = None,
        result: Sequence[Any] = (),
        **_: Any,
    ) -> None:
        """Publish the body ``callback`` once all tasks of ``result`` have ended; else try again."""
        header = [result_from_tuple(reference, app) for reference in result]
        again = {"countdown": interval or app.conf.result_chord_retry_interval, "max_retries": max_retries}
        try:
            ends = _ends(app, header)
        except StoreUnavailable as error:
            raise self.retry(exc=error, **again) from None
        if ends is None:
            raise self.retry(**again)
        nested = any(isinstance(member, GroupResult) for member in header)
        shape = json_codec.loads(json_codec.dumps([[group_id, None], result])) if nested else None
        part = Part(group_id, None, self.request.id, b"", json_codec.dumps(callback), self.request.root_id)
        try:
            chords.finish(Complete(part, shape, ends))
        except (BrokerError, StoreUnavailable) as error:
            raise self.retry(exc=error, **again) from None

    app.task(bind=True, name=NAME, max_retries=None, ignore_result=True, typing=False)(unlock)


def _ends(app: App, header: Sequence[Any]) -> list[tuple[str, str, Any]] | None:
    """Return task id, state and result of all tasks of a header, in its order; None while one is not over."""
    ids = [task_id for member in header for task_id in _ids(member)]
    found: Mapping[str, Any] = app.results.get_many(ids)
    if any(task_id not in found or found[task_id]["status"] not in READY_STATES for task_id in ids):
        return None
    return [(task_id, found[task_id]["status"], found[task_id]["result"]) for task_id in ids]


def _ids(member: Any) -> list[str]:
    return [task_id for each in member for task_id in _ids(each)] if isinstance(member, GroupResult) else [member.id]
