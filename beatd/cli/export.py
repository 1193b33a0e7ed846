"""``beatd export``: the schedule in force as one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from beatd import sources
from beatd.cli.export_tables import export_tables
from beatd.cli.installation import installation
from beatd.cli.output import plural, print_line, print_refused, print_text, write_file
from beatd.config import Config
from beatd.config.references import references
from beatd.config.writer import export as to_toml
from beatd.exceptions import ConfigError
from beatd.model import Entry

_TABLES = "django-celery-beat"


@click.command("export")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the entries that this app registers.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write this file, not to standard output.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.option("--offline", is_flag=True, help="Leave out runtime entries (do not query the state store).")
@click.option("--to", type=click.Choice(["toml", _TABLES]), default="toml", show_default=True, help="The form.")
@click.option("--settings", metavar="MODULE", help=f"{_TABLES}: the settings module of the Django project.")
@click.option("--dry-run", is_flag=True, help=f"{_TABLES}: only say what would be written.")
def export(
    *,
    config_file: str | None,
    app: str | None,
    output: Path | None,
    force: bool,
    offline: bool,
    to: str,
    settings: str | None,
    dry_run: bool,
) -> None:
    """Write the effective schedule as TOML: all files with their defaults, the app, and runtime entries.

    Settings are left out, because they may hold secrets, and so are pauses. The result can be included or compared.
    A ${VARIABLE} is written as it is, without its value.

    --to django-celery-beat writes the entries into the tables of a Django project, each with its last run, so that
    celery beat goes on where beatd ends. Tasks of other names stay as they are. Exit code 1 if an entry has no
    counterpart there.
    """
    path = sources.find(config_file, app).path
    loaded = sources.load(path, app=app)
    print_refused(loaded.refused)
    if to == _TABLES:
        if settings is None or output is not None:
            raise click.UsageError(f"--to {_TABLES} needs --settings MODULE, and no --output")
        export_tables(settings, loaded, config_file, app, offline=offline, dry_run=dry_run)
        return
    if settings is not None or dry_run:
        raise click.UsageError(f"--settings and --dry-run are for --to {_TABLES}")
    runtime = [] if offline else _runtime(loaded, config_file, app)
    entries = [*loaded.entries, *runtime]
    header = f"{plural(len(entries), 'entry')} from {path}"
    if runtime:
        header += f", {len(runtime)} of them from its state store"
    variables = references(loaded, entries)
    zone, defaults = loaded.settings.timezone, loaded.defaults
    text = to_toml(entries, timezone=zone, header=[f"{header}."], references=variables, defaults=defaults)
    if output is None:
        print_text(text, nl=False)
    else:
        write_file(output, text, force=force)
        print_line(f"{output}: {plural(len(entries), 'entry')}", err=True)


def _runtime(loaded: Config, config_file: str | None, app: str | None) -> Sequence[Entry]:
    """The entries that only the state store has. Raises a StoreError, and ConfigError for one that cannot be read."""
    with installation(config_file, app) as there:
        schedule = there.schedule(loaded, as_if_resumed=True)
    if schedule.merged.faults:
        raise ConfigError(fault for faults in schedule.merged.faults.values() for fault in faults)
    return schedule.entries[len(loaded.entries) :]
