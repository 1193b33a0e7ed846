"""``beatd dev``: everything in one terminal."""

from __future__ import annotations

import click

from beatd.web.address import PORT


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "config_file", metavar="FILE", help="The schedule; default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--builtin", metavar="NAMES", default="", help="Let the worker run beatd's own tasks too: command, http.")
@click.option("--concurrency", "-c", type=click.IntRange(1), default=2, show_default=True, help="Tasks at a time.")
@click.option("--no-worker", is_flag=True, help="Start no worker: one runs elsewhere.")
@click.option("--no-web", is_flag=True, help="Serve no status page.")
@click.option("--web-port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: one that is free.")
def dev(
    *, config_file: str | None, builtin: str, concurrency: int, no_worker: bool, no_web: bool, web_port: int
) -> None:
    """Run store, daemon, worker and status page in this terminal, and start again what dies. Ctrl-C stops all of them.

    The store is started only if the file says url = "embedded".
    """
    from beatd.cli.dev_session import run  # noqa: PLC0415 - keeps ``beatd --help`` quick

    run(
        config_file,
        builtin=builtin,
        concurrency=concurrency,
        with_worker=not no_worker,
        web_port=None if no_web else web_port,
    )
