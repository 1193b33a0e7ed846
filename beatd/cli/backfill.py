"""``beatd backfill``: the runs of a past window of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from beatd.cli.completion import entry_names
from beatd.cli.errors import add_to_error
from beatd.cli.installation import installation
from beatd.cli.output import plural, print_json, print_line, read_moment
from beatd.cli.trigger import in_words
from beatd.client import Backfilled
from beatd.client.moments import moment_text
from beatd.client.runs import AT_MOST, RATE, BackfillWithdrawn, RunClient
from beatd.clock import SystemClock, monotonic
from beatd.exceptions import MessageError, RequestRefused
from beatd.model import Overlap
from beatd.store.audit import whoami
from beatd.timestamps import from_ms, iso_ms

_PATIENCE_S = 2.0
"""Seconds after which progress is shown."""

_REASONS = {
    "dispatched": "were sent by the schedule (--force sends them again)",
    "sent_before": "were sent by hand before (--force sends them again)",
    "to_come": "are still to be sent by the schedule",
    "blackout": "lie in a blackout",
    "expired": "are expired",
    "overlap": "came while the one before was running",
    "unsendable": "cannot be sent",
}


@click.command()
@click.argument("entry", shell_complete=entry_names)
@click.option("--from", "since", metavar="TIME", required=True, help='"2026-03-29", "2026-03-29 18:00", -1d.')
@click.option("--to", "until", metavar="TIME", default="now", show_default=True, help="End of the window (exclusive).")
@click.option(
    "--overlap",
    type=click.Choice(["allow", "skip", "queue_one"]),
    help="While the previous run is still running: send, skip, or wait. Default: the policy of the entry.",
)
@click.option("--rate", metavar="N[/s]", default=f"{RATE:g}", show_default=True, help="Runs per second.")
@click.option(
    "--max",
    "at_most",
    type=click.IntRange(1),
    default=AT_MOST,
    show_default=True,
    help="Refuse a window with more runs.",
)
@click.option("--force", is_flag=True, help="Resend runs that were sent before, under new ids.")
@click.option("--dry-run", is_flag=True, help="Only print what would be sent.")
@click.option("--request-id", metavar="ID", help="Idempotency key, valid for a day. Default: random.")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def backfill(
    *,
    entry: str,
    since: str,
    until: str,
    overlap: Overlap | None,
    rate: str,
    at_most: int,
    force: bool,
    dry_run: bool,
    request_id: str | None,
    config_file: str | None,
    as_json: bool,
) -> None:
    """Send the runs of ENTRY that were due from --from until before --to, under their regular run ids.

    Runs that were sent before are left out. The leading daemon sends them; after a failover the next leader continues.
    Ctrl-C withdraws the rest. A time without an offset is in the time zone of the file.
    """
    pace = _rate(rate)
    with installation(config_file) as place, _progress(quiet=as_json) as progress:
        timezone, now_ms = place.head.settings.timezone, SystemClock().now_ms()
        start_ms = read_moment(since, option="--from", timezone=timezone, base_ms=now_ms, now_ms=now_ms)
        end_ms = read_moment(until, option="--to", timezone=timezone, base_ms=start_ms, now_ms=now_ms)
        if end_ms <= start_ms:
            raise click.UsageError("--to is not later than --from: the window is empty")
        try:
            done = RunClient(place.client, place.keys, via="command").backfill(
                entry,
                from_ms(start_ms),
                from_ms(end_ms),
                overlap=overlap,
                rate=pace,
                at_most=at_most,
                force=force,
                dry_run=dry_run,
                request_id=request_id,
                by=whoami(),
                progress=progress,
            )
        except RequestRefused as error:
            more = "; take a shorter one, or raise --max" if "more than" in str(error) else ""
            raise in_words(RequestRefused(f"{error}{more}", unknown=error.unknown), entry, place) from None
        except MessageError as error:
            raise click.UsageError(str(error)) from None
        except BackfillWithdrawn as stopped:
            add_to_error(_facts(stopped.done))
            raise click.ClickException(_withdrawn(stopped.done, dry_run=dry_run)) from None
    if as_json:
        print_json(_facts(done))
    else:
        _print(done, timezone, dry_run=dry_run)


def _rate(text: str) -> float:
    try:
        rate = float(text.removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise click.BadParameter(f'"{text}": expected runs per second, such as 10 or 0.5', param_hint="--rate")
    return rate


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], object]]:
    """A bar on standard error, if that is a terminal and it takes long; a line now and then, if it is none."""
    console, begun, said = Console(stderr=True), monotonic(), monotonic()
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("backfilling", total=None, visible=False)

        def show(done: int, total: int) -> None:
            nonlocal said
            now = monotonic()
            if now - begun < _PATIENCE_S or not total:
                return
            bar.update(task, completed=done, total=total, visible=True)
            if not console.is_terminal and not quiet and now - said >= _PATIENCE_S:
                said = now
                print_line(f"{done:,} of {total:,} runs", err=True)

        yield show


def _print(done: Backfilled, timezone: str, *, dry_run: bool) -> None:
    verb = "would be sent" if dry_run else "sent"
    print_line(f"{done.entry}: {plural(done.total, 'run')} in the window, {done.sent:,} {verb}")
    for reason, count in done.left_out.items():
        print_line(f"  {count:,} {_REASONS.get(reason, reason)}")
    for due_ms in done.dues_ms:
        print_line(f"{moment_text(due_ms, timezone)}")
    if dry_run and done.sent > len(done.dues_ms):
        print_line(f"and {plural(done.sent - len(done.dues_ms), 'run')} more")
    if done.repeated:
        click.echo("This request was carried out before; nothing was sent now.", err=True)


def _withdrawn(done: Backfilled, *, dry_run: bool) -> str:
    if dry_run:
        return "withdrawn"
    left = "those that are left are not sent. The same command goes on with them."
    return f"withdrawn after {done.sent:,} of {plural(done.total, 'run')}: {left}"


def _facts(done: Backfilled) -> dict[str, Any]:
    facts: dict[str, Any] = {"entry": done.entry, "request_id": done.request_id, "repeated": done.repeated}
    facts |= {"total": done.total, "sent": done.sent, "left_out": dict(done.left_out)}
    return facts | {"dues_at": [iso_ms(due_ms) for due_ms in done.dues_ms]}
