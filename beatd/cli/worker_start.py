"""From the options of ``beatd worker`` to a running worker."""

from __future__ import annotations

import contextlib
import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from beatd import config, logs
from beatd.app import log_setup
from beatd.app.app import App
from beatd.app.loading import find_app
from beatd.app.queues import Queues
from beatd.cli.beat_inside import beat_inside
from beatd.cli.logfile import LogFile
from beatd.cli.nodes import Node
from beatd.cli.pidfile import held
from beatd.exceptions import ConfigError, Fault
from beatd.model import Settings
from beatd.worker import builtin
from beatd.worker.assembly import POOLS, run_worker
from beatd.worker.settings import COROUTINES, WorkerSettings, cpu_count, node_name

log = logging.getLogger("celery.worker")

_LEVELS = ("debug", "info", "warning", "error", "critical", "fatal")


def start(options: dict[str, Any], app: App | None = None) -> None:
    """Run a worker as the command line says. Raises :class:`ConfigError` for what is wrong with it."""
    _configure_logging(options["loglevel"], options["log_format"])
    ours = list(logging.getLogger().handlers)
    with contextlib.ExitStack() as stack:
        settings, store_url = None, None
        if options["config_file"]:
            settings = config.load(config.find(options["config_file"])).settings
            store_url = stack.enter_context(_state_store(settings))
        app = app or _app(options, settings)
        _apply(app, options, settings, store_url)
        stack.enter_context(log_setup.streams_restored())
        celery_format = options["log_format"] == "celery"
        log_setup.set_up(app, options["loglevel"], ours=ours, celery_format=celery_format, logfile=options["logfile"])
        builtin.register(app, _names(options["builtin"]))
        chosen = _settings(app, options, settings, store_url)
        node = Node(1, chosen.hostname)
        if options["pidfile"]:
            stack.enter_context(held(Path(node.fill_in(options["pidfile"])).expanduser()))
        if options["logfile"]:
            LogFile(node.fill_in(options["logfile"])).open()
        if options["beat"]:
            stack.enter_context(beat_inside(options["config_file"], options["app_name"], str(app.conf.broker_url)))
        run_worker(app, chosen)


def _state_store(settings: Settings) -> AbstractContextManager[str]:
    """Loaded for ``--config`` only: a worker without it has no use for the daemon's parts."""
    from beatd.wiring import state_store  # noqa: PLC0415

    return state_store(settings)


def _app(options: dict[str, Any], settings: Settings | None) -> App:
    """The app of ``-A``, else the one that beat.toml names, else, for built-in tasks alone, an empty one."""
    if options["app_name"]:
        return find_app(options["app_name"])
    if settings is not None and settings.app:
        return find_app(settings.app, where=f"{settings.file}: app", directory=Path(settings.file).parent)
    if options["builtin"]:
        return App("beatd")
    text = "no app: name one with -A MODULE[:APP], or run beatd's own tasks with --builtin command,http"
    raise ConfigError([Fault("beatd worker", None, "", text)])


def _apply(app: App, options: dict[str, Any], settings: Settings | None, store_url: str | None) -> None:
    """What the command line says wins over beat.toml, which wins over the app."""
    if settings is not None:
        app.conf.broker_url = settings.broker.url or store_url
        if store_url and not app.conf.result_backend:
            app.conf.result_backend = store_url
        if app.conf.timezone is None:
            app.conf.timezone = settings.timezone
        app.conf.task_default_queue = settings.broker.default_queue
    if options["broker"]:
        app.conf.broker_url = options["broker"]
    if options["result_backend"]:
        app.conf.result_backend = options["result_backend"]


def _settings(app: App, options: dict[str, Any], settings: Settings | None, store_url: str | None) -> WorkerSettings:
    conf = app.conf
    pool = options["pool"] or (conf.worker_pool if conf.worker_pool in POOLS else "prefork")
    autoscale = _autoscale(options["autoscale"], pool)
    return WorkerSettings(
        hostname=node_name(options["hostname"]),
        queues=_names(options["queues"]) or Queues(conf).names or (conf.task_default_queue,),
        pool=pool,
        concurrency=autoscale[1]
        if autoscale
        else _concurrency(pool, options["concurrency"] or conf.worker_concurrency),
        prefix=settings.redis.prefix if settings is not None else "beatd",
        store_url=store_url,
        task_events=options["task_events"] or bool(conf.worker_send_task_events),
        remote_control=bool(conf.worker_enable_remote_control),
        max_tasks_per_child=options["max_tasks_per_child"] or conf.worker_max_tasks_per_child,
        max_memory_per_child=options["max_memory_per_child"] or conf.worker_max_memory_per_child,
        autoscale=autoscale,
        autoscale_idle_s=float(conf.worker_autoscale_idle),
        grace_s=conf.worker_shutdown_grace if options["grace"] is None else options["grace"],
        soft_shutdown_s=float(conf.worker_soft_shutdown_timeout or 0),
        soft_shutdown_on_idle=bool(conf.worker_enable_soft_shutdown_on_idle),
        sigterm_quits=config.environment().remap_sigterm == "SIGQUIT",
    )


def _concurrency(pool: str, wanted: int | None) -> int:
    if pool == "solo":
        return 1
    return wanted or (COROUTINES if pool == "asyncio" else cpu_count())


def _autoscale(text: str | None, pool: str) -> tuple[int, int] | None:
    """``"10,3"``: at most ten, at least three; ``"10"``: at least one."""
    if not text:
        return None
    most, _, least = text.partition(",")
    wrong = "expected MAX,MIN such as 10,3"
    if pool == "solo":
        wrong = "the solo pool runs one task at a time"
    elif most.strip().isdigit() and (least.strip() or "1").isdigit():
        bounds = int(most), int(least.strip() or "1")
        if 1 <= bounds[1] <= bounds[0]:
            return bounds
        wrong = "MAX must not be less than MIN, and MIN not less than 1"
    raise ConfigError([Fault("beatd worker", None, "--autoscale", f"{text!r}: {wrong}")])


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name for part in (text or "").split(",") if (name := part.strip()))


def _configure_logging(level: str, form: str) -> None:
    if level.lower() not in _LEVELS:
        text = f"unknown level {level!r}, expected one of {', '.join(_LEVELS)}"
        raise ConfigError([Fault("beatd worker", None, "--loglevel", text)])
    logs.configure(level.lower(), "json" if form == "json" else "text")
    if form == "celery":
        formatter = logging.Formatter("[%(asctime)s: %(levelname)s/%(processName)s] %(message)s")
        for handler in logging.getLogger().handlers:
            handler.setFormatter(formatter)
