"""Putting a worker together: consumer, pool and loop, from an app and its settings."""

from __future__ import annotations

import logging
import multiprocessing

from beatd.app import signals
from beatd.app.app import App
from beatd.app.queues import Queues
from beatd.broker import bus, is_redis, redis_url
from beatd.broker.bus import Names
from beatd.exceptions import ConfigError, Fault
from beatd.store.keys import Keys
from beatd.store.revoked import RevokedStore
from beatd.worker.autoscale import Autoscaled
from beatd.worker.consumers import open_consumer
from beatd.worker.control.remote import Remote
from beatd.worker.execution import Executor
from beatd.worker.finished import FinishedRuns
from beatd.worker.hands import kept_alive, stopped_by_signals
from beatd.worker.pools.coroutines import AsyncioPool
from beatd.worker.pools.lifetime import Lifetime
from beatd.worker.pools.port import Pool
from beatd.worker.pools.prefork import PreforkPool
from beatd.worker.pools.solo import SoloPool
from beatd.worker.pools.threads import ThreadPool
from beatd.worker.rates import Rates
from beatd.worker.request import request_class
from beatd.worker.settings import WorkerSettings
from beatd.worker.suspects import Deaths, Suspects
from beatd.worker.worker import Worker

log = logging.getLogger("celery.worker")

POOLS = ("prefork", "threads", "asyncio", "solo")


def run_worker(app: App, settings: WorkerSettings) -> None:
    """Run a worker in this thread until SIGTERM or SIGINT; a second signal (or SIGQUIT) ends it cold."""
    signals.celeryd_init.send(sender=settings.hostname, instance=app, conf=app.conf, options=settings)
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
    worker = Worker(
        app,
        settings,
        consumer=consumer,
        pool=pool,
        finished=finished,
        remote=remote,
        rates=_rates(app),
        suspects=Suspects(Deaths(store_url, Keys(settings.prefix))),
    )
    signals.celeryd_after_setup.send(sender=settings.hostname, instance=worker, conf=app.conf)
    signals.worker_init.send(sender=worker)
    with (
        stopped_by_signals(worker, sigterm_quits=settings.sigterm_quits),
        kept_alive(consumer, worker.ending, settings.pool),
    ):
        worker.run()


def _remote(app: App, settings: WorkerSettings, url: str, store_url: str | None) -> Remote:
    """With short patience: tasks wait while the remote control does."""
    names = Names(app.conf.control_exchange, app.conf.event_exchange)
    store = RevokedStore(store_url, Keys(settings.prefix))
    return Remote(app, settings, lambda: bus.open(url, names, timeout=2.0), names, store)


def _rates(app: App) -> Rates:
    """The rates of tasks that have one; raises ConfigError for one that cannot be read."""
    limits = {} if app.conf.worker_disable_rate_limits else {task.name: task.rate_limit for task in app.tasks.values()}
    try:
        return Rates({name: limit for name, limit in limits.items() if limit}, app.clock.monotonic())
    except ValueError as error:
        raise ConfigError([Fault("beatd worker", None, "", str(error))]) from None


def _pool(app: App, settings: WorkerSettings) -> Pool:
    pool = _plain_pool(app, settings)
    if settings.autoscale is None:
        return pool
    most, least = settings.autoscale
    return Autoscaled(pool, most, least, idle_s=settings.autoscale_idle_s, monotonic=app.clock.monotonic)


def _plain_pool(app: App, settings: WorkerSettings) -> Pool:
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
