"""``beatd schema``: what editors need to complete and to validate the file."""

from __future__ import annotations

from pathlib import Path

import click

from beatd.cli.output import print_line, print_text, write_output
from beatd.config.schema import schema_text


@click.command()
@click.option(
    "--output", "-o", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write it to FILE."
)
def schema(*, output: Path | None) -> None:
    """Print the JSON Schema of beat.toml.

    Put it beside the file, and "#:schema ./beat.schema.json" into its first line: editors with taplo (VS Code: Even
    Better TOML) then complete the settings, explain them, and mark errors while you type.
    """
    if output is None:
        print_text(schema_text(), nl=False)
        return
    write_output(output, schema_text(), kind="JSON file")
    print_line(f"written: {output}", err=True)
