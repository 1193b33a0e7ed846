"""Workers and queues for programs: beatd's and Celery's workers answer alike, over remote control."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from beatd import broker
from beatd.app.app import App
from beatd.clock import SystemClock
from beatd.message.protocol import oldest_age_s
from beatd.timestamps import iso_ms

ANSWER_S = 0.7
"""Time without a further answer after which no more are waited for."""
_QUESTIONS = ("stats", "active", "active_queues")
_TASKS_SHOWN = 100
"""Running tasks that are named for each worker."""
QUEUES_MAX = 200
"""Queues that are asked for their length."""

Answers = Mapping[str, Any]


class QueueLength(NamedTuple):
    """Length of a queue: messages that wait, and seconds since the run of the oldest was due, where that is known."""

    messages: int
    oldest_s: float | None = None


class WorkerClient:
    """The workers on one broker; a context manager. Methods raise :class:`~beatd.exceptions.BrokerError`."""

    def __init__(self, broker_url: str, store_url: str | None = None) -> None:
        self._publisher = broker.open(broker_url)
        self._app = App("beatd", broker=broker_url, set_as_current=False)
        if store_url is not None:
            self._app.conf.state_store = store_url

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._publisher.close()

    def workers(self) -> list[dict[str, Any]]:
        """The workers that answer: pool, queues, running tasks and how many have run."""
        with ThreadPoolExecutor(len(_QUESTIONS), thread_name_prefix="inspect") as threads:
            stats, active, queues = threads.map(self._ask, _QUESTIONS)
        names = sorted({*stats, *active, *queues})
        return [worker_facts(name, stats.get(name), active.get(name), queues.get(name)) for name in names]

    def lengths(self, queues: Collection[str]) -> dict[str, QueueLength]:
        """The messages that wait in each queue, of the first :data:`QUEUES_MAX` by name."""
        names, now_ms = sorted(queues)[:QUEUES_MAX], SystemClock().now_ms()
        return {
            name: QueueLength(one.messages, oldest_age_s(one.next, now_ms) if one.messages else None)
            for name, one in zip(names, self._publisher.waiting(names), strict=True)
        }

    def stop(self, run_id: str) -> None:
        """End a run: workers skip its message, or terminate the task that is running."""
        self._app.control.revoke(run_id, terminate=True)

    def _ask(self, question: str) -> Answers:
        answers = self._app.control.broadcast(question, reply=True, timeout=ANSWER_S)
        return {name: answer for each in answers or () for name, answer in each.items()}


def worker_facts(name: str, stats: Any, active: Any, queues: Any) -> dict[str, Any]:
    """A worker for programs, from what it answered; what it did not answer is null. No argument of a task is told."""
    stats = stats if isinstance(stats, Mapping) else {}
    pool = _mapping(stats.get("pool"))
    total = _mapping(stats.get("total"))
    processes = pool.get("processes")
    return {
        "name": name,
        "pid": _whole(stats.get("pid")),
        "uptime_s": _whole(stats.get("uptime")),
        "pool": _pool(str(pool["implementation"])) if "implementation" in pool else None,
        "concurrency": _whole(pool.get("max-concurrency")),
        "processes": len(processes) if isinstance(processes, list) else None,
        "ran": sum(count for count in total.values() if isinstance(count, int)),
        "queues": sorted(str(queue.get("name")) for queue in _tables(queues)),
        "active": [_task(task) for task in _tables(active)[:_TASKS_SHOWN]],
        "active_count": len(_tables(active)),
    }


_UNATTENDED = "no worker; start one: beatd worker -Q {}"


def queue_facts(
    lengths: Mapping[str, QueueLength], entries: Mapping[str, int], workers: Collection[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Queues for programs: messages that wait, entries that send to them, workers that take from them."""
    takers: dict[str, list[str]] = {}
    for worker in workers:
        for queue in worker["queues"]:
            takers.setdefault(queue, []).append(worker["name"])
    return [
        {
            "name": queue,
            "messages": length.messages,
            "oldest_s": length.oldest_s,
            "entries": entries.get(queue, 0),
            "workers": takers.get(queue, []),
            "problem": _UNATTENDED.format(queue) if length.messages and queue not in takers else None,
        }
        for queue, length in lengths.items()
    ]


def _pool(implementation: str) -> str:
    """The name of a pool, of ``celery.concurrency.prefork:TaskPool`` and ``beatd.worker.pools:PreforkPool`` alike."""
    module, _, name = implementation.partition(":")
    last = module.rpartition(".")[2]
    return name.removesuffix("Pool").lower() if last == "pools" else last


def _task(task: Mapping[str, Any]) -> dict[str, Any]:
    began = task.get("time_start")
    is_known = isinstance(began, int | float) and 0 < began < 1e11
    return {
        "id": str(task.get("id")),
        "task": str(task.get("name")),
        "pid": _whole(task.get("worker_pid")),
        "started_at": iso_ms(int(began * 1000)) if is_known and began is not None else None,
    }


def _tables(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and abs(value) < 1e15 else None
