"""Metrics of the worker: counts of tasks in its thread, sent to the exporter process when that asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from beatd.clock import monotonic
from beatd.metrics.counters import TASKS_S, Histogram
from beatd.worker.consumers import Consumer
from beatd.worker.effects import Effect, Ended, Received, Revoked, Unregistered
from beatd.worker.exporter import Exporter
from beatd.worker.pools.base import Pool
from beatd.worker.request import Request
from beatd.worker.shutdown import Shutdown
from beatd.worker.snapshot import Snapshot, encode


class WorkerState(NamedTuple):
    """The parts of a worker that are measured."""

    pool: Pool
    consumer: Consumer
    requests: Mapping[int, Request]
    shutdown: Shutdown


class WorkerMetrics:
    """Counts tasks in the worker's thread, and answers the exporter, if there is one."""

    def __init__(self, exporter: Exporter | None = None) -> None:
        self._exporter = exporter
        self._tasks: dict[str, Counter[str]] = {}
        self._seconds: dict[str, Histogram] = {}
        self._state: WorkerState | None = None
        self._problem = "not connected to the broker yet"

    def attach(self, state: WorkerState) -> None:
        """Tell of this worker from now on."""
        self._state = state

    def on_effects(self, effects: Iterable[Effect]) -> None:
        """Count what has become of tasks, if there is an exporter to ask for it."""
        if self._exporter is None:
            return
        for effect in effects:
            if isinstance(effect, Received):
                self._count(effect.request.headers.task, "received")
            elif isinstance(effect, Ended):
                self._count(effect.request.headers.task, effect.report.state.lower())
                self._observe(effect.request.headers.task, effect.report.runtime)
            elif isinstance(effect, Revoked):
                self._count(effect.request.headers.task, "expired" if effect.expired else "revoked")
            elif isinstance(effect, Unregistered):
                self._count("", "unregistered")  # its name is anybody's

    def works(self) -> None:
        """Note that a turn has succeeded."""
        self._problem = ""

    def failed(self, error: Exception) -> None:
        """Note why no messages are taken."""
        self._problem = str(error)

    def files(self) -> list[int]:
        """Return the descriptors that become readable when the exporter asks."""
        return self._exporter.files() if self._exporter else []

    def turn(self) -> None:
        """Answer the exporter."""
        if self._exporter is not None:
            self._exporter.turn(lambda: encode(self.snapshot()))

    def stop(self) -> None:
        """End the exporter."""
        if self._exporter is not None:
            self._exporter.stop()

    def snapshot(self) -> Snapshot:
        """Return the state of now."""
        state = self._state
        running = state.pool.running_since() if state else {}
        return Snapshot(
            tasks={task: dict(counts) for task, counts in self._tasks.items()},
            seconds=self._seconds,
            size=state.pool.size if state else 0,
            busy=len(running),
            prefetched=max(len(state.requests) - len(running), 0) if state else 0,
            longest_s=max(monotonic() - min(running.values(), default=monotonic()), 0.0),
            queues=state.consumer.queues() if state else [],
            unready=[*self._unready()],
        )

    def _unready(self) -> Sequence[str]:
        if self._state is not None and self._state.shutdown.begun:
            return ["the worker is shutting down"]
        return [self._problem] if self._problem else []

    def _count(self, task: str, state: str) -> None:
        counts = self._tasks.get(task)
        if counts is None:
            counts = self._tasks[task] = Counter()
        counts[state] += 1

    def _observe(self, task: str, seconds: float) -> None:
        histogram = self._seconds.get(task)
        if histogram is None:
            histogram = self._seconds[task] = Histogram(TASKS_S)
        histogram.observe(seconds)
