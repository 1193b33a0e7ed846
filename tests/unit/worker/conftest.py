"""Fakes of the parts around the worker's loop: consumer, pool, result store, publisher, remote control."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from beatd import App
from beatd.broker.publisher import OutgoingMessage, Refused
from beatd.exceptions import BrokerError, StoreUnavailable
from beatd.message.protocol import build, envelope
from beatd.states import STARTED, SUCCESS
from beatd.store.ended_runs import SentRun
from beatd.store.groups import NoGroups
from beatd.store.keys import Keys
from beatd.store.result_document import document
from beatd.store.results import Stored
from beatd.worker.admission.poison import DeathCounter, PoisonDetector
from beatd.worker.admission.rate_limits import RateLimits
from beatd.worker.admission.revoked import Revoked
from beatd.worker.effects import Effect
from beatd.worker.messages import Delivery, Job, JobReport
from beatd.worker.pools.base import Pool
from beatd.worker.settings import WorkerSettings
from beatd.worker.worker import Worker
from tests.fakes import FakeClock


class Journal(list[tuple[str, Any]]):
    """All calls to the servers, in order."""

    def of(self, kind: str) -> list[Any]:
        return [value for name, value in self if name == kind]

    def kinds(self) -> list[str]:
        return [name for name, _ in self]


class FakeConsumer:
    """Gives what is in ``inbox``; fails in the methods named in ``away``."""

    place = "fake://"

    def __init__(self, journal: Journal) -> None:
        self.inbox: list[Delivery] = []
        self.away: set[str] = set()
        self.gone: list[int] = []
        self.beats = 0
        self._journal = journal

    def _call(self, name: str, items: Iterable[Any]) -> None:
        if name in self.away:
            raise BrokerError(f"{name}: away")
        self._journal.extend((name, item) for item in items)

    def start(self, stopping: Any = None) -> None:
        self._call("start", ())

    def take(self, at_most: int) -> list[Delivery]:
        self._call("take", ())
        taken, self.inbox[:at_most] = self.inbox[:at_most], []
        return taken

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._call("ack", [delivery.tag for delivery in deliveries])

    def reject(self, deliveries: Sequence[Delivery]) -> None:
        self._call("reject", [delivery.tag for delivery in deliveries])

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        self._call("give_back", [delivery.tag for delivery in deliveries])

    def park(self, deliveries: Sequence[tuple[Delivery, int]]) -> None:
        self._call("park", [(delivery.tag, due_ms) for delivery, due_ms in deliveries])

    def bury(self, deliveries: Sequence[tuple[Delivery, str]]) -> None:
        self._call("bury", [(delivery.tag, reason) for delivery, reason in deliveries])

    def tend(self) -> None:
        self._call("tend", ())

    def lost(self) -> list[int]:
        gone, self.gone = self.gone, []
        return gone

    def files(self) -> list[int]:
        return []

    def queues(self) -> list[str]:
        return ["celery"]

    def waiting(self, at_most: int) -> list[tuple[Delivery, int]]:
        return []

    def add_queue(self, name: str) -> None: ...

    def cancel_queue(self, name: str) -> None: ...

    def idle_for(self) -> float:
        return 1.0

    def beat(self) -> None:
        self.beats += 1

    def stop(self) -> None:
        self._call("stop", [None])


class FakePool:
    """Holds jobs until the test reports them."""

    def __init__(self, clock: FakeClock) -> None:
        self.size = 10
        self.jobs: dict[int, Job] = {}
        self.reports: list[JobReport] = []
        self.running: dict[int, float] = {}
        self.killed: list[tuple[int, int]] = []
        self.withdrawn: list[int] = []
        self.too_late = False
        """True: what is to be killed has just ended."""
        self.held: set[int] = set()
        """Jobs that processes have, and have not begun."""
        self.abandoned = False
        self._clock = clock

    def begin(self, tag: int) -> None:
        self.running[tag] = self._clock.monotonic()
        self.reports.append(JobReport(tag, STARTED, text="7"))

    def end(self, tag: int, state: str = SUCCESS, **fields: Any) -> None:
        self.running.pop(tag, None)
        self.jobs.pop(tag, None)
        result = {"document": document(f"id-{tag}", state, None)} | fields
        self.reports.append(JobReport(tag, state, 0.1, **result))

    def start(self) -> None: ...

    def room(self) -> int:
        return self.size - len(self.jobs)

    def submit(self, jobs: Sequence[Job]) -> None:
        self.jobs.update((job.tag, job) for job in jobs)

    def files(self) -> list[int]:
        return []

    def unsent(self) -> list[int]:
        return []

    def look_in(self) -> float:
        return math.inf

    def collect(self) -> list[JobReport]:
        reports, self.reports = self.reports, []
        return reports

    def kill(self, tag: int, number: int = 9) -> bool:
        if tag not in self.running or self.too_late:
            return False
        self.killed.append((tag, number))
        return True

    def running_since(self) -> dict[int, float]:
        return dict(self.running)

    def pids(self) -> list[int]:
        return [1]

    def pid_of(self, tag: int) -> int | None:
        return 1 if tag in self.running else None

    def withdraw(self, tag: int) -> bool:
        if tag in self.running or tag in self.held or self.jobs.pop(tag, None) is None:
            return False
        self.withdrawn.append(tag)
        return True

    def grow(self, by: int = 1) -> None: ...

    def shrink(self, by: int = 1) -> None: ...

    def abandon(self) -> None:
        self.abandoned = True

    def stop(self, grace: float) -> None: ...


class FakeResults:
    """Stores in the journal, unless it is ``away``; no result of a task in ``impossible``."""

    keeps_runs = False

    def __init__(self, journal: Journal) -> None:
        self.away = False
        self.groups = NoGroups()
        self.impossible: set[str] = set()
        self._journal = journal

    def store(self, results: Sequence[Stored]) -> None:
        if self.away:
            raise StoreUnavailable("results: away")
        if any(one.task_id in self.impossible for one in results):
            raise ValueError("a value that no server can take")
        self._journal.extend(("store", (one.task_id, json.loads(one.document)["status"])) for one in results)

    def close(self) -> None: ...


class FakePublisher:
    """Publishes into the journal, unless it is ``away``; refuses tasks named in ``refuses``; a message whose id is in
    ``disconnects`` ends the connection."""

    batch = 100

    def __init__(self, journal: Journal) -> None:
        self.away = False
        self.refuses: set[str] = set()
        self.disconnects: set[str] = set()
        self.attempts = 0
        self._journal = journal

    def publish_many(self, parcels: Sequence[OutgoingMessage]) -> list[Refused]:
        self.attempts += 1
        if self.away:
            raise BrokerError("publisher: away")
        if any(message.id in self.disconnects for message, _ in parcels):
            raise BrokerError("publisher: connection closed")
        refused = []
        for number, (message, _) in enumerate(parcels):
            if message.headers["task"] in self.refuses:
                refused.append(Refused(number, "refused"))
            else:
                self._journal.append(("publish", (message.headers["task"], message.id)))
        return refused

    def depth(self, queue: str) -> int:
        if self.away:
            raise BrokerError("publisher: away")
        return 0

    def close(self) -> None: ...


class FakeFinished:
    """The runs of the scheduler that have ended."""

    def __init__(self, journal: Journal) -> None:
        self.ended: set[str] = set()
        self.away = False
        self._journal = journal

    def among(self, runs: Sequence[SentRun]) -> set[str]:
        if self.away:
            raise StoreUnavailable("finished runs: away")
        return self.ended & {run.id for run in runs}

    def holds_schedule(self) -> bool:
        return True

    def remember(self, ended: Sequence[Any]) -> None:
        self._journal.extend(("finished", (one.run_id, one.state)) for one in ended)

    def remember_owed(self) -> None:
        """Nothing is owed: there is one server."""


class FakeRemote:
    """Remote control that keeps the effects."""

    def __init__(self) -> None:
        self.then: Callable[[], None] = lambda: None
        """Called in each turn."""
        self.turn_in = 1.0
        self.revoked = Revoked()
        self.events = SimpleNamespace(on=False)
        self.effects: list[Effect] = []
        self.tools: Any = None

    def attach(self, tools: Any) -> None:
        self.tools = tools

    def start(self) -> None: ...

    def turn(self) -> float:
        self.then()
        return self.turn_in

    def files(self) -> list[int]:
        return []

    def on_effects(self, effects: Sequence[Effect]) -> None:
        self.effects += effects

    def stop(self) -> None: ...


class Bench:
    """A worker between its fakes."""

    def __init__(
        self, rates: dict[str, Any] | None = None, make_pool: Callable[[App], Pool] | None = None, **settings: Any
    ) -> None:
        self.clock = FakeClock()
        self.journal = Journal()
        self.app = App("x", clock=self.clock, set_as_current=False)
        for name, options in _TASKS.items():
            self.app.task(name=name, **options)(lambda *args: args)
        self.app.task(name="errback")(lambda task_id: task_id)
        self.app.finalize()
        self.results = self.app.__dict__["results"] = FakeResults(self.journal)
        self.publisher = self.app.__dict__["publisher"] = FakePublisher(self.journal)
        self.consumer = FakeConsumer(self.journal)
        self.pool: Any = FakePool(self.clock) if make_pool is None else make_pool(self.app)
        self.finished = FakeFinished(self.journal)
        self.remote = FakeRemote()
        self.deaths = DeathCounter(None, Keys())
        self.worker = Worker(
            self.app,
            WorkerSettings(hostname="w@here", queues=("celery",), pool="threads", concurrency=10, **settings),
            consumer=self.consumer,
            pool=self.pool,
            finished=self.finished,  # type: ignore[arg-type]
            remote=self.remote,  # type: ignore[arg-type]
            rates=RateLimits(rates or {}, self.clock.monotonic()),
            poison=PoisonDetector(self.deaths),
        )

    def send(self, tag: int, task: str = "late", *, embed: Any = None, **fields: Any) -> Delivery:
        """Put a message into the consumer's inbox; its id is ``id-<tag>`` unless ``task_id`` says otherwise."""
        task_id = fields.pop("task_id", f"id-{tag}")
        raw = envelope(build(task, task_id, embed=embed, **fields), queue="celery")
        self.consumer.inbox.append(Delivery(tag, "celery", raw))
        return self.consumer.inbox[-1]

    def turn(self) -> float:
        return self.worker.turn()


_TASKS: dict[str, dict[str, Any]] = {
    "late": {"acks_late": True},
    "early": {},
    "limited": {"acks_late": True, "time_limit": 5},
    "keeps": {"acks_late": True, "reject_on_worker_lost": True},
    "callback": {},
}


@pytest.fixture
def make_bench() -> Callable[..., Bench]:
    return Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()
