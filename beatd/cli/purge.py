"""``beatd purge``: delete the messages that wait in queues."""

from __future__ import annotations

import click

from beatd.app.routing import Queues
from beatd.cli.app_client import SETTINGS, client_app, place_options
from beatd.cli.output import confirm, plural, print_line, split_names


@click.command(context_settings=SETTINGS)
@place_options
@click.option("--queues", "-Q", metavar="A,B", help="Queues to purge; default: those of the app.")
@click.option("--exclude-queues", "-X", metavar="A,B", default="", help="Queues to leave alone.")
@click.option("--yes", "--force", "-y", "-f", "yes", is_flag=True, help="Do not ask.")
def purge(
    *,
    app_name: str | None,
    config_file: str | None,
    broker: str | None,
    result_backend: str | None,
    queues: str | None,
    exclude_queues: str,
    yes: bool,
) -> None:
    """Delete all messages that wait in queues. They cannot be restored."""
    app = client_app(app_name, broker, config_file, result_backend)
    named = split_names(queues) or list(Queues(app.conf).names) or [str(app.conf.task_default_queue)]
    chosen = [name for name in named if name not in split_names(exclude_queues)]
    if not chosen:
        raise click.UsageError("no queue is left to purge")
    confirm(f"Delete all messages in {', '.join(chosen)}? They cannot be restored.", yes=yes)
    count = app.control.purge(queues=chosen)
    print_line(f"Purged {plural(count, 'message')} from {plural(len(chosen), 'queue')}")
