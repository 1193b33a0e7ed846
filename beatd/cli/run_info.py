"""``beatd run-info``: one run with all its attempts, its error, traceback and output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from beatd.cli.history import histories
from beatd.cli.installation import Installation, installation
from beatd.cli.output import print_json, print_line
from beatd.client.history import facts
from beatd.client.moments import moment_text
from beatd.client.outcomes import OutcomeReader, RunDetail, run_facts
from beatd.clock import SystemClock
from beatd.redaction import printable
from beatd.store.run_record import RunRecord
from beatd.store.runtime_entries import Runtime
from beatd.timestamps import span_text

_SHORTEST = 4
_SHOWN = 20
"""Runs that are named when several ids begin so."""


@click.command("run-info")
@click.argument("run_id", metavar="ID")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def run_info(*, run_id: str, config_file: str | None, as_json: bool) -> None:
    """Show one run: arguments (secrets hidden), times, attempts, error, traceback and output.

    ID is the run id, or its beginning as "beatd history" shows it. Exit code 1 when there is no such run.
    """
    with installation(config_file) as place:
        run = find_run(place, run_id)
        zone = place.head.settings.timezone
    if as_json:
        print_json({**facts(run.record), **run_facts(run)})
    else:
        for line in described(run, zone):
            print_line(line)


def find_run(place: Installation, run_id: str) -> RunDetail:
    """The run whose id begins so; raises click.ClickException if there is none, or several."""
    run_id = run_id.strip().lower()
    if len(run_id) < _SHORTEST:
        raise click.UsageError(f"{run_id!r} is too short: expected at least {_SHORTEST} characters of the run id")
    with histories(place, None) as known:
        names = list(Runtime(place.client, place.keys).entry_names())
        runs = OutcomeReader(place.client, place.keys, known).find(run_id, names, SystemClock().now_ms())
    if not runs:
        raise click.ClickException(f"no run that is remembered has an id that begins with {run_id}; see beatd history")
    if len(runs) > 1:
        some = ", ".join(f"{run.record.run_id} ({run.record.entry})" for run in runs[:_SHOWN])
        raise click.ClickException(f"{len(runs)} runs have ids that begin with {run_id}: {some}; give more of it")
    return runs[0]


def described(run: RunDetail, zone: str) -> Iterator[str]:
    """The run as text. Output and traceback are shown line by line, with control characters escaped."""
    record, last = run.record, run.last
    yield f"Entry      {record.entry}"
    yield f"Run        {record.run_id}"
    yield f"Outcome    {run.word}" + (f": {record.reason}" if record.reason else "")
    yield f"Due        {moment_text(record.due_ms, zone)}, {record.kind}"
    yield f"Sent       {moment_text(record.at_ms, zone)}, {span_text(record.late_ms)} late"
    if run.started:
        yield f"Running    since {moment_text(run.started.start_ms, zone)} by {run.started.worker}"
    if last is not None:
        facts = (("Task", last.task), ("Args", last.args), ("Kwargs", last.kwargs), ("Result", last.result))
        yield from (f"{name:<10} {text}" for name, text in facts if text)
    yield from _attempts(run.attempts, zone)
    for title, text in (("Traceback", last.traceback), ("Output", last.output)) if last else ():
        if text:
            yield ""
            yield f"{title}:"
            yield from (f"  {printable(line)}" for line in text.splitlines())


def _attempts(attempts: Sequence[RunRecord], zone: str) -> Iterator[str]:
    for attempt in attempts:
        start = moment_text(attempt.start_ms, zone) if attempt.start_ms else "–"
        end = f", ended {moment_text(attempt.end_ms, zone)}" if attempt.end_ms else ""
        by = f" by {attempt.worker}" if attempt.worker else ""
        error = f": {attempt.type}: {' '.join(attempt.message.split())}" if attempt.type else ""
        yield f"Attempt {attempt.attempt}  {attempt.word}{error}"
        yield f"           started {start}{end}{by}"
