"""``beatd describe``: all that is known of one entry."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import click

from beatd import sources
from beatd.cli.completion import entry_names
from beatd.cli.history import error_line, histories
from beatd.cli.installation import Installation, installation
from beatd.cli.output import print_folded, print_json, print_line, print_table
from beatd.client.entries import NEXT, Description, description_facts
from beatd.client.history import totals_text
from beatd.client.moments import local_text, moment_text
from beatd.client.outcomes import LAST, OutcomeReader, bounds_text, failure_text
from beatd.clock import SystemClock
from beatd.config.writer import Unwritable, entry_table, to_toml
from beatd.model import Entry
from beatd.planning.catchup import ResumePoints
from beatd.planning.notation import schedule_phrase
from beatd.planning.preview import new_state, outlooks, upcoming
from beatd.redaction import redacted
from beatd.store.pipeline import joint_reads
from beatd.timestamps import span_text

_LABEL = 11
"""Columns of the labels."""


@click.command()
@click.argument("name", metavar="ENTRY", shell_complete=entry_names)
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the entries that this app registers.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def describe(*, name: str, config_file: str | None, app: str | None, as_json: bool) -> None:
    """Show all that is known of ENTRY: schedule, table and place, next and last runs, errors, state, statistics."""
    with installation(config_file, app) as place:
        seen = _look(place, name, app)
        zone = place.head.settings.timezone
    if as_json:
        print_json(description_facts(seen))
        return
    for line in _described(seen):
        print_folded(local_text(line, seen.entry.timezone), _LABEL)
    _print_runs(seen)
    click.echo()
    for line in _table(seen.entry, zone):
        print_line(line)


def _look(place: Installation, name: str, app: str | None) -> Description:
    loaded = sources.load(place.path, app=app)
    with joint_reads() as read:
        merged, members = read(place.schedule, loaded), read(place.fleet)
    schedule, fleet = merged.result(), members.result()
    entry = schedule.entry(name)
    now_ms = SystemClock().now_ms()
    with histories(place, None) as known:
        reader = OutcomeReader(place.client, place.keys, known)
        with joint_reads() as read:
            held = read(place.held_back, [name], fleet)
            states = read(place.states, [entry], now_ms)
            outcomes = read(reader.of, [name], now_ms)
            runs = read(lambda: reader.detailed(list(known.of([name])), now_ms))
            totals, bounds = read(known.totals, [name]), read(reader.bounds, entry)
        waiting = place.waiting([entry], states.result(), fleet, now_ms)
        [look] = outlooks(
            [entry],
            states.result(),
            now_ms,
            paused=schedule.pauses,
            held=held.result(),
            last_dues=known.last_dues,
            waiting=waiting,
        )
        points, state = ResumePoints(now_ms, waiting), states.result()[0] or new_state(now_ms)
        return Description(
            look,
            schedule.pause_of(name),
            outcomes.result()[name].while_held(look.held is not None),
            runs.result(),
            [] if look.next_due_ms is None else list(islice(upcoming(entry, state, points), NEXT)),
            totals.result()[name],
            bounds.result(),
        )


def _described(seen: Description) -> Iterator[str]:
    entry, outcome, numbers = seen.entry, seen.outcome, seen.statistics
    zone = entry.timezone
    yield f"Entry      {entry.name}"
    yield f"Task       {entry.task}"
    yield f"Schedule   {schedule_phrase(entry.schedule).text}, {zone}"
    yield f"Place      {entry.source}"
    yield f"State      {seen.state}"
    yield f"Outcome    {outcome.word or 'no run yet'} {outcome.marks}".rstrip()
    if outcome.failing_since_ms is not None:
        yield f"Failing    {failure_text(entry.name, outcome)}"
    if outcome.overdue_since_ms is not None:
        yield f"Overdue    since {moment_text(outcome.overdue_since_ms, zone)}"
    if outcome.too_long_since_ms is not None:
        yield f"Too long   since {moment_text(outcome.too_long_since_ms, zone)}"
    success = outcome.last_success_ms
    yield f"Success    {moment_text(success, zone) if success else 'none that is remembered'}"
    yield f"Runs       {totals_text(seen.totals)}"
    yield f"Duration   {_spread(numbers.duration_median_ms, numbers.duration_p95_ms)}"
    yield f"Lateness   {_spread(numbers.lateness_median_ms, numbers.lateness_p95_ms)}"
    yield f"Bounds     {bounds_text(seen.bounds)}"
    for number, run in enumerate(seen.following):
        note = f", {run.note}" if run.note else ""
        yield f"{'Next' if number == 0 else '':<10} {moment_text(run.due_ms, zone)}{note}"


def _spread(median_ms: int | None, p95_ms: int | None) -> str:
    if median_ms is None or p95_ms is None:
        return "not known"
    return f"median {span_text(median_ms)}, 95 % within {span_text(p95_ms)}"


def _print_runs(seen: Description) -> None:
    if not seen.runs:
        return
    click.echo()
    rows = [
        [
            moment_text(run.record.due_ms, seen.entry.timezone),
            f"{run.word}: {run.record.reason}" if run.record.reason else run.word,
            "" if run.record.runtime_ms is None else span_text(run.record.runtime_ms),
            (run.record.run_id or "")[:8],
            error_line(run),
        ]
        for run in seen.runs[:LAST]
    ]
    print_table(["due", "outcome", "took", "run", "error"], rows)


def _table(entry: Entry, zone: str) -> list[str]:
    """The table of the entry, with secrets hidden."""
    try:
        table = entry_table(entry, zone)
    except Unwritable as error:
        return [f"# the table cannot be written as TOML: {error}"]
    return to_toml({entry.name: redacted(table)}, timezone=zone, header=[entry.source]).rstrip().splitlines()
