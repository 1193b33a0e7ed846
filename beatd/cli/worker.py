"""``beatd worker``: the bundled worker in the foreground.

With ``-B`` a daemon runs beside the worker, for development. In production it is a service of its own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from beatd import config, log_format, signals
from beatd.app.app import App
from beatd.app.find_app import find_app
from beatd.app.loader import module_names
from beatd.broker import is_redis
from beatd.cli.celery_options import WORKER_IDLE, detach, idle_options
from beatd.cli.global_options import is_quiet
from beatd.cli.logfile import LogFile
from beatd.cli.metrics import metrics_options
from beatd.cli.multi_nodes import Node
from beatd.cli.output import Duration, joined, split_names
from beatd.cli.pidfile import locked
from beatd.cli.worker_beat import beat_inside
from beatd.cli.worker_settings import Concurrency, settings_of_words, worker_settings
from beatd.clock import sleep
from beatd.config.loader import load_settings
from beatd.config.search import FILE_VARIABLE, PLACES
from beatd.exceptions import ConfigError, Fault
from beatd.model import Settings
from beatd.url_keyprefix import OPTION, difference
from beatd.urls import check_broker
from beatd.worker import builtin, task_logging
from beatd.worker.banner import banner
from beatd.worker.bootstrap import POOLS, REPLACED_POOLS, run_worker
from beatd.worker.settings import WorkerSettings, node_name


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--app", "-A", "app_name", metavar="MODULE[:APP]", help="App with the tasks to run.")
@click.option(
    "--config",
    "config_file",
    envvar=FILE_VARIABLE,
    metavar="FILE",
    help="Take broker, results, app and timezone from this beat.toml; default: $BEATD_CONFIG.",
)
@click.option("--broker", "-b", envvar="BEATD_BROKER_URL", metavar="URL", help="Broker.")
@click.option("--result-backend", envvar="BEATD_RESULT_BACKEND", metavar="URL", help="Result backend.")
@click.option(
    "--concurrency",
    "-c",
    type=Concurrency(),
    metavar="N",
    help="Number of processes or threads; auto: as many as the CPU quota allows. Default: CPUs.",
)
@click.option(
    "--pool",
    "-P",
    type=click.Choice([*POOLS, *REPLACED_POOLS]),
    metavar="POOL",
    help="Execution pool: prefork (the default), threads, asyncio or solo. gevent and eventlet run as threads.",
)
@click.option("--queues", "-Q", metavar="A,B", help="Queues to consume; default: celery.")
@click.option("--hostname", "-n", metavar="NAME", help="The worker's name; %h is the host. Default: celery@%h.")
@click.option("--loglevel", "-l", default="info", metavar="LEVEL", help="debug, info, warning, error or critical.")
@click.option("--log-format", type=click.Choice(["celery", "text", "json"]), default="celery", help="Log format.")
@click.option("--task-events", "--events", "-E", is_flag=True, help="Send task events to monitors such as Flower.")
@click.option("--beat", "-B", is_flag=True, help="For development: run a daemon beside the worker.")
@click.option(
    "--builtin", metavar="NAMES", multiple=True, callback=joined, help="Enable built-in tasks: command, http."
)
@click.option("--max-tasks-per-child", type=click.IntRange(0), metavar="N", help="Restart a process after N tasks.")
@click.option(
    "--max-memory-per-child", type=click.IntRange(0), metavar="KIB", help="Restart a process that uses more memory."
)
@click.option("--autoscale", metavar="MAX,MIN", help="Scale between MIN and MAX processes or threads.")
@click.option(
    "--grace",
    type=Duration(),
    help="Give running tasks this long on shutdown (default: no limit).",
)
@click.option("--logfile", "-f", metavar="FILE", help="Log file; %n is the name, %i and %I number the processes.")
@click.option("--pidfile", metavar="FILE", help="Pid file, locked while the worker runs.")
@click.option("--detach", "-D", is_flag=True, help="Run in the background.")
@click.option("--exclude-queues", "-X", metavar="A,B", help="Queues of the app not to consume.")
@click.option("--include", "-I", metavar="A,B", help="Further modules to import.")
@click.option("--time-limit", type=Duration(), help="Hard time limit of tasks without one of their own.")
@click.option("--soft-time-limit", type=Duration(), help="Soft time limit of tasks without one of their own.")
@click.option("--purge", "--discard", is_flag=True, help="Delete all messages that wait in the queues first.")
@click.argument("settings", nargs=-1, metavar="[-- SETTING=VALUE...]")
@idle_options(WORKER_IDLE)
@metrics_options
@click.pass_obj
def worker(app: App | None, /, **options: Any) -> None:
    """Run tasks. SIGTERM or Ctrl-C once: finish running tasks (warm shutdown); twice: stop at once."""
    if options["detach"] and app is None:
        detach("worker", options["pidfile"], options["logfile"])
        return
    start(options, app)
    if app is None:
        _end_soon()


def _end_soon() -> None:
    """End the process in ten seconds, if threads that tasks have left or functions of ``atexit`` keep it until then."""

    def end() -> None:
        sleep(_END_WITHIN_S)
        left = [one.name for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
        what = (
            f"these threads of tasks do not end: {', '.join(left[:5])}" if left else "a function of atexit does not end"
        )
        log.warning("The worker has stopped, and %s; ending the process", what, extra={"event": "worker_end_forced"})
        os._exit(0)

    threading.Thread(target=end, name="end", daemon=True).start()


def run_for_app(app: App, argv: list[str]) -> None:
    """The worker of an app that starts itself (``app.worker_main()``); ``argv`` with or without the word ``worker``."""
    words = [word for index, word in enumerate(argv) if not (index == 0 and word == "worker")]
    worker.main(args=words, prog_name="worker", obj=app)


log = logging.getLogger("celery.worker")

_END_WITHIN_S = 10.0
_LEVELS = ("debug", "info", "warning", "error", "critical", "fatal")


def start(options: dict[str, Any], app: App | None = None) -> None:
    """Run a worker as the command line says. Raises :class:`ConfigError` for what is wrong with it."""
    _configure_logging(options["loglevel"], options["log_format"])
    ours = list(logging.getLogger().handlers)
    with contextlib.ExitStack() as stack:
        settings, store_url = None, None
        if options["config_file"]:
            settings = load_settings(config.find(options["config_file"])).settings
            store_url = stack.enter_context(_state_store(settings))
        app = app or _app(options, settings)
        _apply(app, options, settings, store_url)
        name = node_name(options["hostname"])
        signals.celeryd_init.send(sender=name, instance=app, conf=app.conf, options=options)
        stack.enter_context(task_logging.streams_restored())
        celery_format = options["log_format"] == "celery"
        task_logging.set_up(
            app, options["loglevel"], ours=ours, celery_format=celery_format, logfile=options["logfile"]
        )
        _name_unread_file(options)
        builtin.register(app, split_names(options["builtin"]))
        chosen = worker_settings(app, options, settings, store_url)
        node = Node(1, chosen.hostname)
        if options["pidfile"]:
            stack.enter_context(locked(Path(node.fill_in(options["pidfile"])).expanduser()))
        if options["logfile"]:
            LogFile(node.fill_in(options["logfile"])).open()
        if options["beat"]:
            stack.enter_context(beat_inside(options["config_file"], options["app_name"], str(app.conf.broker_url)))
        if options["purge"]:
            app.control.purge(queues=list(chosen.queues))
        _show_banner(app, chosen, options)
        restarts = run_worker(app, chosen)
    if restarts:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same command line again


def _name_unread_file(options: dict[str, Any]) -> None:
    """Log that a file which the daemon would take is not read, as nobody has named it."""
    is_named = options["config_file"] is not None or FILE_VARIABLE in os.environ
    if not is_named and (found := next(filter(os.path.isfile, PLACES), None)):
        text = "%s is not read: a worker takes the file that --config or $BEATD_CONFIG names (BEATD_CONFIG= is none)"
        log.info(text, found, extra={"event": "config_unread", "file": found})


def _show_banner(app: App, settings: WorkerSettings, options: dict[str, Any]) -> None:
    """Print the settings to a terminal, or above a log that is read by people and has the level INFO."""
    stream, level = sys.__stdout__, getattr(logging, options["loglevel"].upper())
    unread = is_quiet() or options["log_format"] == "json"
    if stream is None or unread or not (stream.isatty() or level <= logging.INFO):
        return
    with contextlib.suppress(OSError, ValueError):  # nobody reads it
        print(banner(app, settings, with_tasks=level <= logging.INFO), file=stream, flush=True)


def _state_store(settings: Settings) -> AbstractContextManager[str]:
    """Loaded for ``--config`` only: a worker without it has no use for the daemon's parts."""
    from beatd.state_store import state_store  # noqa: PLC0415

    return state_store(settings)


def _app(options: dict[str, Any], settings: Settings | None) -> App:
    """The app of ``-A``, else the one that beat.toml names, else, for built-in tasks alone, an empty one."""
    if options["app_name"]:
        return find_app(options["app_name"])
    if settings is not None and settings.app:
        return find_app(settings.app, where=f"{settings.file}: app", directory=Path(settings.file).parent)
    if options["builtin"]:
        return App("beatd")
    text = "no app: name one with -A MODULE[:APP], or its file with --config FILE, or run --builtin command"
    raise ConfigError([Fault("beatd worker", None, "", text)])


def _apply(app: App, options: dict[str, Any], settings: Settings | None, store_url: str | None) -> None:
    """Apply settings: the command line wins over beat.toml, which wins over the app."""
    if settings is not None:
        _apply_file(app, settings, store_url)
    for name, value in settings_of_words(options["settings"]):
        app.conf[name] = value
    if options["broker"]:
        check_broker(options["broker"])
        app.conf.broker_url = options["broker"]
    elif settings is not None:
        _check_keyprefix(app, settings, settings.broker.url or store_url)
    if options["result_backend"]:
        app.conf.result_backend = options["result_backend"]
    if options["include"]:
        app.conf.include = (*module_names(app.conf.include), *split_names(options["include"]))
    for name in ("time_limit", "soft_time_limit"):
        if options[name]:
            app.conf[f"task_{name}"] = options[name]


def _apply_file(app: App, settings: Settings, store_url: str | None) -> None:
    app.conf.broker_url = settings.broker.url or store_url
    if store_url and not app.conf.result_backend:
        app.conf.result_backend = store_url
    if app.conf.timezone is None:
        app.conf.timezone = settings.timezone
    app.conf.task_default_queue = settings.broker.default_queue
    if not settings.worker.output:
        app.conf.worker_keep_output = False


def _check_keyprefix(app: App, settings: Settings, url: str | None) -> None:
    """Raise ConfigError if the app has another prefix than the broker, to which the daemon of the file sends."""
    wanted = (app.conf.broker_transport_options or {}).get(OPTION)
    if is_redis(url or "") and (wrong := difference(url, wanted)):
        raise ConfigError([Fault(settings.file, None, "broker.url", wrong)])


def _configure_logging(level: str, form: str) -> None:
    if level.lower() not in _LEVELS:
        text = f"unknown level {level!r}, expected one of {', '.join(_LEVELS)}"
        raise ConfigError([Fault("beatd worker", None, "--loglevel", text)])
    log_format.configure(level.lower(), "json" if form == "json" else "text")
    if form == "celery":
        formatter = logging.Formatter("[%(asctime)s: %(levelname)s/%(processName)s] %(message)s")
        for handler in logging.getLogger().handlers:
            handler.setFormatter(formatter)
