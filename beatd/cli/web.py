"""``beatd web``: the status page."""

from __future__ import annotations

import click

from beatd.web.address import PORT


@click.command()
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="With what this app registers.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 is everywhere.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: one that is free.")
@click.option("--allow-host", "names", multiple=True, metavar="NAME", help="Answer to this name, too (repeatable).")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Default: as in the file.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Default: as in the file.")
def web(
    *,
    config_file: str | None,
    app: str | None,
    host: str,
    port: int,
    names: tuple[str, ...],
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Serve a page that shows daemons and entries, with a JSON API, /metrics, /healthz and /readyz.

    It only looks, at the state store and at FILE, and may run on any machine that reaches both. It has no login: on
    another address than the machine's own, put something before it that asks who is there. On the machine's own it
    answers to localhost and to the names that --allow-host adds; elsewhere to every name, unless --allow-host is given.
    """
    from beatd.web.address import listen, missing_packages, why_not  # noqa: PLC0415 - with the rest of what it needs

    if missing := missing_packages():
        raise click.ClickException(
            f"the status page needs {', '.join(missing)}; install what it needs with: pip install 'beatd[web]'"
        )
    try:
        listener = listen(host, port)
    except OSError as error:
        raise click.ClickException(why_not(error, host, port)) from None
    from beatd.cli.web_process import run  # noqa: PLC0415 - needs the packages

    with listener:
        run(config_file, listener, app=app, names=names, log_level=log_level, log_format=log_format)
