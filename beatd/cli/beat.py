"""``beatd beat``: the daemon with the options of ``celery beat``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TextIO

import click

from beatd.cli.metrics import MetricsOptions, metrics_options
from beatd.cli.multi_processes import held
from beatd.cli.run import Process
from beatd.exceptions import ConfigError, Fault

_LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "ERROR": "error"}
_LEVELS |= {"WARN": "warning", "CRITICAL": "error", "FATAL": "error"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", "-c", "config_file", metavar="FILE", help="The schedule; default: $BEATD_CONFIG, ./beat.toml."
)
@click.option("--app", "-A", metavar="MODULE[:APP]", help="App with the schedule.")
@click.option("--loglevel", "-l", type=click.Choice(list(_LEVELS), case_sensitive=False), help="Log level.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Default: the setting in the file.")
@click.option("--logfile", "-f", metavar="FILE", help="Log file; default: standard error.")
@click.option("--pidfile", metavar="FILE", help="Pid file, locked while the daemon runs.")
@click.option("--schedule", "-s", metavar="FILE", help="No effect: what ran last is in the state store.")
@click.option("--scheduler", "-S", metavar="CLASS", help="No effect: beatd is the scheduler.")
@click.option("--max-interval", type=float, metavar="SECONDS", help="No effect: the daemon sleeps until the next run.")
@metrics_options
def beat(
    *,
    config_file: str | None,
    app: str | None,
    loglevel: str | None,
    log_format: str | None,
    logfile: str | None,
    pidfile: str | None,
    schedule: str | None,
    scheduler: str | None,
    max_interval: float | None,
    metrics: MetricsOptions,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C: "beatd run" with the options of "celery beat".

    Without a beat.toml, schedule, broker, state store and time zone are the app's.
    """
    with contextlib.ExitStack() as stack:
        if pidfile:
            stack.enter_context(held(Path(pidfile).expanduser()))
        stream = stack.enter_context(_appended(logfile)) if logfile else None
        given = {"--schedule": schedule, "--scheduler": scheduler, "--max-interval": max_interval}
        if unused := [option for option, value in given.items() if value is not None]:
            click.echo(f"Options without effect: {', '.join(unused)}; see beatd beat --help", err=True)
        level = _LEVELS[loglevel.upper()] if loglevel else None
        Process(config_file, app=app, metrics=metrics).serve(
            fail_fast=False, log_level=level, log_format=log_format, stream=stream
        )


def _appended(path: str) -> TextIO:
    try:
        return Path(path).expanduser().open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    except OSError as error:
        raise ConfigError([Fault("beatd beat", None, "--logfile", f"{path!r}: {error.strerror}")]) from None
