"""``beatd healthcheck``: ask a process on this machine for its health, as a container's HEALTHCHECK does."""

from __future__ import annotations

import http.client

import click

from beatd import config
from beatd.cli.metrics import DEFAULT, MetricsOptions, metrics_options
from beatd.cli.output import print_line
from beatd.config.loader import load_settings
from beatd.exceptions import ConfigError
from beatd.listen_address import ListenAddress
from beatd.redaction import printable

_ANSWER_MAX = 1 << 20


@click.command()
@click.option("--config", "-c", "config_file", metavar="FILE", help="The file whose [metrics] listen is asked.")
@click.option("--ready", is_flag=True, help="Ask /readyz, which also fails while the process cannot do its work.")
@click.option("--timeout", type=click.FloatRange(0.1), default=3.0, show_default=True, metavar="SECONDS")
@metrics_options
def healthcheck(*, config_file: str | None, ready: bool, timeout: float, metrics: MetricsOptions) -> None:
    """Ask the metrics port of a process on this machine for its health.

    Exit code 1 if it is not healthy or does not answer. The address is that of --metrics-listen,
    $BEATD_METRICS_LISTEN, [metrics] listen of FILE, or 127.0.0.1:9464.
    """
    address = _address(config_file, metrics).for_clients
    path = "/readyz" if ready else "/healthz"
    try:
        status, answer = ask(address, path, timeout)
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: a host that no name can be
        raise click.ClickException(f"nobody answers at http://{address}{path}: {error}") from None
    print_line(printable(answer.strip()), err=status != 200)
    if status != 200:
        raise click.exceptions.Exit(1)


def _address(config_file: str | None, metrics: MetricsOptions) -> ListenAddress:
    if metrics.listen is not None:
        return metrics.address(None) or metrics.listen
    try:
        settings = load_settings(config.find(config_file)).settings.metrics
    except ConfigError:
        if config_file is not None:
            raise
        settings = None  # no file, or one that the process, too, has not taken over
    return metrics.address(settings) or DEFAULT


def ask(address: ListenAddress, path: str, timeout: float) -> tuple[int, str]:
    """Return status and text (its first bytes) of the answer. Raises OSError, ValueError and HTTPException."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(_ANSWER_MAX).decode(errors="replace")
    finally:
        connection.close()
