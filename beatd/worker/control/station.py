"""What commands may look at and take hold of in the worker that they are sent to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from beatd.app.app import App
from beatd.broker.bus import LamportClock
from beatd.worker.autoscale import Autoscaled
from beatd.worker.consumers import Consumer
from beatd.worker.control.revoked import Revoked
from beatd.worker.events.tasks import TaskEvents
from beatd.worker.pools.port import Pool
from beatd.worker.rates import Rates
from beatd.worker.request import Request
from beatd.worker.settings import WorkerSettings


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What the worker's loop lends to its remote control."""

    pool: Pool
    consumer: Consumer
    requests: Mapping[int, Request]
    """By tag: what the pool has, running or not."""
    stop: Callable[[], None]
    """Have the worker finish what runs and leave."""
    drop: Callable[[Request], None]
    """Settle a request that the pool has given back as revoked."""
    held: Callable[[], list[Request]]
    """What rate limits keep from the pool for a moment."""
    rates: Rates
    autoscaler: Autoscaled | None
    """Changes the size of the pool by itself, where it is on."""


@dataclass(frozen=True, kw_only=True)
class Station:
    """The worker, as commands see it."""

    app: App
    settings: WorkerSettings
    tools: Tools
    lamport: LamportClock
    revoked: Revoked
    events: TaskEvents
    totals: Counter[str]
    """How many runs of each task this worker has begun."""
    started: float
    """Since when it works, on the monotonic clock."""
    remember: Callable[[list[str]], None]
    """Have all workers know that these are revoked, also those to come."""
    beat: Callable[[], None]
    """Send a heartbeat."""
    url: str
    """The broker's; with its password."""

    @property
    def hostname(self) -> str:
        return self.settings.hostname

    def find(self, task_id: str) -> list[Request]:
        """The requests for a task that this worker has; one, unless a message came twice."""
        return [request for request in self.tools.requests.values() if request.id == task_id]

    def running(self) -> dict[int, float]:
        """The tags of what runs, and how long each has been running (seconds)."""
        now = self.app.clock.monotonic()
        return {tag: now - since for tag, since in self.tools.pool.running_since().items()}
