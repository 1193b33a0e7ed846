"""``beatd run``: the daemon in the foreground.

The process has configuration, logging, signals and the service manager around a :class:`~beatd.daemon.Daemon`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

import beatd
from beatd import config, sources
from beatd import log_format as logs
from beatd.app.find_app import importable_name
from beatd.cli.celery_options import BEAT_IDLE, Level, idle_options
from beatd.cli.celery_options import detach as in_background
from beatd.cli.logfile import LogFile
from beatd.cli.metrics import MetricsOptions, metrics_options
from beatd.cli.output import plural
from beatd.cli.pidfile import locked
from beatd.cli.sdnotify import ServiceManager, SignOfLife
from beatd.clock import SystemClock
from beatd.config import Config, Environment
from beatd.daemon import Daemon
from beatd.exceptions import ConfigError, Fault
from beatd.memory import keep_no_large_blocks
from beatd.model import LogSettings, Settings
from beatd.process_signals import UNUSED, SignalThread, warn_unused
from beatd.sources import FileSource, log_refused, log_task_faults
from beatd.sources.dry_run import for_dry_run
from beatd.state_store import Store, await_store, state_store

if TYPE_CHECKING:
    from beatd.app.app import App
    from beatd.beat.metrics import DaemonMetrics


@click.command()
@click.option(
    "--config", "-c", "config_file", metavar="FILE", help="The schedule; default: $BEATD_CONFIG, ./beat.toml."
)
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the periodic tasks that this app registers.")
@click.option(
    "--dry-run", is_flag=True, help="Claim and log runs under a prefix of its own, and send nothing; see beatd compare."
)
@click.option("--fail-fast", is_flag=True, help="Exit with 1 if the state store is unreachable at the start.")
@click.option(
    "--log-level",
    "--loglevel",
    "-l",
    type=Level(),
    metavar="LEVEL",
    help="debug, info, warning or error; default: the setting in the file.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Default: the setting in the file.")
@click.option("--logfile", "-f", metavar="FILE", help="Log file; default: standard error.")
@click.option("--pidfile", metavar="FILE", help="Pid file, locked while the daemon runs.")
@click.option("--detach", is_flag=True, help="Run in the background.")
@idle_options(BEAT_IDLE)
@metrics_options
def run(
    *,
    config_file: str | None,
    app: str | None,
    dry_run: bool,
    fail_fast: bool,
    log_level: str | None,
    log_format: str | None,
    logfile: str | None,
    pidfile: str | None,
    detach: bool,
    metrics: MetricsOptions,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C. SIGHUP reloads the configuration.

    "beatd beat" is the same; the options of "celery beat" are accepted.
    """
    if detach:
        in_background("beat", pidfile, logfile)
        return
    with locked(Path(pidfile).expanduser()) if pidfile else contextlib.nullcontext():
        Process(config_file, app=app, metrics=metrics, dry_run=dry_run).serve(
            fail_fast=fail_fast, log_level=log_level, log_format=log_format, logfile=logfile
        )


def _name_for_others(app: App) -> str:
    """Return the name under which child processes can import an app, and let them look where the script is."""
    name = importable_name(app)
    places = [sys.path[0], os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    return name


class AppBeat:
    """Daemon of an app that starts itself: ``app.Beat(loglevel="info").run()``.

    Another process imports the app to read its schedule, so that it must be a variable of a module.
    """

    def __init__(self, app: App, loglevel: str | int | None = None, **_celerys: object) -> None:
        self._name = _name_for_others(app)
        self._level = logging.getLevelName(loglevel) if isinstance(loglevel, int) else loglevel

    def run(self) -> None:
        """Run until SIGTERM or Ctrl-C."""
        level = ["--log-level", self._level.lower()] if self._level else []
        run.main(args=["--app", self._name, *level], prog_name="beat")


def command_for_app(app: App, words: list[str]) -> None:
    """Run a command of beatd for an app that starts itself (``app.start()``)."""
    from beatd.cli import main  # noqa: PLC0415 - which imports this module

    main(args=["-A", _name_for_others(app), *words])


log = logging.getLogger("beatd")


class Process:
    """One run of ``beatd run``, from its command line to its exit.

    SIGTERM and SIGINT end it, at whatever point it is; SIGHUP reads the schedule again.
    """

    def __init__(
        self, config_file: str | None, *, app: str | None, metrics: MetricsOptions, dry_run: bool = False
    ) -> None:
        """Raises :class:`~beatd.exceptions.ConfigError` if no file is found."""
        self._dry_run = dry_run
        self._path, self._origin = sources.find(config_file, app)
        self._environment = config.environment()
        self._manager = ServiceManager(self._environment.notify_socket)
        self._sign = SignOfLife(self._manager, self._environment)
        self._app = app
        self._metrics_options = metrics
        self._metrics: DaemonMetrics | None = None
        self._waiting_for = ""
        self._source = FileSource(
            self._path,
            self._load,
            on_change=self._put_in_force,
            on_broken=self._files_broken,
            on_done=self._reload_ended,
        )
        self._faults: tuple[str, ...] = ()
        self._stopping = threading.Event()
        self._daemon: Daemon | None = None

    def serve(
        self, *, fail_fast: bool, log_level: str | None, log_format: str | None, logfile: str | None = None
    ) -> None:
        """Run a daemon until it is told to stop.

        Raises :class:`~beatd.exceptions.ConfigError` for a file that cannot be used at the start, and a
        :class:`~beatd.exceptions.StoreError` for a state store that is unfit or, with ``fail_fast``, out of reach.
        """
        keep_no_large_blocks()
        loaded = self._source.first()
        configure_logging(loaded.settings.log, log_level, log_format, self._environment)
        if logfile:
            LogFile(logfile, "beatd run").open()
        self._handle_signals()
        entries = plural(len(loaded.entries), "entry")
        place = f"of {self._app}" if self._origin else f"in {self._path}"
        log.info("beatd %s starts: %s %s", beatd.__version__, entries, place, extra={"event": "starting"})
        if self._origin:
            log.info("%s", self._origin, extra={"event": "settings_of_app"})
        if self._dry_run:
            text, prefix = (
                "Dry run: nothing is sent; what would be sent is under the prefix %s",
                loaded.settings.redis.prefix,
            )
            log.warning(text, prefix, extra={"event": "dry_run", "prefix": prefix})
        log_refused(loaded.refused)
        log_task_faults(loaded.task_faults)
        if not loaded.entries:
            log.warning("%s has no entries", self._path, extra={"event": "no_entries"})
        with self._served(loaded.settings), state_store(loaded.settings) as url:
            self._manager.ready("waiting for the state store")
            self._sign.start()
            store = await_store(
                loaded.settings, url, self._stopping, fail_fast=fail_fast, on_wait=self._waits_for_store
            )
            if store is not None:
                self._beat(loaded, store)
        log.info("beatd stopped", extra={"event": "stopped"})

    def _served(self, settings: Settings) -> AbstractContextManager[None]:
        return self._metrics_options.served(settings.metrics, lambda: self._make_metrics(settings.metrics.entries))

    def _make_metrics(self, entries: str) -> DaemonMetrics:
        from beatd.beat.metrics import DaemonMetrics  # noqa: PLC0415 - a daemon without an endpoint does not load it

        self._metrics = DaemonMetrics(entries, SystemClock(), lambda: self._waiting_for)
        return self._metrics

    def _waits_for_store(self, reason: str) -> None:
        self._waiting_for = reason
        self._sign.extend()
        self._manager.status(f"waiting for the state store: {reason}")

    def _load(self) -> Config:
        """Read the files, and let the other daemons know whether they are sound."""
        self._faults = ("they could not be read; the log of the daemon says more",)
        if self._daemon is not None:
            self._daemon.reload_begins()
        try:
            loaded = sources.load(self._path, app=self._app, before=self._source.config, check_tasks=True)
        except ConfigError as error:
            self._files_broken(error)
            raise
        self._files_read(loaded.refused)
        return for_dry_run(loaded) if self._dry_run else loaded

    def _files_broken(self, error: ConfigError) -> None:
        """The last good files stay in force."""
        self._files_read(error.faults)

    def _files_read(self, faults: Sequence[Fault]) -> None:
        self._faults = tuple(map(str, faults))
        if self._daemon is not None:
            self._daemon.files_read(self._faults)

    def _reload_ended(self) -> None:
        """An attempt to read the files again is over."""
        if self._daemon is not None:
            self._daemon.reload_ended(self._faults)

    def _beat(self, loaded: Config, store: Store) -> None:
        self._daemon = Daemon(loaded, store, on_hang=_exit, on_reload=self._source.reload_now, dry_run=self._dry_run)
        if self._metrics is not None:
            self._metrics.attach(self._daemon.parts)
        self._put_in_force(loaded)
        self._files_read(loaded.refused)
        self._source.start()
        try:
            if not self._stopping.is_set():  # a signal may have come before there was a daemon to stop
                self._sign.leave_to_watchdog()
                self._daemon.run()
        finally:
            self._manager.stopping()
            self._source.stop()

    def _put_in_force(self, loaded: Config) -> None:
        if self._daemon is not None:
            self._daemon.set_base(loaded)
            self._manager.ready(f"serving {plural(len(loaded.entries), 'entry')}")

    def _handle_signals(self) -> None:
        actions: dict[int, Callable[[int], None]] = dict.fromkeys(UNUSED, partial(warn_unused, log))
        actions |= {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGHUP: self._reload}
        SignalThread(actions).start()
        if sys.__stderr__ is not None:
            faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, all_threads=True)

    def _stop(self, number: int) -> None:
        if self._stopping.is_set():
            return
        log.info("%s: stopping", signal.Signals(number).name, extra={"event": "stopping"})
        self._stopping.set()
        if self._daemon is not None:
            self._daemon.stop()

    def _reload(self, _: int) -> None:
        log.info("Reload requested (SIGHUP)", extra={"event": "reload_asked"})
        self._source.reload_now()


def configure_logging(
    settings: LogSettings, level: str | None, log_format: str | None, environment: Environment
) -> None:
    """Log as the command line says, else as the file says."""
    logs.configure(
        level or settings.level,
        "json" if (log_format or settings.format) == "json" else "text",
        color=sys.stderr.isatty() and not environment.no_color,
    )


def _exit() -> None:
    """End the process although its main thread hangs, perhaps in its log; the service manager starts another."""
    os._exit(1)
