"""Endpoint of a worker: what its exporter process answers. Loaded in that process only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric

import beatd
from beatd.metrics.families import family, gauge, text
from beatd.timestamps import span_text
from beatd.worker.exporter import HUNG_S, Asking, Servers, ServerView
from beatd.worker.snapshot import Snapshot


class WorkerEndpoint:
    """Tells of the worker ``pid``: an :class:`~beatd.metrics.server.Endpoint`."""

    def __init__(self, asking: Asking, servers: Servers, pid: int, *, blocks: bool) -> None:
        self._asking = asking
        self._servers = servers
        self._blocks = blocks
        self._process = CollectorRegistry()
        ProcessCollector(pid=lambda: pid, registry=self._process)

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return text(self._families(), self._process)

    def unhealthy(self) -> Sequence[str]:
        """Return the reason if the worker's loop hangs."""
        self._asking.snapshot()
        if self._blocks or self._asking.silent_s <= HUNG_S:
            return ()
        return (f"the worker's loop has made no progress for {span_text(int(self._asking.silent_s * 1000))}",)

    def unready(self) -> Sequence[str]:
        """Return the reasons why the worker takes no messages."""
        return self._unready(self._asking.snapshot())

    def _unready(self, snapshot: Snapshot | None) -> Sequence[str]:
        return (*self.unhealthy(), *(snapshot.unready if snapshot else ["the worker starts"]))

    def _families(self) -> Iterator[Metric]:
        snapshot = self._asking.snapshot()
        yield family("beatd_build_info", [((beatd.__version__,), 1)])
        yield gauge("beatd_worker_ready", int(not self._unready(snapshot)))
        if snapshot is not None:
            yield from _snapshot_families(snapshot)
            yield from _server_families(self._servers.view(snapshot.queues))


def _snapshot_families(snapshot: Snapshot) -> Iterator[Metric]:
    tasks = [((task, state), n) for task, states in snapshot.tasks.items() for state, n in states.items()]
    yield family("beatd_worker_tasks_total", tasks)
    yield family("beatd_worker_task_seconds", [((task,), histogram) for task, histogram in snapshot.seconds.items()])
    yield gauge("beatd_worker_pool_size", snapshot.size)
    yield gauge("beatd_worker_pool_busy", snapshot.busy)
    yield gauge("beatd_worker_prefetched", snapshot.prefetched)
    yield gauge("beatd_worker_longest_running_seconds", snapshot.longest_s)


def _server_families(view: ServerView) -> Iterator[Metric]:
    if view.broker_up is not None:
        yield gauge("beatd_broker_up", int(view.broker_up))
    if view.store_up is not None:
        yield gauge("beatd_store_up", int(view.store_up))
    yield family("beatd_queue_length", [((queue,), length) for queue, length in view.lengths.items()])
    yield family("beatd_queue_oldest_message_seconds", [((queue,), age) for queue, age in view.ages.items()])
