"""Putting a worker together: consumer, pool and loop, from an app and its settings."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from beatd.app import signals
from beatd.app.app import App
from beatd.app.queues import Queues
from beatd.broker import bus, is_redis, redis_url
from beatd.broker.bus import Names
from beatd.exceptions import StoreError
from beatd.store.keys import Keys
from beatd.worker.consumers import Consumer, open_consumer
from beatd.worker.control.remote import Remote
from beatd.worker.control.revoked import RevokedStore
from beatd.worker.execution import Executor
from beatd.worker.finished import FinishedRuns
from beatd.worker.pools.coroutines import AsyncioPool
from beatd.worker.pools.lifetime import Lifetime
from beatd.worker.pools.port import Pool
from beatd.worker.pools.prefork import PreforkPool
from beatd.worker.pools.solo import SoloPool
from beatd.worker.pools.threads import ThreadPool
from beatd.worker.request import request_class
from beatd.worker.settings import WorkerSettings
from beatd.worker.worker import Worker

log = logging.getLogger("celery.worker")

POOLS = ("prefork", "threads", "asyncio", "solo")
_BEAT_S = 2.5
_SAME_WISH_S = 0.3


def run_worker(app: App, settings: WorkerSettings) -> None:
    """Run a worker in this thread until SIGTERM or SIGINT; a second signal (or SIGQUIT) ends it cold."""
    app.finalize()
    for task in app.tasks.values():
        request_class(task)  # a class that cannot be found is better known before the first message
    url = app.conf.broker_url
    url = url if isinstance(url, str) else ";".join(url)
    store_url = settings.store_url or app.conf.state_store or (redis_url(url) if is_redis(url) else None)
    consumer = open_consumer(
        url,
        settings.queues,
        name=settings.hostname,
        clock=app.clock,
        prefix=settings.prefix,
        store_url=store_url,
        arguments=Queues(app.conf).arguments,
    )
    finished = FinishedRuns(store_url, Keys(settings.prefix))
    pool, remote = _pool(app, settings), _remote(app, settings, url, store_url)
    worker = Worker(app, settings, consumer=consumer, pool=pool, finished=finished, remote=remote)
    signals.worker_init.send(sender=worker)
    with _signals_of(worker), _heartbeat(consumer, settings.pool):
        worker.run()


def _remote(app: App, settings: WorkerSettings, url: str, store_url: str | None) -> Remote:
    """With short patience: tasks wait while the remote control does."""
    names = Names(app.conf.control_exchange, app.conf.event_exchange)
    store = RevokedStore(store_url, Keys(settings.prefix))
    return Remote(app, settings, lambda: bus.open(url, names, timeout=2.0), names, store)


def _pool(app: App, settings: WorkerSettings) -> Pool:
    execute = Executor(app, settings.hostname)
    match settings.pool:
        case "threads":
            return ThreadPool(settings.concurrency, execute)
        case "asyncio":
            return AsyncioPool(settings.concurrency, execute)
        case "solo":
            return SoloPool(execute)
        case _:
            lifetime = Lifetime(settings.max_tasks_per_child, settings.max_memory_per_child)
            return PreforkPool(settings.concurrency, execute, in_child=_name_process, lifetime=lifetime)


def _name_process(number: int) -> None:
    multiprocessing.current_process().name = f"ForkPoolWorker-{number}"
    signals.worker_process_init.send(sender=None)


@contextmanager
def _signals_of(worker: Worker) -> Iterator[None]:
    """SIGTERM and SIGINT: warm, the second time cold. SIGQUIT: cold.

    A signal that comes right after another is the same wish: whoever signals a process group and its members does that.
    """
    last = -_SAME_WISH_S

    def stop(number: int, _frame: object) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _SAME_WISH_S:
            return
        last = now
        worker.stop(cold=number == signal.SIGQUIT)
        log.warning(
            "worker: %s shutdown (MainProcess)",
            "Warm" if worker.stops == 1 else "Cold",
            extra={"event": "worker_stopping", "signal": signal.Signals(number).name},
        )

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT), stop)
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _heartbeat(consumer: Consumer, pool: str) -> Iterator[None]:
    """In the solo pool the loop stands still while a task runs: a thread keeps the worker alive for the others.

    The other pools need none, and prefork must have none: a process with threads cannot fork safely.
    """
    if pool != "solo":
        yield
        return
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_BEAT_S):
            try:
                consumer.beat()
            except StoreError as error:
                log.warning("Heartbeat failed: %s", error, extra={"event": "heartbeat_failed"})

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_BEAT_S)
