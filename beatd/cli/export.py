"""``beatd export``: the schedule in force as one file."""

from __future__ import annotations

from pathlib import Path

import click

from beatd import config, sources
from beatd.cli.output import plural
from beatd.cli.writing import write_file
from beatd.config.writing import export as to_toml


@click.command("export")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="With what this app registers.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write this file, not to standard output.",
)
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
def export(*, config_file: str | None, app: str | None, output: Path | None, force: bool) -> None:
    """Write the effective schedule as TOML: all files with their defaults, and what the app registers.

    Settings are not in it, because they may hold secrets: it is a file to include, or to compare.
    """
    path = config.find(config_file)
    loaded = sources.load(path, app=app)
    header = (f"{plural(len(loaded.entries), 'entry')} from {path}, schedule {loaded.digest}.",)
    text = to_toml(loaded.entries, timezone=loaded.settings.timezone, header=header)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_file(output, text, force=force)
        click.echo(f"{output}: {plural(len(loaded.entries), 'entry')}", err=True)
