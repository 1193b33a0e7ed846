"""``beatd next``: when entries run next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from difflib import get_close_matches
from itertools import islice
from typing import Any

import click

from beatd import config, sources
from beatd.cli.moments import read_moment
from beatd.cli.output import print_json, print_table
from beatd.cli.preview import Upcoming, all_upcoming, caveats
from beatd.clock import SystemClock
from beatd.model import Entry, run_id
from beatd.schedules import dst_note, duration_text


@click.command("next")
@click.argument("entry", required=False)
@click.option("-n", "count", type=click.IntRange(1, 100_000), default=10, show_default=True, help="How many runs.")
@click.option("--from", "since", metavar="TIME", default="now", help='Runs after TIME: "2026-12-24 18:00", +1d, now.')
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="With what this app registers.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def next_runs(
    *, entry: str | None, count: int, since: str, config_file: str | None, app: str | None, as_json: bool
) -> None:
    """Show the next runs of ENTRY, or of all entries: when they are due, and when they leave with their jitter.

    Runs that are due in a blackout are shown and marked; they are not sent. A TIME without an offset is in the time
    zone of the entry, or of the file. An interval without an anchor counts from the moment when the daemon first sees
    it; here it counts from TIME.
    """
    loaded = sources.load(config.find(config_file), app=app)
    entries = loaded.entries if entry is None else (named(entry, loaded.entries),)
    timezone = loaded.settings.timezone if entry is None else entries[0].timezone
    now_ms = SystemClock().now_ms()
    after_ms = read_moment(since, option="--from", timezone=timezone, base_ms=now_ms, now_ms=now_ms)
    runs = list(islice(all_upcoming(entries, after_ms), count))
    if as_json:
        print_json([facts(run) for run in runs])
    elif runs:
        _print(runs)
        for line in caveats([run.entry for run in runs], "now" if after_ms == now_ms else since):
            click.echo(line)
    else:
        click.echo(_why_none(entries))


def named(name: str, entries: Iterable[Entry]) -> Entry:
    """The entry of that name; raises click.UsageError that names the near ones."""
    names = {entry.name: entry for entry in entries}
    if name not in names:
        near = get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise click.UsageError(f'there is no entry "{name}"{hint}')
    return names[name]


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


def facts(run: Upcoming) -> dict[str, Any]:
    """A run for programs."""
    return {
        "entry": run.entry.name,
        "task": run.entry.task,
        "timezone": run.entry.timezone,
        "due_at": run.due_at.isoformat(timespec="milliseconds"),
        "due_at_local": run.local.isoformat(timespec="milliseconds"),
        "fires_at": run.fire_at.isoformat(timespec="milliseconds"),
        "run_id": run_id(run.entry.name, run.due_ms),
        "skip": run.skip and run.skip.value,
        "dst": dst_note(run.entry.schedule, run.due_at),
        "note": run.note or None,
    }


def _why_none(entries: Sequence[Entry]) -> str:
    if not entries:
        return "There are no entries."
    if not any(entry.policies.enabled for entry in entries):
        return "Not enabled."
    return "No run is left."
