"""A daemon and a worker in one process on a real store, with a clock that moves when told: days pass in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from beatd import App
from beatd.beat.delivery import DirectDelivery
from beatd.beat.dispatcher import Dispatcher
from beatd.beat.heap import DueHeap
from beatd.beat.loop import ShardLoop
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Term
from beatd.model import Entry
from beatd.store.claims import Claims
from beatd.store.client import connect
from beatd.store.entry_state import Running
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.worker_state import FinishedRuns
from beatd.worker.admission.poison import DeathCounter, PoisonDetector
from beatd.worker.admission.rate_limits import RateLimits
from beatd.worker.admission.revoked import Revoked
from beatd.worker.consumers import open_consumer
from beatd.worker.execution.executor import Executor
from beatd.worker.messages import Job, JobReport
from beatd.worker.settings import WorkerSettings
from beatd.worker.worker import Worker
from tests.fakes import NOW, FakeClock

HOST = "celery@here"
DAY_MS = 86_400_000


class BatchPool:
    """Runs what it was given, one job after the other, when it is asked for reports."""

    def __init__(self, execute: Executor, size: int) -> None:
        self._execute, self._jobs, self.size = execute, list[Job](), size
        self.running: dict[int, float] = {}

    def start(self) -> None: ...

    def room(self) -> int:
        return self.size - len(self._jobs)

    def submit(self, jobs: Sequence[Job]) -> None:
        self._jobs += jobs

    def collect(self) -> list[JobReport]:
        jobs, self._jobs = self._jobs, []
        return [report for job in jobs for report in self._reports(job)]

    def _reports(self, job: Job) -> Iterable[JobReport]:
        begun: list[Any] = []
        end = self._execute(job, begun.append)
        return [*begun, end]

    def files(self) -> list[int]:
        return []

    def withdraw(self, tags: Sequence[int]) -> list[int]:
        return []

    def stop(self) -> None: ...


class Silent:
    """Remote control that nobody uses."""

    turn_in = 1.0

    def __init__(self) -> None:
        self.revoked, self.events = Revoked(), SimpleNamespace(on=False)

    def attach(self, tools: Any) -> None: ...

    def on_effects(self, effects: Any) -> None: ...


class Fleet:
    """``run_for`` lets time pass: the daemon sends what is due, and the worker runs it."""

    def __init__(self, url: str, tasks: dict[str, Callable[..., Any]], **conf: Any) -> None:
        self.clock, self.keys, self.client = FakeClock(NOW), Keys(), connect(url, timeout_ms=30_000)
        leases = Leases(self.client, self.keys, daemon_id="d", ttl_ms=DAY_MS)
        value = leases.value(leases.take([0])[0])
        claims = Claims(self.client, self.keys)
        running = Running(self.client, self.keys)
        depth = SimpleNamespace(depth=self.client.llen)
        dispatcher = Dispatcher(claims, MessageBuilder("celery"), DirectDelivery(depth), running, self.clock)
        leadership = SimpleNamespace(term=lambda: Term(1, value, 1e18), lose=lambda term: None)
        self.heap = DueHeap()
        self.daemon = ShardLoop(
            clock=self.clock, leadership=leadership, claims=claims, dispatcher=dispatcher, heap=self.heap
        )
        self.app = App("x", broker=url, backend=url, clock=self.clock, set_as_current=False, **conf)
        for name, function in tasks.items():
            self.app.task(name=name, acks_late=True)(function)
        self.app.finalize()
        self.consumer = open_consumer(url, ("celery",), name=HOST, clock=self.clock)
        self.worker = Worker(
            self.app,
            WorkerSettings(hostname=HOST, queues=("celery",), pool="threads", concurrency=250),
            consumer=self.consumer,
            pool=BatchPool(Executor(self.app, HOST), 250),  # type: ignore[arg-type]
            finished=FinishedRuns(url, self.keys),
            remote=Silent(),  # type: ignore[arg-type]
            rates=RateLimits({}, self.clock.monotonic()),
            poison=PoisonDetector(DeathCounter(url, self.keys)),
        )
        self.consumer.start(lambda: False)

    def schedule(self, entries: Iterable[Entry]) -> None:
        self.daemon.schedule.replace(entries)
        self.daemon.turn()

    def run_for(self, seconds: float) -> None:
        """From one instant at which something is due to the next; the worker runs all of it before the next one."""
        until_ms = self.clock.ms + round(seconds * 1000)
        while self.clock.ms < until_ms:
            next_ms = self.heap.next_fire_ms()
            step_ms = max(min(until_ms, until_ms if next_ms is None else next_ms) - self.clock.ms, 1)
            self.clock.advance(step_ms / 1000)
            self.daemon.turn()
            self.work()

    def work(self) -> None:
        """Run all that is in the queue."""
        while self.worker.turn() == 0.0 or self.client.llen("celery"):
            pass
        self.worker.turn()

    def close(self) -> None:
        self.consumer.stop()
        self.client.close()
