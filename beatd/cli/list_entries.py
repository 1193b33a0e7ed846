"""``beatd list``: the entries in force, their sources, last and next runs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Container, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import click

from beatd import sources
from beatd.cli.completion import entry_names
from beatd.cli.installation import EffectiveSchedule, Installation, installation
from beatd.cli.output import plural, print_json, print_line, print_problem, print_table
from beatd.client.entries import entry_facts, has_tags, is_of, kind_of
from beatd.client.moments import local_text, moment_text
from beatd.client.outcomes import EntryOutcome, OutcomeReader, failure_text
from beatd.clock import SystemClock
from beatd.config import Config
from beatd.model import Entry
from beatd.planning.notation import schedule_phrase
from beatd.planning.preview import WAITS, Outlook, outlooks
from beatd.store.daemon_registry import FleetView
from beatd.store.history_reader import Histories
from beatd.store.outcomes import Outcomes
from beatd.store.pipeline import joint_reads
from beatd.store.runtime_entries import Pause
from beatd.timestamps import span_text

_SHOWN = 10
"""Faults, and reasons of held-back entries, that are shown one by one."""


class EntryRow(NamedTuple):
    """An entry in force: its source, last and next run, and its pause."""

    source: str
    look: Outlook
    pause: Pause | None
    outcome: EntryOutcome = EntryOutcome(None, ())

    @property
    def state(self) -> str:
        """The reason why it does not run, or not yet; the full one of a held-back entry is ``look.note``."""
        if self.pause is not None and self.pause.until_ms is not None:
            return f"paused until {moment_text(self.pause.until_ms, self.look.entry.timezone)}"
        return "held back" if self.look.held else self.look.note


def _name(row: EntryRow) -> tuple[str, str]:
    return row.look.entry.name.casefold(), row.look.entry.name


_ORDERS: Mapping[str, Callable[[EntryRow], Any]] = {
    "name": _name,
    "next": lambda row: (row.look.next_fire_ms is None, row.look.next_fire_ms, _name(row)),
    "last": lambda row: (-(row.look.last_due_ms or 0), _name(row)),
    "failures": lambda row: (-row.outcome.failures, _name(row)),
}
SORTS = tuple(_ORDERS)
"""Orders: by name, the next run first, the latest run first, most failures in a row first."""


class Listing(NamedTuple):
    """``overruled`` are runtime entries whose names a file has too, ``faults`` those of invalid runtime entries."""

    lines: list[EntryRow]
    overruled: list[Entry]
    faults: list[str]
    problems: list[str]


class Selection(NamedTuple):
    """The entries that are wanted: the options of the command."""

    glob: str
    failed: bool
    overdue: bool
    paused: bool
    held: bool
    source: str | None
    task: str | None
    tags: tuple[str, ...] = ()

    def takes(self, entry: Entry, paused: Container[str], failing: Container[str], late: Container[str]) -> bool:
        """True if an entry is wanted, provided that it is held back if only those are."""
        name = entry.name
        return (
            (not self.paused or name in paused)
            and (not self.failed or name in failing)
            and (not self.overdue or name in late)
            and is_of(entry, self.source)
            and has_tags(entry, self.tags)
            and (self.task is None or fnmatchcase(entry.task, self.task))
        )


@click.command("list")
@click.argument("glob", required=False, default="*", shell_complete=entry_names)
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the entries that this app registers.")
@click.option("--failed", is_flag=True, help="Only entries whose last run failed.")
@click.option("--overdue", is_flag=True, help="Only entries that are overdue or take too long.")
@click.option("--paused", is_flag=True, help="Only paused entries.")
@click.option("--held", "held_only", is_flag=True, help="Only held-back entries.")
@click.option("--source", metavar="WORD", help="Only entries of this source: file, app, runtime, or a file's name.")
@click.option("--task", metavar="GLOB", help="Only entries whose task matches.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only entries with all given tags (repeatable).")
@click.option("--sort", type=click.Choice(SORTS), default="name", show_default=True, help="Order.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def list_entries(
    *,
    glob: str,
    config_file: str | None,
    app: str | None,
    failed: bool,
    overdue: bool,
    paused: bool,
    held_only: bool,
    source: str | None,
    task: str | None,
    tags: tuple[str, ...],
    sort: str,
    as_json: bool,
) -> None:
    """List the entries in force whose names match GLOB, such as "report-*" (default: all).

    Entries come from the file, the app and the state store, as in a daemon with the same file. "beatd list bindings" is
    Celery's: the queues of workers and app, with exchange and routing key.
    """
    if glob == "bindings":
        from beatd.cli.graph import print_bindings  # noqa: PLC0415 - for this word alone

        print_bindings(config_file, app, as_json=as_json)
        return
    wanted = Selection(glob, failed, overdue, paused, held_only, source, task, tags)
    now_ms = SystemClock().now_ms()
    gc.disable()  # a large schedule makes a million objects and no cycles
    click.get_current_context().call_on_close(gc.enable)
    with installation(config_file, app) as place:
        listing = _listing(place, sources.load(place.path, app=app), wanted, now_ms)
    listing.lines.sort(key=_ORDERS[sort])
    if as_json:
        print_json(_facts(listing))
    else:
        _print(listing, now_ms)


def _listing(place: Installation, loaded: Config, wanted: Selection, now_ms: int) -> Listing:
    """Ask the store for what the entries that are wanted need; which ones are held back is known only then."""
    outcomes = Outcomes(place.client, place.keys)
    with joint_reads() as read:
        members, merged = read(place.fleet), read(place.schedule, loaded)
        failed = read(outcomes.failing) if wanted.failed else None
        overdue = [read(outcomes.overdue), read(outcomes.too_long)] if wanted.overdue else []
    fleet, schedule = members.result(), merged.result()
    failing = failed.result() if failed else {}
    late = {name for one in overdue for name in one.result()}
    matching = _matching(schedule.entries, wanted.glob)
    entries = [entry for entry in matching if wanted.takes(entry, schedule.pauses, failing, late)]
    rows = _rows(place, schedule, entries, fleet, now_ms)
    faults = [*loaded.refused, *(fault for faults in schedule.merged.faults.values() for fault in faults)]
    return Listing(
        [row for row in rows if row.look.held or not wanted.held],
        _matching(schedule.merged.conflicts(), wanted.glob),
        list(map(str, faults)),
        _problems(place, loaded, {daemon.digest for daemon in fleet.alive.values()}),
    )


def _rows(
    place: Installation, schedule: EffectiveSchedule, entries: Sequence[Entry], fleet: FleetView, now_ms: int
) -> list[EntryRow]:
    """The rows of entries: their states and outcomes as the store has them, and what follows from these."""
    names = [entry.name for entry in entries]
    histories = Histories(place.client, place.keys)
    with joint_reads() as read:
        states, reasons = read(place.states, entries, now_ms), read(place.held_back, names, fleet)
        outcomes = read(OutcomeReader(place.client, place.keys, histories).of, names, now_ms)
    looks = outlooks(
        entries,
        states.result(),
        now_ms,
        waiting=place.waiting(entries, states.result(), fleet, now_ms),
        paused=schedule.pauses,
        held=reasons.result(),
        last_dues=histories.last_dues,
    )
    return [
        EntryRow(
            kind_of(look.entry),
            look,
            schedule.pause_of(look.entry.name),
            outcomes.result()[look.entry.name].while_held(look.held is not None),
        )
        for look in looks
    ]


def _problems(place: Installation, loaded: Config, digests: set[str]) -> list[str]:
    if not digests:
        return ["no daemon is alive"]
    return [] if loaded.digest in digests else [f"no daemon has the schedule of {place.path}"]


def _matching(entries: Sequence[Entry], glob: str) -> list[Entry]:
    """The entries whose names match, sorted by name."""
    matching = [entry for entry in entries if fnmatchcase(entry.name, glob)]
    return sorted(matching, key=lambda entry: (entry.name.casefold(), entry.name))


def _print(listing: Listing, now_ms: int) -> None:
    columns = ["entry", "schedule", "last due", "last runs", "next run", "source", "state"]
    rows = [_cells(line, now_ms) for line in listing.lines]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    if rows:
        print_table(columns, rows)
    else:
        click.echo("No entries.")
    _print_failing(listing.lines)
    held = [line.look for line in listing.lines if line.look.held]
    for look in held[:_SHOWN]:
        print_problem(local_text(f"{look.entry.name} is {look.note}", look.entry.timezone))
    if held[_SHOWN:]:
        print_line(f"! and {plural(len(held) - _SHOWN, 'entry')} more held back; --json has the reasons")
    for entry in listing.overruled:
        print_problem(f"{entry.name} is also in the state store; the one in {entry.source} takes precedence")
    for fault in listing.faults[:_SHOWN]:
        print_problem(f"not in force: {fault}")
    if listing.faults[_SHOWN:]:
        print_line(f"! and {plural(len(listing.faults) - _SHOWN, 'fault')} more")
    for problem in listing.problems:
        print_problem(problem)


def _print_failing(lines: Sequence[EntryRow]) -> None:
    failing = [line for line in lines if line.outcome.failing_since_ms is not None]
    for line in failing[:_SHOWN]:
        entry = line.look.entry
        print_problem(local_text(failure_text(entry.name, line.outcome), entry.timezone))
    if failing[_SHOWN:]:
        print_line(f"! and {plural(len(failing) - _SHOWN, 'entry')} more failing; beatd list --failed --json has all")


def _cells(line: EntryRow, now_ms: int) -> list[str]:
    look = line.look
    next_ms = look.held.again_ms if look.held else look.next_fire_ms
    return [
        look.entry.name,
        schedule_phrase(look.entry.schedule).text,
        "" if look.last_due_ms is None else f"{span_text(now_ms - look.last_due_ms)} ago",
        f"{line.outcome.word or ''} {line.outcome.marks}".strip(),
        "" if next_ms is None else _soon(look) if next_ms <= now_ms else f"in {span_text(next_ms - now_ms)}",
        line.source,
        line.state,
    ]


def _soon(look: Outlook) -> str:
    return "waits" if look.note == WAITS else "now"


def _facts(listing: Listing) -> dict[str, Any]:
    return {
        "entries": [entry_facts(line.look, line.outcome, line.pause) for line in listing.lines],
        "overruled": [{"name": entry.name, "counts": entry.source} for entry in listing.overruled],
        "faults": listing.faults,
        "problems": listing.problems,
    }
