"""``beatd describe``: all that is known of one entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import click

from beatd import sources
from beatd.cli.history import error_line, histories, local_moment
from beatd.cli.installation import Installation, hint, installation
from beatd.cli.output import print_json, print_line, print_table
from beatd.client.history import counts, facts, held_facts, pause_facts
from beatd.client.outcomes import (
    LAST,
    EntryOutcome,
    OutcomeReader,
    RunDetail,
    Statistics,
    detail_facts,
    failure_text,
    outcome_facts,
    statistics,
)
from beatd.clock import SystemClock
from beatd.config.writer import Unwritable, entry_table, to_toml
from beatd.model import Entry, EntryState
from beatd.planning.catchup import ResumePoints
from beatd.planning.preview import Outlook, Upcoming, new_state, outlooks, upcoming
from beatd.redaction import redacted
from beatd.schedules import duration_text
from beatd.sources import MergedSchedule
from beatd.store.entry_state import EntryStates
from beatd.store.held_back import HeldBack
from beatd.store.history import Totals
from beatd.store.runtime_entries import Pause, RuntimeReplica, read_pause
from beatd.timestamps import iso_ms
from beatd.web.pages import schedule_phrase

_NEXT = 5


class Description(NamedTuple):
    """An entry in force with its state, runs and statistics."""

    look: Outlook
    pause: Pause | None
    outcome: EntryOutcome
    runs: Sequence[RunDetail]
    following: Sequence[Upcoming]
    totals: Totals
    statistics: Statistics

    @property
    def entry(self) -> Entry:
        return self.look.entry

    @property
    def state(self) -> str:
        """The state of the entry in words."""
        if self.pause is not None:
            return self.pause.note
        return self.look.note or "in force"


@click.command()
@click.argument("name", metavar="ENTRY")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the entries that this app registers.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def describe(*, name: str, config_file: str | None, app: str | None, as_json: bool) -> None:
    """Show all that is known of ENTRY: schedule, table and place, next and last runs, errors, state, statistics."""
    with installation(config_file) as place:
        seen = _look(place, name, app)
        zone = place.head.settings.timezone
    if as_json:
        print_json(_facts(seen))
        return
    for line in _described(seen, zone):
        print_line(line)
    _print_runs(seen, zone)
    click.echo()
    for line in _table(seen.entry, zone):
        print_line(line)


def _look(place: Installation, name: str, app: str | None) -> Description:
    merged = MergedSchedule(sources.load(place.path, app=app))
    mirror = RuntimeReplica(place.client, place.keys)
    mirror.refresh(anew=True)
    merged.change(mirror.tables)
    merged.pause(mirror.pauses)
    entries = {entry.name: entry for entry in merged.in_force().entries}
    if name not in entries:
        raise click.UsageError(f'there is no entry "{name}"{hint(name, entries)}')
    shards = max([daemon.shards for daemon in place.fleet().alive.values()], default=place.head.settings.leader.shards)
    held = HeldBack(place.client, place.keys, shards=shards).read([name])
    now_ms = SystemClock().now_ms()
    states = EntryStates(place.client, place.keys).read([entries[name]], now_ms=now_ms)
    with histories(place, None) as known:
        [look] = outlooks([entries[name]], states, now_ms, paused=mirror.pauses, held=held, last_dues=known.last_dues)
        reader = OutcomeReader(place.client, place.keys, known)
        records = known.completed(list(known.of([name])))
        return Description(
            look,
            read_pause(mirror.pauses[name]) if name in mirror.pauses else None,
            reader.of([name], now_ms, held=held)[name],
            reader.detailed(records[:LAST], now_ms),
            [] if look.next_due_ms is None else _following(look, states[0] or new_state(now_ms), now_ms),
            known.totals([name])[name],
            statistics(records),
        )


def _following(look: Outlook, state: EntryState, now_ms: int) -> list[Upcoming]:
    return list(islice(upcoming(look.entry, state, ResumePoints(now_ms)), _NEXT))


def _described(seen: Description, zone: str) -> Iterator[str]:
    entry, outcome, numbers = seen.entry, seen.outcome, seen.statistics
    yield f"Entry      {entry.name}"
    yield f"Task       {entry.task}"
    yield f"Schedule   {schedule_phrase(entry.schedule).text}, {entry.timezone}"
    yield f"Place      {entry.source}"
    yield f"State      {seen.state}"
    yield f"Outcome    {outcome.word or 'no run yet'} {outcome.marks}".rstrip()
    if outcome.failing_since_ms is not None:
        yield f"Failing    {failure_text(entry.name, outcome)}"
    if outcome.overdue_since_ms is not None:
        yield f"Overdue    since {local_moment(outcome.overdue_since_ms, zone)}"
    success = outcome.last_success_ms
    yield f"Success    {local_moment(success, zone) if success else 'none that is remembered'}"
    yield f"Runs       {seen.totals.scheduled:,} sent by schedule"
    yield f"Duration   {_spread(numbers.duration_median_ms, numbers.duration_p95_ms)}"
    yield f"Lateness   {_spread(numbers.lateness_median_ms, numbers.lateness_p95_ms)}"
    for number, run in enumerate(seen.following):
        note = f", {run.note}" if run.note else ""
        yield f"{'Next' if number == 0 else '':<10} {local_moment(run.due_ms, entry.timezone)}{note}"


def _spread(median_ms: int | None, p95_ms: int | None) -> str:
    if median_ms is None or p95_ms is None:
        return "not known"
    return f"median {duration_text(median_ms)}, 95 % within {duration_text(p95_ms)}"


def _print_runs(seen: Description, zone: str) -> None:
    if not seen.runs:
        return
    click.echo()
    rows = [
        [
            local_moment(run.record.due_ms, zone),
            f"{run.word}: {run.record.reason}" if run.record.reason else run.word,
            "" if run.record.runtime_ms is None else duration_text(run.record.runtime_ms),
            (run.record.run_id or "")[:8],
            error_line(run),
        ]
        for run in seen.runs
    ]
    print_table(["due", "outcome", "took", "run", "error"], rows)


def _table(entry: Entry, zone: str) -> list[str]:
    """The table of the entry, with secrets hidden."""
    try:
        table = entry_table(entry, zone)
    except Unwritable as error:
        return [f"# the table cannot be written as TOML: {error}"]
    return to_toml({entry.name: redacted(table)}, timezone=zone, header=[entry.source]).rstrip().splitlines()


def _facts(seen: Description) -> dict[str, Any]:
    look, entry = seen.look, seen.entry
    return {
        "name": entry.name,
        "task": entry.task,
        "schedule": entry.schedule.notation,
        "schedule_text": schedule_phrase(entry.schedule).text,
        "timezone": entry.timezone,
        "place": entry.source,
        "enabled": entry.policies.enabled,
        "paused": seen.pause and pause_facts(seen.pause),
        "held_back": look.held and held_facts(look.held),
        "note": look.note or None,
        "table": redacted(_plain_table(entry)),
        "next": [
            {"due_at": iso_ms(run.due_ms), "fires_at": iso_ms(run.fire_ms), "note": run.note or None}
            for run in seen.following
        ],
        "runs": [{**facts(run.record), **detail_facts(run)} for run in seen.runs],
        "totals": counts(seen.totals),
        "statistics": seen.statistics._asdict(),
        **outcome_facts(seen.outcome),
    }


def _plain_table(entry: Entry) -> dict[str, Any] | None:
    try:
        return entry_table(entry, "")
    except Unwritable:
        return None
