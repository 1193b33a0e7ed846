"""``beatd simulate``: a window of time, run through ahead of time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from beatd import config, sources
from beatd.cli.charts import Bars, svg_chart, text_chart
from beatd.cli.moments import read_moment
from beatd.cli.next_runs import facts, named
from beatd.cli.output import plural, print_json, print_table
from beatd.cli.preview import all_upcoming, caveats
from beatd.cli.simulation import STEPS_S, Busy, Simulation, TooManyRuns, simulate
from beatd.cli.tracks import Totals
from beatd.clock import SystemClock
from beatd.epoch import from_ms, iso_ms
from beatd.model import Entry
from beatd.schedules import duration_text, zone

ROWS = 25
"""Entries in the table, and lines in the chart, unless there are fewer."""


@click.command("simulate")
@click.option("--from", "since", metavar="TIME", default="now", help='"2026-03-29", "2026-03-29 18:00", -1d, now.')
@click.option("--to", "until", metavar="TIME", default="+1d", show_default=True, help="A distance counts from --from.")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="With what this app registers.")
@click.option("--entry", metavar="NAME", help="This entry alone.")
@click.option("--runs", "list_runs", is_flag=True, help="List every run instead of totals; JSON: one object a line.")
@click.option("--all", "show_all", is_flag=True, help="Every entry in the table.")
@click.option("--svg", "svg_file", metavar="FILE", type=click.Path(dir_okay=False, writable=True), help="Draw a chart.")
@click.option("--limit", type=click.IntRange(1), default=10_000_000, show_default=True, help="Refuse more runs.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def simulate_runs(
    *,
    since: str,
    until: str,
    config_file: str | None,
    app: str | None,
    entry: str | None,
    list_runs: bool,
    show_all: bool,
    svg_file: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show what the file does from TIME up to, and without, TIME: totals, the busiest seconds, overlaps, a chart.

    The runs come from the code that the daemon runs. Workers are taken to finish in time and queues to be short;
    overlaps are counted where an entry says max_runtime. Times without an offset are in the file's time zone.
    """
    loaded = sources.load(config.find(config_file), app=app)
    entries = loaded.entries if entry is None else (named(entry, loaded.entries),)
    timezone = loaded.settings.timezone
    now_ms = SystemClock().now_ms()
    start_ms = read_moment(since, option="--from", timezone=timezone, base_ms=now_ms, now_ms=now_ms)
    end_ms = read_moment(until, option="--to", timezone=timezone, base_ms=start_ms, now_ms=now_ms)
    if end_ms <= start_ms:
        raise click.UsageError("--to is not later than --from: the window is empty")
    if list_runs:
        _list(entries, start_ms, end_ms, limit, as_json)
        return
    with _progress(end_ms - start_ms) as advance:
        found = simulate(entries, start_ms, end_ms, limit=limit, progress=advance)
    bars = Bars(_local(start_ms, timezone), timedelta(seconds=found.seconds_per_column), found.columns)
    if svg_file is not None:
        _write(Path(svg_file), svg_chart(bars, f"{plural(found.sent, 'run')}, {_window(found, timezone)}"))
    if as_json:
        print_json(_facts(found))
        return
    _print(found, bars, timezone, None if show_all else ROWS)
    for line in caveats(entries, "the start of the window"):
        click.echo(line)


def _list(entries: Sequence[Entry], start_ms: int, end_ms: int, limit: int, as_json: bool) -> None:
    """Every run that is due in the window, in the order in which they leave, as they are found."""
    runs = all_upcoming(entries, start_ms - 1, first_seen_ms=start_ms, until_ms=end_ms)
    for number, run in enumerate(runs):
        if number == limit:
            raise TooManyRuns(f"stopped after {limit:,} runs; raise --limit to see more")
        if as_json:
            click.echo(json.dumps(facts(run), ensure_ascii=False))
        else:
            late = f"+{duration_text(run.fire_ms - run.due_ms)}" if run.fire_ms > run.due_ms else ""
            click.echo("  ".join(filter(None, (f"{run.local:%Y-%m-%d %H:%M:%S %Z}", run.entry.name, late, run.note))))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """A bar on standard error if that is a terminal, gone when the work is done."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("simulating", total=total)
        yield lambda ms: progress.advance(task, ms)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.FileError(str(path), error.strerror or str(error)) from None


def _print(found: Simulation, bars: Bars, timezone: str, rows: int | None) -> None:
    skipped = sum(sum(total.skipped.values()) for total in found.totals)
    unsent = f", {skipped:,} more not sent" if skipped else ""
    click.echo(
        f"{_window(found, timezone)}: {plural(found.sent, 'run')} of {plural(len(found.totals), 'entry')}{unsent}"
    )
    click.echo()
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    for line in text_chart(bars.joined(ROWS, [timedelta(seconds=step) for step in STEPS_S]), plain=plain):
        click.echo(line)
    click.echo()
    _print_totals(found.totals, rows)
    if found.busiest:
        click.echo("\nbusiest seconds")
    for busy in found.busiest:
        click.echo(f"  {_local(busy.second * 1000, timezone):%Y-%m-%d %H:%M:%S %Z}  {busy.runs:>9,}  {_names(busy)}")
    _print_overlaps([total for total in found.totals if total.overlaps], timezone)


def _print_totals(totals: Sequence[Totals], rows: int | None) -> None:
    shown = sorted(totals, key=lambda total: (-total.sent, total.entry.name))[:rows]
    columns = {
        "entry": [total.entry.name for total in shown],
        "runs": [f"{total.sent:,}" for total in shown],
        "not sent": [_skips(total) for total in shown],
        "moved": [f"{total.moved:,}" if total.moved else "" for total in shown],
        "overlaps": [f"{total.overlaps:,}" if total.overlaps else "" for total in shown],
    }
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    if filled:
        print_table(list(filled), zip(*filled.values(), strict=True))
    if len(totals) > len(shown):
        click.echo(f"and {plural(len(totals) - len(shown), 'entry')} with fewer runs; --all shows them")
    if any(total.moved for total in shown):
        click.echo("moved: made right after an hour that the clock skips")


def _print_overlaps(totals: Sequence[Totals], timezone: str) -> None:
    if totals:
        click.echo("\noverlaps: runs that leave within max_runtime of the one before")
    for total in totals[:ROWS]:
        policies = total.entry.policies
        first = f"first at {_local(total.first_overlap_ms or 0, timezone):%Y-%m-%d %H:%M:%S %Z}"
        runtime = f"max_runtime {duration_text(policies.max_runtime_ms or 0)}"
        click.echo(f'  {total.entry.name}: {total.overlaps:,}, {first}; {runtime}, overlap = "{policies.overlap}"')


def _skips(total: Totals) -> str:
    return ", ".join(f"{count:,} {skip.value}" for skip, count in total.skipped.items())


def _names(busy: Busy) -> str:
    """The entries in a busy second, as many as there is room for."""
    shown: list[str] = []
    room = 38
    for name, count in busy.entries:
        text = f"{name} ×{count:,}" if count > 1 else name
        room -= len(text) + 2
        if shown and room < 0:
            break
        shown.append(text)
    return ", ".join(shown) + (", …" if sum(count for _, count in busy.entries[: len(shown)]) < busy.runs else "")


def _facts(found: Simulation) -> dict[str, Any]:
    entries = [
        {
            "entry": total.entry.name,
            "runs": total.sent,
            "skipped": {skip.value: count for skip, count in total.skipped.items()},
            "moved": total.moved,
            "overlaps": total.overlaps,
            "first_overlap_at": None if total.first_overlap_ms is None else iso_ms(total.first_overlap_ms),
        }
        for total in found.totals
    ]
    busiest = [
        {"second": iso_ms(busy.second * 1000), "runs": busy.runs, "entries": dict(busy.entries)}
        for busy in found.busiest
    ]
    columns = {"seconds_each": found.seconds_per_column, "runs": found.columns}
    window = {"from": iso_ms(found.from_ms), "to": iso_ms(found.to_ms), "runs": found.sent}
    return {**window, "entries": entries, "busiest": busiest, "columns": columns}


def _window(found: Simulation, timezone: str) -> str:
    start, end = _local(found.from_ms, timezone), _local(found.to_ms, timezone)
    return f"{start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} {timezone}"


def _local(ms: int, timezone: str) -> datetime:
    return from_ms(ms).astimezone(zone(timezone).info)
