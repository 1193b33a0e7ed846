"""``beatd compare``: the plan of celery beat beside that of a file, or what it sent beside a dry run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from beatd import sources
from beatd.cli.installation import installation
from beatd.cli.output import plural, print_json, print_line
from beatd.clock import SystemClock
from beatd.config import values
from beatd.exceptions import ScheduleError
from beatd.importers.celery_plan import MOST_RUNS, celery_runs
from beatd.importers.celerybeat_log import sent_by_celery_beat
from beatd.importers.report import printable
from beatd.planning.comparison import plan
from beatd.planning.sent_comparison import Unmatched, match
from beatd.schedules import duration_ms
from beatd.sources.dry_run import dry_run_prefix
from beatd.store.history_reader import Histories
from beatd.store.keys import Keys
from beatd.timestamps import from_ms, iso_ms

_DAY_MS = 86_400_000
_SHOWN = 3
"""Runs of an entry that are shown."""
_LARGEST_LOG = 512 << 20


@click.command("compare")
@click.argument("celery_app", required=False, metavar="[CELERY_APP]")
@click.option("--sent", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The log of celery beat.")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option(
    "--days", type=click.IntRange(1, 366), default=7, show_default=True, help="Days whose plans are compared."
)
@click.option("--within", default="30s", show_default=True, help="Runs so near to each other are the same.")
@click.option("--timezone", default="UTC", show_default=True, help="Zone of the times in the log.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def compare(
    *,
    celery_app: str | None,
    sent: Path | None,
    config_file: str | None,
    days: int,
    within: str,
    timezone: str,
    as_json: bool,
) -> None:
    """Compare what celery beat does with what beatd does, before the move.

    With CELERY_APP (MODULE[:APP]): the runs that celery beat would send in the next days, by Celery's own schedules,
    with those of the file. With --sent LOG: what celery beat sent, by its log, with what "beatd run --dry-run" would
    have sent meanwhile. Exit code 0: no difference, 1: a difference.
    """
    if (celery_app is None) == (sent is None):
        raise click.UsageError("give CELERY_APP to compare plans, or --sent LOG to compare with a dry run")
    within_ms = _duration(within)
    if celery_app is not None:
        since = SystemClock().now_ms() // 1000 * 1000
        until = since + days * _DAY_MS
        theirs, ours, unknown, ends = _plans(celery_app, config_file, since, until)
    else:
        theirs, ours = _sent(Path(str(sent)), config_file, _zone(timezone))
        since, until = _common_span(theirs, ours)
        unknown, ends = {}, {}
    if until - since <= 2 * within_ms:
        raise click.ClickException("the two ran together for too short a time: wait, or give a smaller --within")
    found = {
        name: match(theirs.get(name, ()), ours.get(name, ()), within_ms).between(
            since + within_ms, ends.get(name, until) - within_ms
        )
        for name in sorted(theirs.keys() | ours.keys())
        if name not in unknown
    }
    differs = {name: one for name, one in found.items() if one.only_first or one.only_second}
    if as_json:
        print_json({"entries": {name: _facts(one) for name, one in found.items()}, "unknown": unknown})
    else:
        for line in _lines(found, differs, theirs, ours):
            print_line(line)
        for name, why in unknown.items():
            print_line(f"! {printable(name)}: cannot be foreseen: {printable(why)}", err=True)
    if differs:
        raise click.exceptions.Exit(1)


def _duration(text: str) -> int:
    try:
        return duration_ms(text)
    except ScheduleError as error:
        raise click.BadParameter(str(error), param_hint="--within") from None


def _zone(name: str) -> str:
    try:
        return values.timezone(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timezone") from None


Plans = Mapping[str, Sequence[int]]


def _plans(
    app: str, config_file: str | None, since: int, until: int
) -> tuple[Plans, Plans, dict[str, str], dict[str, int]]:
    """The runs of a time (ms) by Celery's schedules, and by those of the file; what cannot be foreseen; and the ends of
    the plans of entries with very many runs."""
    loaded = sources.load(sources.find(config_file).path, with_app=False)
    theirs, unknown = celery_runs(app, since, until)
    enabled = [entry for entry in loaded.entries if entry.policies.enabled]
    plans = {entry.name: plan(entry, since, until) for entry in enabled}
    ends = {name: one.end_ms for name, one in plans.items() if one.end_ms < until}
    for name, dues in theirs.items():
        if len(dues) >= MOST_RUNS:
            ends[name] = min(ends.get(name, until), dues[-1])
    return theirs, {name: one.dues for name, one in plans.items()}, unknown, ends


def _sent(log: Path, config_file: str | None, timezone: str) -> tuple[Plans, Plans]:
    """Runs that celery beat sent, and those that the dry run would have sent."""
    if log.stat().st_size > _LARGEST_LOG:
        raise click.BadParameter(
            f"{log} has more than {_LARGEST_LOG >> 20} MiB: cut off its beginning", param_hint="--sent"
        )
    with log.open(encoding="utf-8", errors="replace") as file:
        theirs = sent_by_celery_beat(file, timezone)
    with installation(config_file) as there:
        entries = sources.load(there.path).entries
        keys = Keys(dry_run_prefix(there.keys.prefix), parts=there.keys.parts)
        records = list(Histories(there.client, keys).of([entry.name for entry in entries]))
    ours: dict[str, list[int]] = {}
    for record in records:
        if record.kind == "scheduled":
            ours.setdefault(record.entry, []).append(record.due_ms)
    if not theirs:
        raise click.ClickException(f"{log} has no line of celery beat: Scheduler: Sending due task NAME (TASK)")
    if not ours:
        raise click.ClickException("there is no dry run to compare with: start beatd run --dry-run beside celery beat")
    return theirs, ours


def _common_span(theirs: Plans, ours: Plans) -> tuple[int, int]:
    """The time (ms) that both lists cover."""
    spans = [(min(map(min, plan.values())), max(map(max, plan.values()))) for plan in (theirs, ours)]
    since, until = max(first for first, _ in spans), min(last for _, last in spans)
    if since > until:
        raise click.ClickException("the log and the dry run are of different times")
    return since, until


def _facts(one: Unmatched) -> dict[str, Any]:
    return {
        "both": one.both,
        "only_celery": [iso_ms(ms) for ms in one.only_first[:1_000]],
        "only_beatd": [iso_ms(ms) for ms in one.only_second[:1_000]],
    }


def _lines(
    found: Mapping[str, Unmatched], differs: Mapping[str, Unmatched], theirs: Plans, ours: Plans
) -> Iterator[str]:
    for name, one in differs.items():
        missing = " (only in Celery)" if name not in ours else " (only in beatd)" if name not in theirs else ""
        yield f"{printable(name)}{missing}"
        for who, runs in (("celery beat", one.only_first), ("beatd", one.only_second)):
            if runs:
                times = ", ".join(f"{from_ms(ms):%Y-%m-%d %H:%M:%S}" for ms in runs[:_SHOWN])
                yield f"    only {who}, {plural(len(runs), 'run')}: {times}{', …' if runs[_SHOWN:] else ''} UTC"
    same = len(found) - len(differs)
    both = sum(one.both for one in found.values())
    yield f"{plural(same, 'entry')} the same, {len(differs):,} different; {plural(both, 'run')} of both"
