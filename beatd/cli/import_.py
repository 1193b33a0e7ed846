"""``beatd import``: schedules from elsewhere, as a file for beatd."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from beatd import importers
from beatd.cli.edit import put_into
from beatd.cli.output import plural, write_file
from beatd.config import values
from beatd.config.loader import load_settings
from beatd.config.values import size_text
from beatd.importers.celery_app import read_celery_app
from beatd.importers.crontab import decoded, read_crontab
from beatd.importers.django_celery_beat import read_django_tables
from beatd.importers.redbeat import read_redbeat
from beatd.importers.report import Found, printable
from beatd.store.client import connect, translate_errors

_SHOWN = 50
"""Notes that are shown, unless all are asked for."""

_LARGEST_CRONTAB = 4 << 20
"""Bytes of a crontab that are read."""

SOURCES = ("celery", "crontab", "redbeat", "django-celery-beat")


def _zone(_context: click.Context, _parameter: click.Parameter, name: str | None) -> str | None:
    try:
        return None if name is None else values.timezone(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("import")
@click.argument("source", type=click.Choice(SOURCES))
@click.argument("place")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write this file, not to standard output."
)
@click.option(
    "--into", type=click.Path(dir_okay=False, path_type=Path), help="Add the entries to this file; comments stay."
)
@click.option("--force", is_flag=True, help="Overwrite an existing file; with --into, existing entries.")
@click.option(
    "--timezone",
    callback=_zone,
    metavar="ZONE",
    help="Time zone of entries without one; default: that of the source, else UTC.",
)
@click.option(
    "--system/--no-system",
    default=None,
    help="crontab: the sixth field is a user's name, as in /etc/crontab, or the command begins there.",
)
@click.option("--prefix", default="redbeat:", show_default=True, help="redbeat: its redbeat_key_prefix.")
@click.option("--all-notes", is_flag=True, help=f"Show all notes, not the first {_SHOWN}.")
def import_(
    *,
    source: str,
    place: str,
    output: Path | None,
    into: Path | None,
    force: bool,
    timezone: str | None,
    system: bool | None,
    prefix: str,
    all_notes: bool,
) -> None:
    """Convert the schedule at PLACE to TOML for beatd.

    \b
    celery MODULE[:APP]          a Celery app's beat_schedule and periodic tasks
    crontab FILE                 a crontab, /etc/crontab or a file of cron.d, or -
                                 for standard input; each line becomes a
                                 beatd.command entry
    redbeat URL                  the entries that RedBeat keeps in that Redis
    django-celery-beat SETTINGS  the tables of a Django project

    What could not be carried over, or means something else now, is listed on standard error. Exit code 1 if an entry
    was left behind; the file lists it, too.
    """
    if output is not None and into is not None:
        raise click.UsageError("give --output for a new file, or --into for one that is there")
    of_file = None if into is None else load_settings(into).settings.timezone
    found = _read(source, place, timezone, system=system, prefix=prefix)
    header = (f"Imported from {source} {_safe(source, place)}.",)
    carried = importers.carry_over(found, header=header, timezone=of_file)
    if into is not None:
        put_into(into, carried.tables, replace=force, err=True)
    elif output is None:
        click.echo(carried.toml, nl=False)
    else:
        write_file(output, carried.toml, force=force)
    shown = carried.notes if all_notes else carried.notes[:_SHOWN]
    for note in shown:
        click.echo(f"! {printable(str(note))}", err=True)
    if more := len(carried.notes) - len(shown):
        click.echo(f"! and {plural(more, 'note')} more; --all-notes shows them", err=True)
    lost = f", {plural(carried.lost, 'entry')} left behind" if carried.lost else ""
    click.echo(
        f"{plural(len(carried.entries), 'entry')} carried over{lost}, {plural(len(carried.notes), 'note')}", err=True
    )
    if carried.lost:
        raise click.exceptions.Exit(1)


def _read(source: str, place: str, timezone: str | None, *, system: bool | None, prefix: str) -> Found:
    """Raises ConfigError or StoreError."""
    match source:
        case "celery":
            found = read_celery_app(place)
        case "django-celery-beat":
            found = read_django_tables(place)
        case "redbeat":
            with connect(place, timeout_ms=5_000, name="beatd-import") as client, translate_errors(client):
                return read_redbeat(client, prefix=prefix, timezone=timezone or "UTC")
        case _:
            return _crontab(place, timezone, system=system)
    return found._replace(timezone=timezone) if timezone else found


def _crontab(place: str, timezone: str | None, *, system: bool | None) -> Found:
    path = Path(place)
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if place == "-" else path.open("rb") as file:
            data = file.read(_LARGEST_CRONTAB + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise click.BadParameter(f"{place} cannot be read: {why}", param_hint="PLACE") from None
    if len(data) > _LARGEST_CRONTAB:
        raise click.BadParameter(f"{place} has more than {size_text(_LARGEST_CRONTAB)}", param_hint="PLACE")
    if system is None and (path.absolute() == Path("/etc/crontab") or path.absolute().parent == Path("/etc/cron.d")):
        system = True
    return read_crontab(decoded(data, place), shown=place, has_users=system, timezone=timezone)


def _safe(source: str, place: str) -> str:
    """The place without what a URL may have of secrets."""
    return place.rpartition("@")[2].partition("?")[0] if source == "redbeat" else place
