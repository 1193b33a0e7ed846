"""Options of the commands that serve their own metrics and health: ``--metrics-listen`` and ``--metrics-port``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

from beatd.listen_address import ListenAddress
from beatd.model import MetricsSettings

if TYPE_CHECKING:
    from beatd.metrics.server import Endpoint

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT = ListenAddress("127.0.0.1", 9464)
VARIABLE = "BEATD_METRICS_LISTEN"
OFF = "off"


class MetricsOptions(NamedTuple):
    """The options as given; None: not given."""

    listen: ListenAddress | None = None
    port: int | None = None
    off: bool = False

    def address(self, settings: MetricsSettings | None) -> ListenAddress | None:
        """Return the address to listen on: the command line wins over the environment, which wins over the file."""
        if self.off:
            return None
        address = self.listen
        if address is None and settings is not None and settings.listen is not None:
            address = ListenAddress.parse(settings.listen)
        return address if self.port is None else (address or DEFAULT)._replace(port=self.port)

    @contextmanager
    def served(self, settings: MetricsSettings | None, endpoint: Callable[[], Endpoint]) -> Iterator[None]:
        """Serve an endpoint for as long as the block lasts, if an address is set."""
        address = self.address(settings)
        if address is None:
            yield
            return
        from beatd.metrics.server import MetricsServer  # noqa: PLC0415 - a process without an endpoint does not load it

        server = MetricsServer(address, endpoint())
        server.start()
        try:
            yield
        finally:
            server.stop()


def metrics_options(command: F) -> F:
    """Add the options to a command, which gets them as ``metrics``."""

    @functools.wraps(command)
    def with_options(
        *args: Any, metrics_listen: ListenAddress | str | None, metrics_port: int | None, **kwargs: Any
    ) -> Any:
        off = metrics_listen == OFF
        listen = metrics_listen if isinstance(metrics_listen, ListenAddress) else None
        return command(*args, metrics=MetricsOptions(listen, metrics_port, off), **kwargs)

    return cast(F, _LISTEN(_PORT(with_options)))


def _listen(_context: click.Context, _option: click.Parameter, text: str | None) -> ListenAddress | str | None:
    if not text or text == OFF:
        return text or None
    try:
        return ListenAddress.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}, got {text!r}") from None


_LISTEN = click.option(
    "--metrics-listen",
    metavar="HOST:PORT",
    envvar=VARIABLE,
    callback=_listen,
    help="Serve /metrics, /healthz and /readyz of this process there; off: nowhere. Default: [metrics] in the file.",
)
_PORT = click.option(
    "--metrics-port", type=click.IntRange(0, 65_535), metavar="PORT", help="The same with another port."
)
