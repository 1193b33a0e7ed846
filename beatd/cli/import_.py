"""``beatd import``: schedules from elsewhere, as a file for beatd; and when their entries last ran."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from beatd import importers, sources
from beatd.cli.edit import put_into
from beatd.cli.installation import installation
from beatd.cli.output import plural, write_file
from beatd.clock import SystemClock
from beatd.config import values
from beatd.config.loader import load_settings
from beatd.config.values import size_text
from beatd.exceptions import StoreError, StoreUnavailable
from beatd.importers.apscheduler import jobs_of_database, jobs_of_file, jobs_of_redis, read_apscheduler
from beatd.importers.celery_app import read_celery_app
from beatd.importers.celerybeat_file import read_celerybeat_file
from beatd.importers.cronstable import read_cronstable
from beatd.importers.crontab import decoded, read_crontab
from beatd.importers.django_celery_beat import read_django_tables
from beatd.importers.dkron import read_dkron
from beatd.importers.github_actions import read_github_actions
from beatd.importers.kubernetes import read_kubernetes
from beatd.importers.redbeat import read_redbeat
from beatd.importers.report import Found, printable
from beatd.importers.settings_table import with_connections
from beatd.importers.systemd_timers import read_systemd
from beatd.store.client import connect, translate_errors
from beatd.store.entry_state import EntryStates

_SHOWN = 50
"""Notes that are shown, unless all are asked for."""

_LARGEST = 4 << 20
"""Bytes of a file that are read."""

_FILES: dict[str, Callable[..., Found]] = {
    "kubernetes": read_kubernetes,
    "dkron": read_dkron,
    "cronstable": read_cronstable,
    "github-actions": read_github_actions,
}
"""Sources that are one file."""
_HAVE_LAST_RUNS = ("celery", "redbeat", "django-celery-beat", "apscheduler", "dkron", "kubernetes")
SOURCES = ("celery", "crontab", "redbeat", "django-celery-beat", "apscheduler", *_FILES, "systemd")


class _Choices(NamedTuple):
    """Options for single sources."""

    timezone: str | None
    system: bool | None
    prefix: str
    table: str
    key: str


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
    timezone: str | None,
    last_runs: str | None,
    schedule_file: Path,
    system: bool | None,
    prefix: str,
    table: str,
    key: str,
    all_notes: bool,
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
    choices = _Choices(timezone, system, prefix, table, key)
    if last_runs is not None:
        _take_over(source, place, choices, last_runs, schedule_file)
        return
    of_file = None if into is None else load_settings(into).settings.timezone
    found = _read(source, place, choices)
    header = (f"Imported from {source} {_safe(source, place)}.",)
    carried = importers.carry_over(found, header=header, timezone=of_file)
    if into is not None:
        put_into(into, carried.tables, replace=force, err=True)
    else:
        text, steps = with_connections(carried.toml, place) if source == "celery" else (carried.toml, [])
        _write(text, output, force=force)
        for step in steps:
            click.echo(f"! {step}", err=True)
    _report(carried, all_notes=all_notes)
    if carried.lost:
        raise click.exceptions.Exit(1)


def _write(text: str, output: Path | None, *, force: bool) -> None:
    """Write the file, or to standard output."""
    if output is None:
        click.echo(text, nl=False)
    else:
        write_file(output, text, force=force)


def _report(carried: importers.Carried, *, all_notes: bool) -> None:
    """Say on standard error what could not be carried over, and how much was."""
    shown = carried.notes if all_notes else carried.notes[:_SHOWN]
    for note in shown:
        click.echo(f"! {printable(str(note))}", err=True)
    if more := len(carried.notes) - len(shown):
        click.echo(f"! and {plural(more, 'note')} more; --all-notes shows them", err=True)
    lost = f", {plural(carried.lost, 'entry')} left behind" if carried.lost else ""
    click.echo(
        f"{plural(len(carried.entries), 'entry')} carried over{lost}, {plural(len(carried.notes), 'note')}", err=True
    )


def _take_over(source: str, place: str, choices: _Choices, config_file: str, schedule_file: Path) -> None:
    """Write when entries last ran into the state store, for those that no daemon has seen yet."""
    if source not in _HAVE_LAST_RUNS:
        known = ", ".join(_HAVE_LAST_RUNS)
        raise click.UsageError(f"{source} does not know when entries last ran; these do: {known}")
    ran = read_celerybeat_file(schedule_file) if source == "celery" else dict(_read(source, place, choices).last_runs)
    now_ms = SystemClock().now_ms()
    with installation(config_file) as there:
        schedule = there.schedule(sources.load(there.path), as_if_resumed=True)
        entries = [entry for entry in schedule.entries if entry.name in ran]
        begun = EntryStates(there.client, there.keys).begin([(each, min(ran[each.name], now_ms)) for each in entries])
    click.echo(f"{plural(len(begun), 'last run')} taken over")
    if known_before := len(entries) - len(begun):
        click.echo(f"! {plural(known_before, 'entry')} unchanged: known to the state store already", err=True)
    if others := sorted(ran.keys() - {entry.name for entry in entries}):
        more = f" and {len(others) - 10} more" if others[10:] else ""
        click.echo(f"! not in {config_file}: {printable(', '.join(others[:10]))}{more}", err=True)


def _read(source: str, place: str, choices: _Choices) -> Found:
    """Raises ConfigError or StoreError."""
    timezone = choices.timezone
    match source:
        case "celery":
            found = read_celery_app(place)
        case "django-celery-beat":
            found = read_django_tables(place)
        case "redbeat":
            with _redis_at(place) as client:
                return read_redbeat(client, prefix=choices.prefix, timezone=timezone or "UTC")
        case "apscheduler":
            return _apscheduler(place, choices)
        case "systemd":
            return read_systemd(_existing(place), timezone=timezone)
        case "crontab":
            return _crontab(place, timezone, system=choices.system)
        case _:
            return _FILES[source](_content(place), shown=place, timezone=timezone)
    return found._replace(timezone=timezone) if timezone else found


def _apscheduler(place: str, choices: _Choices) -> Found:
    shown = _safe("apscheduler", place)
    if place.startswith(("redis://", "rediss://", "unix://", "sentinel://")):
        with _redis_at(place) as client:
            jobs = jobs_of_redis(client, choices.key)
    elif "://" in place:
        jobs = jobs_of_database(place, choices.table)
    else:
        jobs = jobs_of_file(_existing(place))
    return read_apscheduler(jobs, shown=shown, timezone=choices.timezone)


@contextlib.contextmanager
def _redis_at(place: str) -> Iterator[Any]:
    """Connect to the Redis that is read; where it is away, the error speaks of PLACE and not of the state store."""
    try:
        with connect(place, timeout_ms=5_000, name="beatd-import") as client, translate_errors(client):
            yield client
    except StoreError as error:
        step = "Start that server, or give the URL of another one as PLACE."
        reason = str(error).removeprefix("state store ")
        raise click.ClickException(f"{reason}\n{step}" if isinstance(error, StoreUnavailable) else reason) from None


def _existing(place: str) -> Path:
    try:
        is_there = Path(place).exists()
    except (OSError, ValueError):
        is_there = False
    if not is_there:
        raise click.BadParameter(f"{place} cannot be read: No such file or directory", param_hint="PLACE")
    return Path(place)


def _content(place: str) -> bytes:
    """The bytes of a file, or of standard input for ``-``."""
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if place == "-" else Path(place).open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise click.BadParameter(f"{place} cannot be read: {why}", param_hint="PLACE") from None
    if len(data) > _LARGEST:
        raise click.BadParameter(f"{place} has more than {size_text(_LARGEST)}", param_hint="PLACE")
    return data


def _crontab(place: str, timezone: str | None, *, system: bool | None) -> Found:
    path, data = Path(place), _content(place)
    if system is None and (path.absolute() == Path("/etc/crontab") or path.absolute().parent == Path("/etc/cron.d")):
        system = True
    return read_crontab(decoded(data, place), shown=place, has_users=system, timezone=timezone)


def _safe(source: str, place: str) -> str:
    """The place without what a URL may have of secrets."""
    has_url = source == "redbeat" or (source == "apscheduler" and "://" in place)
    return place.rpartition("@")[2].partition("?")[0] if has_url else place
