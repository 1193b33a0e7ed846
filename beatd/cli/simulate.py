"""``beatd simulate``: the runs of a time window, simulated ahead of time.

Runs over time are drawn as bars: as text of 80 columns, and as SVG.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.progress import Progress

from beatd import sources
from beatd.cli.completion import entry_names
from beatd.cli.next import facts, named
from beatd.cli.output import plural, print_json, print_json_line, print_line, print_table, read_moment, write_output
from beatd.client.moments import local_time, moment_text
from beatd.clock import SystemClock
from beatd.model import Entry
from beatd.planning.preview import all_upcoming, caveats
from beatd.planning.simulation import STEPS_S, Busy, Simulation, TooManyRuns, Totals, simulate, window_state
from beatd.schedules import duration_text
from beatd.timestamps import iso_ms

WIDTH, HEIGHT, MARGIN = 960, 320, 48
"""Of the SVG, in its own units."""

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR = 45


class Bars(NamedTuple):
    """Counts of equal stretches of time, the first of which begins at ``start`` (aware; its zone is the one shown)."""

    start: datetime
    width: timedelta
    counts: Sequence[int]

    def at(self, number: int) -> datetime:
        """When that stretch begins: so much real time after the start, on the clock of the zone."""
        zone = self.start.tzinfo
        return datetime.fromtimestamp(self.start.timestamp() + number * self.width.total_seconds(), zone)

    def joined(self, at_most: int, widths: Sequence[timedelta]) -> Bars:
        """The same in at most so many stretches: several of the old ones to each new one of a width in ``widths``."""
        for width in widths:
            joined, rest = divmod(width, self.width)
            if joined and not rest and -(-len(self.counts) // joined) <= at_most:
                counts = [sum(self.counts[first : first + joined]) for first in range(0, len(self.counts), joined)]
                return Bars(self.start, width, counts)
        return self


def text_chart(bars: Bars, *, plain: bool = False) -> list[str]:
    """A line for each stretch: when it begins, a bar, the number. ``plain`` keeps to ASCII."""
    most = max(bars.counts, default=0) or 1
    form = "%Y-%m-%d" if bars.width >= timedelta(days=1) else "%Y-%m-%d %H:%M:%S"
    lines = []
    for number, count in enumerate(bars.counts):
        bar = ("#" * round(_BAR * count / most)) if plain else _bar(count / most)
        lines.append(f"{bars.at(number):{form}}  {bar:<{_BAR}} {count:>11,}".rstrip())
    return lines


def _bar(share: float) -> str:
    full, eighth = divmod(round(share * _BAR * 8), 8)
    return "█" * full + (_EIGHTHS[eighth] if eighth else "")


def svg_chart(bars: Bars, title: str) -> str:
    """The bars as a document: light or dark as the reader's system is, each bar with its time and number on hover."""
    most = max(bars.counts, default=0) or 1
    inner_width, inner_height = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    bar_width = inner_width / max(1, len(bars.counts))
    bottom = HEIGHT - MARGIN
    rects = []
    for number, count in enumerate(bars.counts):
        if count:
            height = max(1.0, inner_height * count / most)
            place = f'x="{MARGIN + number * bar_width:.2f}" y="{bottom - height:.2f}"'
            size = f'width="{max(0.5, bar_width * 0.9):.2f}" height="{height:.2f}"'
            rects.append(f"<rect {place} {size}><title>{bars.at(number):%Y-%m-%d %H:%M:%S}: {count:,}</title></rect>")
    first, last = bars.at(0), bars.at(len(bars.counts))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">
<title>{escape(title)}</title>
<style>
  text {{ fill: #333; font-size: 13px }} rect {{ fill: #2b6cb0 }} line {{ stroke: #999 }} svg {{ background: #fff }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #ddd }} rect {{ fill: #63b3ed }} svg {{ background: #1a202c }}
  }}
</style>
<text x="{MARGIN}" y="24" font-weight="bold">{escape(title)}</text>
<text x="{MARGIN}" y="{MARGIN - 6}">{most:,}</text>
<line x1="{MARGIN}" y1="{MARGIN}" x2="{WIDTH - MARGIN}" y2="{MARGIN}" stroke-dasharray="2 4"/>
<line x1="{MARGIN}" y1="{bottom}" x2="{WIDTH - MARGIN}" y2="{bottom}"/>
{chr(10).join(rects)}
<text x="{MARGIN}" y="{HEIGHT - 18}">{first:%Y-%m-%d %H:%M %Z}</text>
<text x="{WIDTH - MARGIN}" y="{HEIGHT - 18}" text-anchor="end">{last:%Y-%m-%d %H:%M %Z}</text>
</svg>
"""


ROWS = 25
"""Entries in the table, and lines in the chart, unless there are fewer."""


@click.command("simulate")
@click.option("--from", "since", metavar="TIME", default="now", help='"2026-03-29", "2026-03-29 18:00", -1d, now.')
@click.option(
    "--to",
    "until",
    metavar="TIME",
    default="+1d",
    show_default=True,
    help="End (exclusive); a distance counts from --from.",
)
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the entries that this app registers.")
@click.option("--entry", metavar="NAME", shell_complete=entry_names, help="Only this entry.")
@click.option("--runs", "list_runs", is_flag=True, help="List every run instead of totals; JSON: one object a line.")
@click.option("--all", "show_all", is_flag=True, help="Show every entry in the table.")
@click.option(
    "--svg",
    "svg_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    help="Write a chart to this file.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=10_000_000, show_default=True, help="Refuse a window with more runs."
)
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
    """Simulate a future time window: totals, the busiest seconds, overlaps, a chart.

    Uses the daemon's own planning code. Workers are assumed to finish in time and queues to be short; overlaps are
    counted for entries with max_runtime. Times without an offset are in the time zone of the file.
    """
    loaded = sources.load(sources.find(config_file, app).path, app=app)
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
        simulation = simulate(entries, start_ms, end_ms, limit=limit, progress=advance)
    bars = Bars(local_time(start_ms, timezone), timedelta(seconds=simulation.seconds_per_column), simulation.columns)
    if svg_file is not None:
        title = f"{plural(simulation.sent, 'run')}, {_window(simulation, timezone)}"
        write_output(Path(svg_file), svg_chart(bars, title), kind="SVG file")
    if as_json:
        print_json(_facts(simulation))
        return
    _print(simulation, bars, timezone, None if show_all else ROWS)
    for line in caveats(entries, "the start of the window"):
        print_line(line)


def _list(entries: Sequence[Entry], start_ms: int, end_ms: int, limit: int, as_json: bool) -> None:
    """Every run that is due in the window, in the order in which they leave, as they are found."""
    runs = all_upcoming(entries, start_ms - 1, state_of=lambda entry: window_state(entry, start_ms), until_ms=end_ms)
    for number, run in enumerate(runs):
        if number == limit:
            raise TooManyRuns(f"stopped after {limit:,} runs; raise --limit to see more")
        if as_json:
            print_json_line(facts(run))
        else:
            late = f"+{duration_text(run.fire_ms - run.due_ms)}" if run.fire_ms > run.due_ms else ""
            print_line("  ".join(filter(None, (f"{run.local:%Y-%m-%d %H:%M:%S %Z}", run.entry.name, late, run.note))))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """A bar on standard error if that is a terminal, gone when the work is done."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("simulating", total=total)
        yield lambda ms: progress.advance(task, ms)


def _print(simulation: Simulation, bars: Bars, timezone: str, rows: int | None) -> None:
    skipped = sum(sum(total.skipped.values()) for total in simulation.totals)
    unsent = f", {skipped:,} more not sent" if skipped else ""
    runs, entries = plural(simulation.sent, "run"), plural(len(simulation.totals), "entry")
    print_line(f"{_window(simulation, timezone)}: {runs} of {entries}{unsent}")
    click.echo()
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    for line in text_chart(bars.joined(ROWS, [timedelta(seconds=step) for step in STEPS_S]), plain=plain):
        print_line(line)
    click.echo()
    _print_totals(simulation.totals, rows)
    if simulation.busiest:
        click.echo("\nbusiest seconds")
    for busy in simulation.busiest:
        print_line(f"  {moment_text(busy.second * 1000, timezone)}  {busy.runs:>9,}  {_names(busy)}")
    _print_overlaps([total for total in simulation.totals if total.overlaps], timezone)


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
        print_line(f"and {plural(len(totals) - len(shown), 'entry')} with fewer runs; --all shows them")
    if any(total.moved for total in shown):
        click.echo("moved: made right after an hour that the clock skips")


def _print_overlaps(totals: Sequence[Totals], timezone: str) -> None:
    if totals:
        click.echo("\noverlaps: runs that leave within max_runtime of the one before")
    for total in totals[:ROWS]:
        policies = total.entry.policies
        first = f"first at {moment_text(total.first_overlap_ms or 0, timezone)}"
        runtime = f"max_runtime {duration_text(policies.max_runtime_ms or 0)}"
        print_line(f'  {total.entry.name}: {total.overlaps:,}, {first}; {runtime}, overlap = "{policies.overlap}"')


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


def _facts(simulation: Simulation) -> dict[str, Any]:
    entries = [
        {
            "entry": total.entry.name,
            "runs": total.sent,
            "skipped": {skip.value: count for skip, count in total.skipped.items()},
            "moved": total.moved,
            "overlaps": total.overlaps,
            "first_overlap_at": None if total.first_overlap_ms is None else iso_ms(total.first_overlap_ms),
        }
        for total in simulation.totals
    ]
    busiest = [
        {"second": iso_ms(busy.second * 1000), "runs": busy.runs, "entries": dict(busy.entries)}
        for busy in simulation.busiest
    ]
    columns = {"seconds_each": simulation.seconds_per_column, "runs": simulation.columns}
    window = {"from": iso_ms(simulation.from_ms), "to": iso_ms(simulation.to_ms), "runs": simulation.sent}
    return {**window, "entries": entries, "busiest": busiest, "columns": columns}


def _window(simulation: Simulation, timezone: str) -> str:
    start, end = local_time(simulation.from_ms, timezone), local_time(simulation.to_ms, timezone)
    return f"{start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} {timezone}"
