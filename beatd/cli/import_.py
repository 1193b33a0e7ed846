"""``beatd import``: schedules from elsewhere, as a file for beatd; and when their entries last ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from beatd import importers, sources
from beatd.cli.edit import put_entries
from beatd.cli.import_sources import HAVE_LAST_RUNS, SOURCES, Choices, Origin
from beatd.cli.installation import installation
from beatd.cli.output import plural, print_line, print_text, write_file
from beatd.clock import SystemClock
from beatd.config import values
from beatd.config.loader import load_settings
from beatd.importers.celerybeat_file import read_celerybeat_file
from beatd.importers.report import printable
from beatd.importers.settings_table import with_connections
from beatd.store.entry_state import EntryStates

_SHOWN = 50
"""Notes that are shown, unless all are asked for."""


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
    "--last-runs",
    metavar="FILE",
    help="Write no TOML: take over when entries last ran, into the state store of this beat.toml.",
)
@click.option(
    "--schedule-file",
    type=click.Path(path_type=Path),
    default="celerybeat-schedule",
    show_default=True,
    help="celery, with --last-runs: the file of celery beat.",
)
@click.option(
    "--system/--no-system",
    default=None,
    help="crontab: the sixth field is a user's name, as in /etc/crontab, or the command begins there.",
)
@click.option("--prefix", default="redbeat:", show_default=True, help="redbeat: its redbeat_key_prefix.")
@click.option("--table", default="apscheduler_jobs", show_default=True, help="apscheduler: table of an SQL job store.")
@click.option("--key", default="apscheduler.jobs", show_default=True, help="apscheduler: key of a job store in Redis.")
@click.option("--all-notes", is_flag=True, help=f"Show all notes, not the first {_SHOWN}.")
def import_(
    *,
    source: str,
    place: str,
    output: Path | None,
    into: Path | None,
    force: bool,
    last_runs: str | None,
    schedule_file: Path,
    all_notes: bool,
    **choices: Any,
) -> None:
    """Convert the schedule at PLACE to TOML for beatd.

    \b
    celery MODULE[:APP]          a Celery app's beat_schedule and periodic tasks,
                                 and its connections
    crontab FILE                 a crontab, /etc/crontab or a file of cron.d, or -
                                 for standard input; each line becomes a
                                 beatd.command entry
    redbeat URL                  the entries that RedBeat keeps in that Redis
    django-celery-beat SETTINGS  the tables of a Django project
    apscheduler URL              a job store of APScheduler 3 in SQL or Redis, or
                                 a file with pickled jobs; pickles are read as
                                 data, nothing in them is run
    kubernetes FILE              CronJob manifests (YAML)
    dkron FILE                   jobs of dkron (JSON)
    cronstable FILE              jobs of cronstable or yacron (YAML)
    github-actions FILE          a workflow with on: schedule (YAML)
    systemd PLACE                .timer units of a folder, or one of them

    What could not be carried over, or means something else now, is listed on standard error. Exit code 1 if an entry
    was left behind; the file lists it, too.

    Do it in two steps: first -o beat.toml; then stop the other scheduler and give --last-runs beat.toml, so that on the
    day of the move no run is made twice or missed.
    """
    if output is not None and into is not None:
        raise click.UsageError("give --output for a new file, or --into for one that is there")
    origin = Origin(source, place, Choices(**choices))
    if last_runs is not None:
        _take_over(origin, last_runs, schedule_file)
        return
    head = None if into is None else load_settings(into)
    found = origin.read()
    header = (f"Imported from {source} {origin.shown}.",)
    rules: dict[str, Any] = {} if head is None else {"timezone": head.settings.timezone, "defaults": head.defaults}
    carried = importers.carry_over(found, header=header, **rules)
    if into is not None:
        put_entries(into, carried.tables, replace=force, err=True)
    else:
        _write(carried, origin, output, force=force)
    _report(carried, all_notes=all_notes)
    if carried.lost:
        raise click.exceptions.Exit(1)


def _write(carried: importers.ImportResult, origin: Origin, output: Path | None, *, force: bool) -> None:
    """Write the file, or to standard output; a Celery app brings its connections along."""
    is_app = origin.source == "celery"
    text, steps = with_connections(carried.toml, origin.place) if is_app else (carried.toml, [])
    if output is None:
        print_text(text, nl=False)
    else:
        write_file(output, text, force=force)
    for step in steps:
        print_line(f"! {step}", err=True)


def _report(carried: importers.ImportResult, *, all_notes: bool) -> None:
    """Say on standard error what could not be carried over, and how much was."""
    shown = carried.notes if all_notes else carried.notes[:_SHOWN]
    for note in shown:
        print_line(f"! {printable(str(note))}", err=True)
    if more := len(carried.notes) - len(shown):
        print_line(f"! and {plural(more, 'note')} more; --all-notes shows them", err=True)
    lost = f", {plural(carried.lost, 'entry')} left behind" if carried.lost else ""
    print_line(
        f"{plural(len(carried.entries), 'entry')} carried over{lost}, {plural(len(carried.notes), 'note')}", err=True
    )


def _take_over(origin: Origin, config_file: str, schedule_file: Path) -> None:
    """Write when entries last ran into the state store, for those that no daemon has seen yet."""
    if origin.source not in HAVE_LAST_RUNS:
        known = ", ".join(HAVE_LAST_RUNS)
        raise click.UsageError(f"{origin.source} does not know when entries last ran; these do: {known}")
    is_app = origin.source == "celery"
    ran = read_celerybeat_file(schedule_file) if is_app else dict(origin.read().last_runs)
    now_ms = SystemClock().now_ms()
    with installation(config_file) as there:
        schedule = there.schedule(sources.load(there.path), as_if_resumed=True)
        entries = [entry for entry in schedule.entries if entry.name in ran]
        begun = EntryStates(there.client, there.keys).begin([(each, min(ran[each.name], now_ms)) for each in entries])
    print_line(f"{plural(len(begun), 'last run')} taken over")
    if known_before := len(entries) - len(begun):
        print_line(f"! {plural(known_before, 'entry')} unchanged: known to the state store already", err=True)
    if others := sorted(ran.keys() - {entry.name for entry in entries}):
        more = f" and {len(others) - 10} more" if others[10:] else ""
        print_line(f"! not in {config_file}: {printable(', '.join(others[:10]))}{more}", err=True)
