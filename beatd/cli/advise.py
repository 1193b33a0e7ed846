"""``beatd advise``: entries that leave in one second and could be spread, and the schedules that do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from beatd import sources
from beatd.cli.output import Duration, plural, print_json, print_line
from beatd.clock import SystemClock
from beatd.config.writer import toml_value
from beatd.model import Entry
from beatd.planning.advice import BUSY, DAY_MS, Move, Unit, advise, moved_entries
from beatd.planning.simulation import Busy, simulate, window_text

_SHOWN = 20
"""Changes that are shown without ``--all``."""
_LIMIT = 20_000_000
"""Runs that are computed for the peaks."""


@click.command("advise")
@click.argument("file", required=False)
@click.option("--config", "-c", "config_file", metavar="FILE", help="The same as FILE.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the entries that this app registers.")
@click.option(
    "--by",
    "unit",
    type=click.Choice(["minute", "second"]),
    default="minute",
    show_default=True,
    help="Move entries so.",
)
@click.option("--within", type=Duration(1), default="1h", show_default=True, help="Move no entry by more.")
@click.option(
    "--above", type=click.IntRange(1), default=BUSY, show_default=True, help="Only seconds with more runs than this."
)
@click.option("--all", "show_all", is_flag=True, help=f"Show all changes, not only the first {_SHOWN}.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def advise_spread(
    *,
    file: str | None,
    config_file: str | None,
    app: str | None,
    unit: Unit,
    within: float,
    above: int,
    show_all: bool,
    as_json: bool,
) -> None:
    """Show how to spread entries that leave in the same second: the peak before and after, and the new schedules.

    Looks at the coming day. Cron entries move within their hour or step, with --by second within their minute. Entries
    with jitter, with H in the schedule, and intervals stay as they are. Nothing is changed.
    """
    if file and config_file:
        raise click.UsageError("give the file once: as FILE or with --config")
    entries = sources.load(sources.find(file or config_file, app).path, app=app).entries
    now_ms = SystemClock().now_ms() // 60_000 * 60_000
    before = _peak(entries, now_ms)
    moves = advise(entries, now_ms, unit=unit, within_s=int(within), above=above) if before.runs > above else []
    after = _peak(list(moved_entries(entries, moves)), now_ms) if moves else before
    if as_json:
        print_json({"peak_before": _facts(before), "peak_after": _facts(after), "changes": list(map(_change, moves))})
        return
    print_line(f"Peak    {_shown(before)}")
    if not moves:
        print_line(_nothing(before, above))
        return
    print_line(f"After   {_shown(after)}")
    print_line(f"Spread  {plural(len(moves), 'entry')}")
    for move in moves if show_all else moves[:_SHOWN]:
        click.echo()
        _print_change(move)
    if not show_all and moves[_SHOWN:]:
        click.echo()
        print_line(f"and {plural(len(moves) - _SHOWN, 'change')} more; --all shows them")
    click.echo('\nOr spread all entries by themselves: jitter = "30s" under [defaults].')


def _peak(entries: Sequence[Entry], now_ms: int) -> Busy:
    busiest = simulate(entries, now_ms, now_ms + DAY_MS, limit=_LIMIT, busiest=1).busiest
    return busiest[0] if busiest else Busy(now_ms // 1000, 0, [])


def _shown(peak: Busy) -> str:
    if not peak.runs:
        return "no run in the coming day"
    return f"{plural(peak.runs, 'run')} in one second, at {window_text(peak.second * 1000)}"


def _nothing(peak: Busy, above: int) -> str:
    if peak.runs <= above:
        return f"No second has more than {plural(above, 'run')}: there is nothing to spread."
    return "None of these entries can be moved. jitter, H in place of the minute, or anchor of an interval spread them."


def _print_change(move: Move) -> None:
    print_line(f"{move.entry.source}: {move.entry.name}")
    print_line(f"- schedule = {toml_value(move.old)}")
    print_line(f"+ schedule = {toml_value(move.new)}")


def _facts(peak: Busy) -> dict[str, Any]:
    return {"runs": peak.runs, "second": window_text(peak.second * 1000), "entries": [name for name, _ in peak.entries]}


def _change(move: Move) -> dict[str, Any]:
    return {"entry": move.entry.name, "place": move.entry.source, "old": move.old, "new": move.new}
