"""``beatd run``: the daemon in the foreground."""

from __future__ import annotations

import click


@click.command()
@click.option(
    "--config", "-c", "config_file", metavar="FILE", help="The schedule; default: $BEATD_CONFIG, ./beat.toml."
)
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the periodic tasks that this app registers.")
@click.option("--fail-fast", is_flag=True, help="Exit with 1 when the state store cannot be reached at the start.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Default: as in the file.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Default: as in the file.")
def run(
    config_file: str | None, app: str | None, fail_fast: bool, log_level: str | None, log_format: str | None
) -> None:
    """Run the daemon until it is told to stop (SIGTERM, Ctrl-C). SIGHUP reads the schedule again."""
    from beatd.cli.daemon import Process  # noqa: PLC0415 - keeps ``beatd run --help`` quick

    Process(config_file, app=app).serve(fail_fast=fail_fast, log_level=log_level, log_format=log_format)
