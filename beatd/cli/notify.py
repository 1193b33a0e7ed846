"""``beatd notify``: try a notification target."""

from __future__ import annotations

import click

from beatd import config
from beatd.cli.output import print_json, print_line
from beatd.clock import SystemClock
from beatd.config.errors import near
from beatd.config.loader import load_settings
from beatd.model import NotifyTarget
from beatd.notify.channels import deliver
from beatd.notify.http_request import DeliveryFailed
from beatd.notify.message import trial


@click.group("notify")
def notify() -> None:
    """Try notification targets."""


@notify.command("test")
@click.argument("name")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def test(*, name: str, config_file: str | None, as_json: bool) -> None:
    """Send a test message to the target [notify.NAME], now and from this host. Exits with 1 if it fails."""
    settings = load_settings(config.find(config_file)).settings
    target = _target(name, settings.notify)
    error = ""
    now_ms = SystemClock().now_ms()
    try:
        deliver(target, trial(target, now_ms, settings.redis.prefix), now_ms=now_ms)
    except DeliveryFailed as failed:
        error = str(failed)
    if as_json:
        print_json({"target": name, "ok": not error, "error": error or None})
    elif error:
        print_line(f"Error: {name}: {error}", err=True)
    else:
        print_line(f"{name}: the message was sent")
    if error:
        raise click.exceptions.Exit(1)


def _target(name: str, targets: tuple[NotifyTarget, ...]) -> NotifyTarget:
    found = next((target for target in targets if target.name == name), None)
    if found is None:
        names = [target.name for target in targets]
        known = f"; there are {', '.join(names)}" if names else "; the file has no table [notify.NAME]"
        raise click.UsageError(f'there is no target "{name}"{near(name, names) or known}')
    return found
