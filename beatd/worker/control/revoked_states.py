"""States of revoked tasks in the result backend, written by a thread: a backend may hang, remote control must not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from beatd.app.app import App
from beatd.exceptions import BeatdError, TaskRevokedError
from beatd.states import PENDING, RECEIVED, REJECTED, RETRY, REVOKED
from beatd.store.result_document import exception_payload
from beatd.store.results import NoResults

log = logging.getLogger("celery.worker.control")

_UNMARKED = "Cannot mark tasks as revoked, this is done when their messages arrive"

PATIENCE_S = 1.0
"""Seconds that a command waits for the backend; it only glances at one that has not answered an earlier command."""
_GLANCE_S = 0.05
_MOST_THREADS = 4
"""Commands whose states may be on their way at one time."""
_AT_ONCE = 1_000
"""Limit of ids per command whose state is written at once; later ones are written when their messages arrive."""
_NOT_BEGUN = frozenset({PENDING, RECEIVED, RETRY, REJECTED})


class RevokedStates:
    """Writes REVOKED for tasks that have not begun or ended anywhere, so that callers need not wait for them."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._threads: list[threading.Thread] = []

    def mark(self, ids: Sequence[str]) -> None:
        """Write the states, and wait briefly for it. Errors are logged."""
        if not ids or isinstance(self._app.results, NoResults):
            return
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= _MOST_THREADS:
            self._warn("the result backend has not answered earlier commands")
            return
        late = bool(self._threads)
        name = "revoked-states"
        self._threads.append(threading.Thread(target=self._write, args=(ids[:_AT_ONCE],), name=name, daemon=True))
        self._threads[-1].start()
        self._threads[-1].join(_GLANCE_S if late else PATIENCE_S)
        if self._threads[-1].is_alive():
            log.warning(
                "Tasks are revoked, but the result backend does not answer: their states are stored when it does, "
                "or when their messages arrive",
                extra={"event": "revoke_marking_late", "count": len(ids)},
            )

    def _write(self, ids: Sequence[str]) -> None:
        app, payload = self._app, exception_payload(TaskRevokedError("revoked"))
        try:
            for task_id in ids:
                if (app.results.get(task_id) or {"status": PENDING})["status"] in _NOT_BEGUN:
                    app.backend.store_result(task_id, payload, REVOKED)
        except BeatdError as error:
            self._warn(error)
        except Exception:
            log.exception(_UNMARKED, extra={"event": "revoke_unmarked"})

    @staticmethod
    def _warn(reason: object) -> None:
        log.warning("%s: %s", _UNMARKED, reason, extra={"event": "revoke_unmarked"})
