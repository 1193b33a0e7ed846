"""Result writer: a thread for result backends whose drivers may block without limit, those of Celery.

The worker's loop hands over a batch and waits for it briefly. While the backend does not answer, that is an outage like
any other: the loop goes on with heartbeats and remote control, and keeps results and messages until it answers.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from beatd.app.app import App
from beatd.clock import Clock
from beatd.exceptions import StoreUnavailable
from beatd.store.celery_results import CeleryResults
from beatd.store.results import Stored

PATIENCE_S = 1.0
"""Seconds that the loop waits for a new batch; it only glances at one that is late."""
_GLANCE_S = 0.05
GIVE_UP_S = 30.0
"""Seconds after which a call of the driver is left alone, and its batch stored by another thread and connection."""
MOST_LEFT = 4
"""Threads that may be left alone at one time; with so many, the writer waits for one to end."""

Store = Callable[[Sequence[Stored]], None]


class _Batch:
    """Results on their way to the backend."""

    def __init__(self, results: Sequence[Stored], begun: float) -> None:
        self.results = list(results)
        self.begun = begun
        self.over = threading.Event()
        self.error: Exception | None = None
        self.is_left = False

    def write(self, store: Store) -> None:
        """Store one result after another, until the batch is left to another thread."""
        try:
            for result in self.results:
                if self.is_left:
                    break
                store([result])
        except Exception as error:  # noqa: BLE001 - raised again in the loop
            self.error = error
        self.over.set()


class ResultWriter:
    """Stores results in order, at most one batch at a time; ``place`` names the backend in errors."""

    def __init__(self, store: Store, place: str, clock: Clock) -> None:
        self._store = store
        self._place = place
        self._clock = clock
        self._batch: _Batch | None = None
        self._left: list[_Batch] = []
        self._batches: queue.SimpleQueue[_Batch | None] | None = None
        self._thread: threading.Thread | None = None

    def store(self, results: Sequence[Stored]) -> None:
        """Store the results; raises StoreUnavailable while they are on their way: call again with the same and more."""
        done = 0
        if self._batch is not None:
            done = self._finish(self._batch, _GLANCE_S, results)
        while done < len(results):
            done += self._finish(self._begin(results[done:]), PATIENCE_S, results[done:])

    def stop(self) -> None:
        """End the thread, before what it writes with is closed; one that hangs in its driver is left alone."""
        if self._batches is not None and self._thread is not None:
            self._batches.put(None)
            self._thread.join(PATIENCE_S)
            self._batches = None

    def _begin(self, results: Sequence[Stored]) -> _Batch:
        if self._batches is None:
            self._batches = queue.SimpleQueue()
            self._thread = threading.Thread(
                target=_write, args=(self._batches, self._store), name="beatd-result-writer", daemon=True
            )
            self._thread.start()
        self._batch = _Batch(results, self._clock.monotonic())
        self._batches.put(self._batch)
        return self._batch

    def _finish(self, batch: _Batch, seconds: float, results: Sequence[Stored]) -> int:
        """Wait for a batch; returns how many of ``results``, which begin with its own, are stored."""
        if not batch.over.wait(seconds):
            late_s = self._clock.monotonic() - batch.begun
            self._left = [left for left in self._left if not left.over.is_set()]
            if late_s >= GIVE_UP_S and len(self._left) < MOST_LEFT:
                batch.is_left = True
                self._left.append(batch)
                self._batch = self._batches = None
            raise StoreUnavailable(
                f"result backend {self._place}: {len(batch.results)} results are not stored after {late_s:.0f}s"
            )
        self._batch = None
        if batch.error is not None:
            raise batch.error
        count = len(batch.results)
        return count if list(results[:count]) == batch.results else 0


def _write(batches: queue.SimpleQueue[_Batch | None], store: Store) -> None:
    while (batch := batches.get()) is not None:
        batch.write(store)
        if batch.is_left:
            return


def writer_of(app: App) -> ResultWriter | None:
    """Return a writer for the results of an app's tasks if the backend is one of Celery's; None: it needs none."""
    if isinstance(app.results, CeleryResults):
        return ResultWriter(app.results.store, app.results.place, app.clock)
    return None
