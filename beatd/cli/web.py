"""``beatd web``: the status page."""

from __future__ import annotations

import click

from beatd.cli.metrics import MetricsOptions, metrics_options
from beatd.web.address import PORT


@click.command()
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the entries that this app registers.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: all.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: any free port.")
@click.option("--allow-host", "names", multiple=True, metavar="NAME", help="Allowed Host header (repeatable).")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Default: the setting in the file."
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Default: the setting in the file.")
@metrics_options
def web(
    *,
    config_file: str | None,
    app: str | None,
    host: str,
    port: int,
    names: tuple[str, ...],
    log_level: str | None,
    log_format: str | None,
    metrics: MetricsOptions,
) -> None:
    """Serve the status page, with a JSON API, /metrics, /healthz and /readyz.

    The page needs access to the state store and to FILE. It is read-only without [web] tokens_file or a trusted
    proxy; on other addresses than 127.0.0.1 give it these, and [web] tls_cert. On 127.0.0.1 it answers to localhost
    and to the names of --allow-host; on other addresses to every name, unless --allow-host is given.
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
        hosts = tuple(map(_host, names))
        run(config_file, listener, app=app, names=hosts, log_level=log_level, log_format=log_format, metrics=metrics)


def _host(name: str) -> str:
    """The name of a host, as a Host header has it: in lower case; a port after it does not count."""
    from beatd.web.security import host_name  # noqa: PLC0415 - needs the packages

    found = host_name(name)
    if found is None:
        text = f"{name!r} is no name of a host; expected one such as beatd.example.com or [2001:db8::5]"
        raise click.BadParameter(text, param_hint="--allow-host")
    return found
