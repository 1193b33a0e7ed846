"""``beatd dev``: store, daemon, worker and status page in one terminal, supervised, and stopped in order."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import click

from beatd import config, log_format, sources, state_store
from beatd.cli.output import joined, plural
from beatd.cli.processes import Screen, SupervisedProcess
from beatd.clock import SystemClock
from beatd.exceptions import ConfigError, Fault
from beatd.model import Settings
from beatd.web.address import PORT, listen, missing_packages, why_not


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "config_file", metavar="FILE", help="The schedule; default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the periodic tasks of this app, and run its tasks.")
@click.option(
    "--builtin",
    metavar="NAMES",
    multiple=True,
    callback=joined,
    help="Enable built-in tasks of the worker: command, http.",
)
@click.option("--concurrency", "-c", type=click.IntRange(1), default=2, show_default=True, help="Concurrent tasks.")
@click.option("--no-worker", is_flag=True, help="Do not start a worker.")
@click.option("--no-web", is_flag=True, help="Do not serve the status page.")
@click.option("--web-port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: any free port.")
def dev(
    *,
    config_file: str | None,
    app: str | None,
    builtin: str,
    concurrency: int,
    no_worker: bool,
    no_web: bool,
    web_port: int,
) -> None:
    """Run store, daemon, worker and status page in this terminal, and restart what dies. Ctrl-C stops all.

    The store is started only if the file says url = "embedded".
    """

    run(
        config_file,
        app=app,
        builtin=builtin,
        concurrency=concurrency,
        with_worker=not no_worker,
        web_port=None if no_web else web_port,
    )


log = logging.getLogger("beatd.dev")

NAMES = ("dev", "daemon", "worker", "web")
NO_METRICS = ("--metrics-listen", "off")
"""The port that the file names is the daemon's: one port cannot be that of three processes."""
GRACES = {"web": (0.5,), "worker": (2.5, 0.7), "daemon": (1.0,)}
"""Seconds after each SIGTERM, in the order of stopping; 4.7 in all, so that the whole is gone within 5. A worker lets
its tasks end after the first, and leaves them after the second."""

BEGIN = """There is no schedule yet. Write one into beat.toml, for example

    [redis]
    url = "embedded"

    [beat_schedule.tell-the-time]
    task = "beatd.command"
    schedule = "5s"
    args = ["date"]

and start again with

    beatd dev --builtin command
"""


def run(
    config_file: str | None,
    *,
    app: str | None,
    builtin: str,
    concurrency: int,
    with_worker: bool,
    web_port: int | None,
) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP. Raises ConfigError for a file that cannot be used.

    The status page is served at ``web_port``, 0 for one that is free, ``None`` for no page.
    """
    path, origin = _find(config_file, app)
    loaded = sources.load(path, app=app)
    settings = loaded.settings
    color = sys.stdout.isatty() and not config.environment().no_color
    screen = Screen(sys.stdout, NAMES, color=color)
    log_format.configure(settings.log.level, stream=screen.stream("dev"), color=color)
    of_app = ["-A", app] if app else []
    commands = {"daemon": _command("run", "--config", str(path), *of_app)}
    if with_worker and (settings.app or builtin):
        commands["worker"] = [*_worker(path, settings, builtin, concurrency), *of_app]
    elif with_worker:
        log.warning(
            "No worker started: %s names no app. For built-in tasks: beatd dev --builtin command,http",
            path,
            extra={"event": "dev_without_worker"},
        )
    if web_port is not None and _can_serve(web_port):
        commands["web"] = _command("web", "--config", str(path), *of_app, "--port", str(web_port), *NO_METRICS)
    session = Session()
    with state_store.state_store(settings):
        place = app if origin else path
        log.info("%s in %s; Ctrl-C stops", plural(len(loaded.entries), "entry"), place, extra={"event": "dev_started"})
        session.run(
            {
                name: SupervisedProcess(name, words, screen, session.clock, session.wake)
                for name, words in commands.items()
            }
        )
    log.info("Stopped", extra={"event": "dev_stopped"})


class Session:
    """The children's time together, from the first start to the last stop."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.wake = threading.Event()
        self._signals = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def run(self, children: dict[str, SupervisedProcess]) -> None:
        """Tend the children until a signal comes, then stop them; a second signal kills them."""
        try:
            while not self._signals:
                self.wake.clear()
                for child in children.values():
                    child.tend()
                if not self._signals:
                    self.clock.wait(self.wake, 0.5)
            log.info("Stopping… press Ctrl-C again to force", extra={"event": "dev_stopping"})
        finally:
            for name, graces in GRACES.items():
                if name in children:
                    children[name].stop(graces, hurry=lambda: self._signals > 1)

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._signals += 1
        self.wake.set()


def _find(config_file: str | None, app: str | None) -> sources.AppFile:
    try:
        return sources.find(config_file, app)
    except ConfigError as error:
        if app is not None:
            raise
        raise ConfigError([*error.faults, Fault("beatd dev", None, "", BEGIN)]) from None


def _can_serve(port: int) -> bool:
    """True if there can be a status page; says why not."""
    try:
        if missing := missing_packages():
            why = f"{', '.join(missing)} not installed; pip install 'beatd[web]' brings it"
        else:
            listen("127.0.0.1", port).close()
            return True
    except OSError as error:
        why = why_not(error, "127.0.0.1", port, port_option="--web-port")
    log.warning("No status page: %s", why, extra={"event": "dev_without_web"})
    return False


def _command(*words: str) -> list[str]:
    return [sys.executable, "-u", "-m", "beatd", *words]


def _worker(path: Path, settings: Settings, builtin: str, concurrency: int) -> list[str]:
    words = ["worker", "--config", str(path), "--concurrency", str(concurrency), *NO_METRICS]
    words += ["--loglevel", settings.log.level, "--log-format", settings.log.format]
    return _command(*words, *(["--builtin", builtin] if builtin else []))
