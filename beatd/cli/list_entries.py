"""``beatd list``: the entries in force, their sources, last and next runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import click

from beatd import sources
from beatd.cli.installation import installation
from beatd.cli.output import plural, print_json, print_line, print_problem, print_table
from beatd.client.history import held_facts, pause_facts
from beatd.client.outcomes import EntryOutcome, OutcomeReader, failure_text, outcome_facts
from beatd.clock import SystemClock
from beatd.model import Entry
from beatd.planning.preview import Outlook, outlooks
from beatd.schedules import duration_text
from beatd.sources import MergedSchedule
from beatd.store.entry_state import EntryStates
from beatd.store.held_back import HeldBack
from beatd.store.history import Histories
from beatd.store.outcomes import Outcomes
from beatd.store.runtime_entries import Pause, RuntimeReplica, read_pause
from beatd.store.runtime_entries import place as runtime_place
from beatd.timestamps import from_ms, iso_ms
from beatd.web.pages import schedule_phrase

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
        """The reason why it does not run, in a word or two; the full one of a held-back entry is ``look.note``."""
        if self.pause is not None and self.pause.until_ms is not None:
            return f"paused until {from_ms(self.pause.until_ms):%Y-%m-%d %H:%M:%S} UTC"
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


@click.command("list")
@click.argument("glob", required=False, default="*")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the entries that this app registers.")
@click.option("--failed", is_flag=True, help="Only entries whose last run failed.")
@click.option("--overdue", is_flag=True, help="Only overdue entries.")
@click.option("--paused", is_flag=True, help="Only paused entries.")
@click.option("--held", "held_only", is_flag=True, help="Only held-back entries.")
@click.option("--source", metavar="WORD", help="Only entries of this source: file, app, runtime, or a file's name.")
@click.option("--task", metavar="GLOB", help="Only entries whose task matches.")
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
    sort: str,
    as_json: bool,
) -> None:
    """List the entries in force whose names match GLOB, such as "report-*" (default: all).

    Entries come from the file, the app and the state store, as in a daemon with the same file.
    """
    with installation(config_file) as place:
        loaded = sources.load(place.path, app=app)
        replica = RuntimeReplica(place.client, place.keys)
        replica.refresh(anew=True)
        alive = place.fleet().alive.values()
        digests = {daemon.digest for daemon in alive}
        problems = [] if digests else ["no daemon is alive"]
        if digests and loaded.digest not in digests:
            problems.append(f"no daemon has the schedule of {place.path}")
        merged = MergedSchedule(loaded)
        merged.change(replica.tables)
        merged.pause(replica.pauses)
        entries = _matching(merged.in_force().entries, glob)
        shards = max([daemon.shards for daemon in alive], default=place.head.settings.leader.shards)
        held = HeldBack(place.client, place.keys, shards=shards).read([entry.name for entry in entries])
        if held_only:
            entries = [entry for entry in entries if entry.name in held]
        if paused:
            entries = [entry for entry in entries if entry.name in replica.pauses]
        if failed:
            failing = Outcomes(place.client, place.keys).failing()
            entries = [entry for entry in entries if entry.name in failing]
        entries = [entry for entry in entries if _is_of(entry, source) and fnmatchcase(entry.task, task or "*")]
        now_ms = SystemClock().now_ms()
        states = EntryStates(place.client, place.keys).read(entries, now_ms=now_ms)
        last_dues = Histories(place.client, place.keys).last_dues
        looks = outlooks(entries, states, now_ms, paused=replica.pauses, held=held, last_dues=last_dues)
        outcomes = OutcomeReader(place.client, place.keys).of([entry.name for entry in entries], now_ms, held=held)
    rows = (EntryRow(_kind(one.entry), one, _pause(replica, one.entry.name), outcomes[one.entry.name]) for one in looks)
    lines = [row for row in rows if not overdue or row.outcome.overdue_since_ms is not None]
    lines.sort(key=_ORDERS[sort])
    overruled = _matching(merged.conflicts(), glob)
    faults = [*loaded.refused, *(fault for found in merged.faults.values() for fault in found)]
    listing = Listing(lines, overruled, list(map(str, faults)), problems)
    if as_json:
        print_json(_facts(listing))
    else:
        _print(listing, now_ms)


def _matching(entries: Sequence[Entry], glob: str) -> list[Entry]:
    """The entries whose names match, sorted by name."""
    matching = [entry for entry in entries if fnmatchcase(entry.name, glob)]
    return sorted(matching, key=lambda entry: (entry.name.casefold(), entry.name))


def _pause(replica: RuntimeReplica, name: str) -> Pause | None:
    raw = replica.pauses.get(name)
    return None if raw is None else read_pause(raw)


def _kind(entry: Entry) -> str:
    """The source of an entry as a word; only an entry of a file has a line number."""
    if entry.source == runtime_place(entry.name):
        return "runtime"
    return "file" if entry.source.rpartition(":")[2].isdigit() else "app"


def _is_of(entry: Entry, source: str | None) -> bool:
    """True if the entry comes from there: a kind of source, or the name of a file or module."""
    if source is None or source == _kind(entry):
        return True
    named = entry.source.rpartition(":")[0] or entry.source
    return named == source or named.endswith(f"/{source}")


def _print(listing: Listing, now_ms: int) -> None:
    columns = ["entry", "schedule", "last due", "last runs", "next run", "source", "state"]
    rows = [list(_cells(line, now_ms)) for line in listing.lines]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    if rows:
        print_table(columns, rows)
    else:
        click.echo("No entries.")
    _print_failing(listing.lines)
    held = [line.look for line in listing.lines if line.look.held]
    for look in held[:_SHOWN]:
        print_problem(f"{look.entry.name} is {look.note}")
    if held[_SHOWN:]:
        print_line(f"! and {plural(len(held) - _SHOWN, 'entry')} more held back; --json has the reasons")
    for entry in listing.overruled:
        print_problem(f"{entry.name} is also in the state store; the one in {entry.source} takes precedence")
    for fault in listing.faults[:_SHOWN]:
        print_problem(f"not in force: {fault}")
    if listing.faults[_SHOWN:]:
        click.echo(f"! and {plural(len(listing.faults) - _SHOWN, 'fault')} more")
    for problem in listing.problems:
        print_problem(problem)


def _print_failing(lines: Sequence[EntryRow]) -> None:
    failing = [line for line in lines if line.outcome.failing_since_ms is not None]
    for line in failing[:_SHOWN]:
        print_problem(failure_text(line.look.entry.name, line.outcome))
    if failing[_SHOWN:]:
        print_line(f"! and {plural(len(failing) - _SHOWN, 'entry')} more failing; beatd list --failed --json has all")


def _cells(line: EntryRow, now_ms: int) -> Iterator[str]:
    look = line.look
    yield look.entry.name
    yield schedule_phrase(look.entry.schedule).text
    yield "" if look.last_due_ms is None else f"{_distance(now_ms - look.last_due_ms)} ago"
    yield f"{line.outcome.word or ''} {line.outcome.marks}".strip()
    next_ms = look.held.again_ms if look.held else look.next_fire_ms
    yield "" if next_ms is None else "now" if next_ms <= now_ms else f"in {_distance(next_ms - now_ms)}"
    yield line.source
    yield line.state


def _distance(ms: int) -> str:
    """Round to tenths of a second, seconds up to an hour, minutes up to two days, then hours."""
    unit = 100 if ms < 10_000 else 1_000 if ms < 3_600_000 else 60_000 if ms < 172_800_000 else 3_600_000
    return duration_text(max(ms, 0) // unit * unit)


def _facts(listing: Listing) -> dict[str, Any]:
    return {
        "entries": [_entry_facts(line) for line in listing.lines],
        "overruled": [{"name": entry.name, "counts": entry.source} for entry in listing.overruled],
        "faults": listing.faults,
        "problems": listing.problems,
    }


def _entry_facts(line: EntryRow) -> dict[str, Any]:
    look = line.look
    entry, pause = look.entry, line.pause
    return {
        "name": entry.name,
        "task": entry.task,
        "schedule": entry.schedule.notation,
        "schedule_text": schedule_phrase(entry.schedule).text,
        "timezone": entry.timezone,
        "source": line.source,
        "place": entry.source,
        "enabled": entry.policies.enabled,
        "paused": pause and pause_facts(pause),
        "runs": look.runs,
        "last_due_at": _iso(look.last_due_ms),
        "next_due_at": _iso(look.next_due_ms),
        "next_fires_at": _iso(look.next_fire_ms),
        "note": look.note or None,
        "held_back": look.held and held_facts(look.held),
        **outcome_facts(line.outcome),
    }


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso_ms(ms)
