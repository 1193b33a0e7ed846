"""Traces of runs in the daemon: the spans *claim* and *publish*, made in a thread of its own.

The loop only appends to a queue. A herd is many spans: they are made some at a time, and dropped beyond a number.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from beatd.clock import Backoff, Clock
from beatd.model import Run
from beatd.timestamps import iso_ms
from beatd.tracing import Tracing, made_for, traceparent, tracestate

log = logging.getLogger("beatd.beat.traces")

WAITING_MAX = 50_000
"""Runs whose spans are not made yet; of more, the oldest are dropped."""
_LATE_MS = 3_600_000
"""Lateness from which a run counts as caught up: its trace begins with its claim."""
_BATCH, _PAUSE_S, _LOOK_S = 200, 0.02, 0.5
"""Runs at once, the rest between two batches, and between two looks."""


class _Dispatched(NamedTuple):
    run: Run
    claimed_ms: int
    published_ms: int


class RunTraces:
    """Makes spans from the events of the dispatch log, and trace contexts for messages."""

    def __init__(self, tracing: Tracing, clock: Clock) -> None:
        self._tracing = tracing
        self._clock = clock
        self._claimed: dict[str, int] = {}
        self._queue: deque[_Dispatched] = deque(maxlen=WAITING_MAX)
        self._failures = Backoff(0.0, 0.0)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)

    @classmethod
    def if_enabled(cls, clock: Clock) -> RunTraces | None:
        """Return the traces of a daemon whose environment asks for them."""
        tracing = made_for("beatd")
        return None if tracing is None else cls(tracing, clock)

    def context(self, run_id: str) -> tuple[str, str]:
        """The headers ``traceparent`` and ``tracestate`` of a run's message."""
        is_sampled = self._tracing.is_sampled(run_id)
        return traceparent(run_id, sampled=is_sampled), tracestate(self._clock.now_ms())

    def start(self) -> None:
        """Record from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Record what waits, for two seconds at most."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2)

    def claimed(self, runs: Sequence[Run], now_ms: int) -> None:
        """Note that runs were claimed."""
        self._claimed |= {run.id: now_ms for run in runs}
        for run_id in list(islice(self._claimed, max(len(self._claimed) - WAITING_MAX, 0))):
            del self._claimed[run_id]

    def published(self, runs: Sequence[Run], now_ms: int) -> None:
        """Note that their messages are in the broker."""
        self._queue.extend(_Dispatched(run, self._claimed.pop(run.id, now_ms), now_ms) for run in runs)

    def _work(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            self.record()
        self.record()
        self._tracing.stop()

    def record(self) -> None:
        """Make the spans of all runs that wait. A defect costs the trace of one run."""
        count = 0
        while self._queue:
            one = self._queue.popleft()
            try:
                _record(self._tracing, one)
            except Exception as error:  # noqa: BLE001 - OpenTelemetry and its extensions raise anything
                self._log_failure(one.run, error)
            count += 1
            if count % _BATCH == 0:
                self._stopping.wait(_PAUSE_S)

    def _log_failure(self, run: Run, error: Exception) -> None:
        self._failures.failed()
        extra = {"event": "traces_failed", "entry": run.entry.name, "run_id": run.id}
        log.log(self._failures.level, "A run of %s has no trace", run.entry.name, exc_info=error, extra=extra)


def _record(tracing: Tracing, one: _Dispatched) -> None:
    run = one.run
    attributes = {
        "beatd.entry": run.entry.name,
        "beatd.run_id": run.id,
        "beatd.due_at": iso_ms(run.due_ms),
        "messaging.message.id": run.id,
        "messaging.destination.name": run.entry.options.queue or "",
    }
    start_ms = run.fire_ms if 0 <= one.claimed_ms - run.fire_ms < _LATE_MS else one.claimed_ms
    tracing.span(run.id, "claim", start_ms, one.claimed_ms, attributes=attributes)
    tracing.span(run.id, "publish", one.claimed_ms, one.published_ms, parent="claim", attributes=attributes)
