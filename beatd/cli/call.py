"""``beatd call``: send a task by name."""

from __future__ import annotations

from datetime import datetime

import click

from beatd.cli.app_client import SETTINGS, client_app, place_options
from beatd.cli.output import Duration, print_line, read_json


@click.command(context_settings=SETTINGS)
@click.argument("name", metavar="TASK")
@place_options
@click.option("--args", "-a", "args_text", metavar="JSON", default="[]", help="Positional arguments, a JSON list.")
@click.option("--kwargs", "-k", "kwargs_text", metavar="JSON", default="{}", help="Keyword arguments, a JSON object.")
@click.option("--eta", metavar="TIME", help="Not before this time, ISO 8601.")
@click.option("--countdown", type=Duration(), help="Not before this time has passed.")
@click.option("--expires", metavar="TIME", help="Not after this time: ISO 8601, or seconds.")
@click.option("--serializer", default="json", show_default=True, help="Encoding of the arguments.")
@click.option("--queue", "-Q", help="Queue.")
@click.option("--exchange", help="Exchange.")
@click.option("--routing-key", help="Routing key.")
def call(
    *,
    name: str,
    app_name: str | None,
    config_file: str | None,
    broker: str | None,
    result_backend: str | None,
    args_text: str,
    kwargs_text: str,
    eta: str | None,
    countdown: float | None,
    expires: str | None,
    **options: str | None,
) -> None:
    """Send a task by name and print its id. The task need not be registered here."""
    args, kwargs = read_json(args_text, "--args", list), read_json(kwargs_text, "--kwargs", dict)
    times = {"eta": _moment(eta, "--eta"), "countdown": countdown, "expires": _expiry(expires)}
    given = {key: value for key, value in {**times, **options}.items() if value is not None}
    app = client_app(app_name, broker, config_file, result_backend)
    app.import_tasks()  # options that are not given are the task's
    print_line(app.send_task(name, args, kwargs, **given).id)


def _moment(text: str | None, option: str) -> datetime | None:
    try:
        found = None if text is None else datetime.fromisoformat(text)
        return found if found is None or found.tzinfo else found.astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter("expected a time such as 2026-12-31T23:59:00+00:00", param_hint=option) from None


def _expiry(text: str | None) -> float | datetime | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return _moment(text, "--expires")
