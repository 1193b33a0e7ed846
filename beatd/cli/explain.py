"""``beatd explain``: a schedule in words, its next runs, and warnings about it; without a file or a server."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from itertools import islice
from typing import Any

import click

from beatd.cli.output import plural, print_json, print_line, print_problem, print_table
from beatd.clock import SystemClock
from beatd.exceptions import ScheduleError
from beatd.model import Entry
from beatd.planning.catchup import ResumePoints
from beatd.planning.croniter_comparison import differences
from beatd.planning.lint import schedule_warnings
from beatd.planning.phrase import in_words
from beatd.planning.preview import Upcoming, caveats, new_state, upcoming
from beatd.schedules import Schedule, dst_note, parse
from beatd.schedules.cron import Cron
from beatd.schedules.solar import EVENTS


@click.command("explain")
@click.argument("schedule", nargs=-1, required=True)
@click.option("--timezone", metavar="ZONE", default="UTC", show_default=True, help="Zone of times: Europe/Berlin.")
@click.option("--name", default="entry", help="Name of the entry, on which H in a cron string depends.")
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Number of runs.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def explain(schedule: tuple[str, ...], *, timezone: str, name: str, count: int, as_json: bool) -> None:
    """Explain SCHEDULE: in words, its next runs, and warnings. Quote it: "*/7 * * * *".

    Takes what "schedule" in the file takes: a cron string, "30s", "every 2 hours", or a table or list as it stands
    there, such as '{ solar = "sunrise", lat = 52.5, lon = 13.4 }'.
    """
    try:
        meaning = parse(_value(" ".join(schedule)), timezone=timezone, name=name)
    except ScheduleError as error:
        raise click.UsageError(str(error)) from None
    entry = Entry(name=name, task="task", schedule=meaning, timezone=timezone)
    now_ms = SystemClock().now_ms()
    runs = list(islice(upcoming(entry, new_state(now_ms), ResumePoints(now_ms)), count))
    warnings = schedule_warnings(entry, now_ms)
    notes = [note for note in _other_readings(meaning) if note not in warnings]
    if as_json:
        facts = {"schedule": meaning.notation, "words": in_words(meaning), "timezone": timezone}
        print_json({**facts, "runs": list(map(_facts, runs)), "warnings": warnings, "notes": notes})
    else:
        _print(entry, runs, warnings)
        for note in notes:
            print_line(f"note: {note}")


def _other_readings(meaning: Schedule) -> list[str]:
    """Readings of croniter that differ from ours."""
    text = meaning.notation
    return list(differences(text)) if isinstance(meaning, Cron) and isinstance(text, str) else []


def _value(text: str) -> object:
    """The value of ``text``: a TOML table, list, number or text in quotes; anything else is the text itself."""
    stripped = text.strip()
    if stripped in EVENTS:
        table = f'{{ solar = "{stripped}", lat = 52.5, lon = 13.4 }}'
        raise click.UsageError(f"{stripped} needs a place: write the table '{table}'")
    if not (stripped[:1] in {"{", "[", '"', "'"} or stripped.replace(".", "", 1).isdecimal()):
        return text
    try:
        return tomllib.loads(f"schedule = {stripped}")["schedule"]
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"{stripped}: not a value of TOML: {error}") from None


def _print(entry: Entry, runs: Sequence[Upcoming], warnings: Sequence[str]) -> None:
    print_line(in_words(entry.schedule))
    click.echo()
    if runs:
        columns = ["next (local)", "UTC", "note"]
        rows = [(f"{run.local:%a %Y-%m-%d %H:%M:%S %Z}", f"{run.due_at:%Y-%m-%d %H:%M:%S}", run.note) for run in runs]
        shown = len(columns) if any(row[2] for row in rows) else 2
        print_table(columns[:shown], [row[:shown] for row in rows])
    else:
        click.echo("It never runs again.")
    for line in caveats([entry], "now") if runs else ():
        print_line(line)
    if warnings:
        click.echo()
        print_line(f"{plural(len(warnings), 'warning')}")
    for warning in warnings:
        print_problem(warning)


def _facts(run: Upcoming) -> dict[str, Any]:
    return {
        "due_at": run.due_at.isoformat(timespec="milliseconds"),
        "due_at_local": run.local.isoformat(timespec="milliseconds"),
        "dst": dst_note(run.entry.schedule, run.due_at),
        "note": run.note or None,
    }
