"""``beatd next``: when entries run next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from difflib import get_close_matches
from itertools import islice
from typing import Any

import click

from beatd import config
from beatd.cli.output import print_json, print_table
from beatd.cli.preview import Upcoming, all_upcoming
from beatd.clock import SystemClock, to_ms
from beatd.config.values import Wrong, moment
from beatd.model import Entry, run_id
from beatd.schedules import duration_text


@click.command("next")
@click.argument("entry", required=False)
@click.option("-n", "count", type=click.IntRange(1, 100_000), default=10, show_default=True, help="How many runs.")
@click.option("--from", "since", metavar="TIME", help='Runs after TIME, such as "2026-12-24 18:00"; default: now.')
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def next_runs(entry: str | None, count: int, since: str | None, config_file: str | None, as_json: bool) -> None:
    """Show the next runs of ENTRY, or of all entries: when they are due, and when they leave with their jitter.

    A TIME without an offset is in the time zone of the entry, or of the file. An interval without an anchor counts from
    the moment when the daemon first sees it; here it counts from TIME.
    """
    loaded = config.load(config.find(config_file))
    entries = loaded.entries if entry is None else (_named(entry, loaded.entries),)
    timezone = loaded.settings.timezone if entry is None else entries[0].timezone
    after_ms = SystemClock().now_ms() if since is None else to_ms(_instant(since, timezone))
    runs = list(islice(all_upcoming(entries, after_ms), count))
    if as_json:
        print_json([_facts(run) for run in runs])
    elif runs:
        _print(runs)
    else:
        click.echo(_why_none(entries))


def _named(name: str, entries: Iterable[Entry]) -> Entry:
    names = {entry.name: entry for entry in entries}
    if name not in names:
        near = get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise click.UsageError(f'there is no entry "{name}"{hint}')
    return names[name]


def _instant(text: str, timezone: str) -> datetime:
    try:
        return moment(text, timezone)
    except Wrong as error:
        raise click.BadParameter(str(error), param_hint="--from") from None


def _print(runs: Sequence[Upcoming]) -> None:
    columns = {
        "entry": [run.entry.name for run in runs],
        "due (local)": [f"{_short(run.local)} {run.local:%Z}" for run in runs],
        "due (UTC)": [_short(run.due_at) for run in runs],
        "jitter": [f"+{duration_text(run.fire_ms - run.due_ms)}" if run.fire_ms > run.due_ms else "" for run in runs],
        "note": [run.note for run in runs],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    print_table(list(shown), zip(*shown.values(), strict=True))


def _short(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" + (f".{moment.microsecond // 1000:03}" if moment.microsecond else "")


def _facts(run: Upcoming) -> dict[str, Any]:
    return {
        "entry": run.entry.name,
        "task": run.entry.task,
        "timezone": run.entry.timezone,
        "due_at": run.due_at.isoformat(timespec="milliseconds"),
        "due_at_local": run.local.isoformat(timespec="milliseconds"),
        "fires_at": run.fire_at.isoformat(timespec="milliseconds"),
        "run_id": run_id(run.entry.name, run.due_ms),
        "note": run.note or None,
    }


def _why_none(entries: Sequence[Entry]) -> str:
    if not entries:
        return "There are no entries."
    if not any(entry.policies.enabled for entry in entries):
        return "Not enabled."
    return "No run is left."
