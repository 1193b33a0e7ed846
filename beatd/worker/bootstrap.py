"""Bootstrap of a worker from an app and its settings: consumer, pool, loop and signal handlers."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from beatd import signals
from beatd.app.app import App
from beatd.app.routing import Queues
from beatd.broker import bus, delayed_delivery_of, is_amqp, is_redis, redis_url
from beatd.broker.bindings import Binding
from beatd.broker.bus import Names
from beatd.clock import Backoff, monotonic
from beatd.exceptions import ConfigError, Fault, MessageError, StoreError
from beatd.process_signals import UNUSED, warn_unused
from beatd.store.client import Role
from beatd.store.keys import Keys
from beatd.store.worker_state import FinishedRuns, RevokedStore
from beatd.url_keyprefix import own_prefix
from beatd.worker import chord_unlock
from beatd.worker.admission.poison import DeathCounter, PoisonDetector
from beatd.worker.admission.rate_limits import RateLimits
from beatd.worker.consumers import Consumer, open_consumer
from beatd.worker.control.remote_control import RemoteControl
from beatd.worker.execution import output
from beatd.worker.execution.decode import accepted_types
from beatd.worker.execution.executor import Executor
from beatd.worker.exporter import Exporter, ExporterSettings
from beatd.worker.metrics import WorkerMetrics
from beatd.worker.pools.asyncio_pool import AsyncioPool
from beatd.worker.pools.autoscale import Autoscaled
from beatd.worker.pools.base import Pool
from beatd.worker.pools.prefork import PreforkPool
from beatd.worker.pools.prefork_child import ChildLimits
from beatd.worker.pools.solo import SoloPool
from beatd.worker.pools.threads import ThreadPool
from beatd.worker.request import request_class
from beatd.worker.settings import WorkerSettings
from beatd.worker.shutdown import Phase, Shutdown
from beatd.worker.worker import Worker

log = logging.getLogger("celery.worker")

_BEAT_S = 2.5
_SAME_SIGNAL_S = 0.3


@contextmanager
def signal_handlers(worker: Worker, *, sigterm_quits: bool = False) -> Iterator[Callable[[], bool]]:
    """SIGTERM and SIGINT: warm, the second time soft or cold. SIGQUIT: soft or cold, and so SIGTERM if it ``quits``.

    SIGHUP without a terminal: warm, and the value is a function that returns True: start again. SIGUSR1: write what all
    threads do to standard error. A second signal within a moment counts once: a signal to a process group and to its
    members arrives twice.
    """
    restarts = False
    last = -_SAME_SIGNAL_S
    quits = {signal.SIGQUIT, *([signal.SIGTERM] if sigterm_quits else [])}

    def stop(number: int, _frame: object) -> None:
        nonlocal last, restarts
        if number == signal.SIGHUP and worker.shutdown.begun:
            return  # a service manager may send it right after the signal to stop
        restarts = number == signal.SIGHUP
        now = monotonic()
        if now - last < _SAME_SIGNAL_S:
            return
        last = now
        cold, was = number in quits, worker.shutdown.phase
        phase = worker.shutdown.next(cold=cold)
        try:
            if phase is not was:
                _log_shutdown(phase, worker.shutdown.soft_s, signal.Signals(number).name)
                signals.worker_shutting_down.send(
                    sender=worker.hostname, sig=signal.Signals(number).name, how=phase.value, exitcode=0
                )
        finally:  # a log line that the signal has interrupted makes this one fail
            worker.stop(cold=cold)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    handlers: dict[int, Callable[[int, object], None] | signal.Handlers] = dict.fromkeys(
        UNUSED, lambda number, _: warn_unused(log, number)
    )
    handlers |= dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT), stop)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL and not _has_terminal():
        handlers[signal.SIGHUP] = stop
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # inherited; then nobody could be told how a process ended
        handlers[signal.SIGCHLD] = signal.SIG_DFL
    if sys.__stderr__ is not None:
        faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, all_threads=True)
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield lambda: restarts
    finally:
        faulthandler.unregister(signal.SIGUSR1)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _has_terminal() -> bool:
    """Return True in a terminal, whose end is a SIGHUP."""
    return sys.__stdin__ is not None and not sys.__stdin__.closed and sys.__stdin__.isatty()


def _log_shutdown(phase: Phase, soft_s: float, name: str) -> None:
    extra = {"event": "worker_stopping", "signal": name, "how": phase.value}
    if phase is Phase.SOFT:
        log.warning("Initiating Soft Shutdown, terminating in %s seconds", soft_s, extra=extra)
    else:
        log.warning("worker: %s shutdown (MainProcess)", phase.value, extra=extra)


@contextmanager
def solo_heartbeat(consumer: Consumer, shutdown: Shutdown, pool: str) -> Iterator[None]:
    """Heartbeat thread for the solo pool, whose loop stands still while a task runs; it also keeps the time limits.

    The other pools need none, and prefork must have none: a process with threads cannot fork safely.
    """
    if pool != "solo":
        yield
        return
    stopped, backoff = threading.Event(), Backoff(_BEAT_S, _BEAT_S)

    def beat() -> None:
        while not stopped.wait(max(_SAME_SIGNAL_S, min(_BEAT_S, shutdown.due_in()))):
            if shutdown.due_in() <= 0:
                os.kill(os.getpid(), signal.SIGQUIT)
            try:
                consumer.beat()
                backoff.succeeded()
            except StoreError as error:
                backoff.failed()
                log.log(backoff.level, "Heartbeat failed: %s", error, extra={"event": "heartbeat_failed"})

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(_BEAT_S)


POOLS = ("prefork", "threads", "asyncio", "solo")
REPLACED_POOLS = {"gevent": "threads", "eventlet": "threads", "processes": "prefork"}
"""Celery's other pools, and the pool that runs their tasks here."""


def pool_for(name: str | None) -> str:
    """Return the pool for a name of Celery's; an unknown name gives prefork."""
    if name in POOLS:
        return name
    pool = REPLACED_POOLS.get(name or "", "prefork")
    if name in REPLACED_POOLS and name != "processes":
        log.warning(
            "There is no pool %s: this worker runs its tasks in %s, as with -P %s; nothing is monkey-patched",
            name,
            pool,
            pool,
            extra={"event": "pool_replaced", "wanted": name, "pool": pool},
        )
    return pool


def run_worker(app: App, settings: WorkerSettings) -> bool:
    """Run a worker in this thread until SIGTERM or SIGINT; a second signal (or SIGQUIT) ends it cold.

    Returns True after SIGHUP: its process is to start again.
    """
    app.import_tasks()
    app.set_current()  # modules of tasks may have made other apps, for what they send elsewhere
    app.amqp.consumed = settings.queues
    _log_idle_settings(app)
    _check_accepted(app)
    chord_unlock.register(app)
    for task in app.tasks.values():
        request_class(task)  # fail at the start, not at the first message
    url = app.conf.broker_read_url
    url = url if isinstance(url, str) else ";".join(url)
    own_store = settings.store_url or app.conf.state_store
    store_url = own_store or (redis_url(url) if is_redis(url) else None)
    role: Role = "state store" if own_store else "broker"
    exporter, queues = _exporter(settings, url, store_url), Queues(app.conf)
    consumer = open_consumer(
        url,
        settings.queues,
        name=settings.hostname,
        clock=app.clock,
        prefix=settings.prefix,
        store_url=store_url,
        arguments=queues.arguments,
        transport_options=app.conf.broker_transport_options,
        declare=delayed_delivery_of(app.conf) if is_amqp(url) else None,
        bindings=_bindings(queues, settings, url),
    )
    if app.conf.worker_keep_output:
        output.enable()
    keys = Keys(own_prefix(store_url, settings.prefix))
    finished = FinishedRuns(store_url, keys, role)
    pool, remote = _pool(app, settings), _remote(app, settings, url, RevokedStore(store_url, keys, role))
    worker = Worker(
        app,
        settings,
        consumer=consumer,
        pool=pool,
        finished=finished,
        remote=remote,
        rates=_rates(app),
        poison=PoisonDetector(DeathCounter(store_url, keys, role)),
        metrics=WorkerMetrics(exporter),
    )
    signals.celeryd_after_setup.send(sender=settings.hostname, instance=worker, conf=app.conf)
    signals.worker_init.send(sender=worker)
    with (
        signal_handlers(worker, sigterm_quits=settings.sigterm_quits) as restarts,
        solo_heartbeat(consumer, worker.shutdown, settings.pool),
    ):
        worker.run()
    return restarts()


def _log_idle_settings(app: App) -> None:
    """Log each setting of the app that has no effect, with the reason."""
    for name, reason in app.conf.without_effect():
        log.warning("The setting %s has no effect: %s", name, reason, extra={"event": "setting_idle", "setting": name})


def _bindings(queues: Queues, settings: WorkerSettings, url: str) -> list[Binding]:
    """Return the bindings of the worker's queues; raises ConfigError for one that this broker cannot have."""
    bindings = [one for one in queues.bindings(settings.hostname) if one.queue in settings.queues]
    if is_redis(url) and (wrong := next((one for one in bindings if one.kind not in ("direct", "topic")), None)):
        text = f"queue {wrong.queue}: an exchange of the type {wrong.kind} needs RabbitMQ; to tell all workers "
        text += "something use a control command (beatd.worker.control)"
        raise ConfigError([Fault("beatd worker", None, "task_queues", text)])
    return bindings


def _exporter(settings: WorkerSettings, url: str, store_url: str | None) -> Exporter | None:
    """Start the process that serves metrics, before there are connections that a fork would copy."""
    if settings.metrics_listen is None:
        return None
    exporter = Exporter(ExporterSettings(settings.metrics_listen, url, store_url, blocks=settings.pool == "solo"))
    exporter.start()
    return exporter


def _check_accepted(app: App) -> None:
    try:
        accepted_types(app.conf.accept_content)
    except MessageError as error:
        raise ConfigError([Fault("beatd worker", None, "", str(error))]) from None


def _remote(app: App, settings: WorkerSettings, url: str, store: RevokedStore) -> RemoteControl:
    """Make the remote control, with a short timeout: tasks wait while it waits."""
    names = Names(app.conf.control_exchange, app.conf.event_exchange)
    return RemoteControl(app, settings, lambda: bus.open(url, names, timeout=2.0), names, store)


def _rates(app: App) -> RateLimits:
    """Read the rate limits of the tasks; raises ConfigError for an invalid one."""
    limits = {} if app.conf.worker_disable_rate_limits else {task.name: task.rate_limit for task in app.tasks.values()}
    try:
        return RateLimits({name: limit for name, limit in limits.items() if limit}, app.clock.monotonic())
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
            limits = ChildLimits(settings.max_tasks_per_child, settings.max_memory_per_child)
            return PreforkPool(settings.concurrency, execute, in_child=_name_process, limits=limits)


def _name_process(number: int) -> None:
    multiprocessing.current_process().name = f"ForkPoolWorker-{number}"
    signals.worker_process_init.send(sender=None)
