"""``beatd next``: next runs of entries, computed by :mod:`beatd.planning.preview`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

import click

from beatd import sources
from beatd.cli.completion import entry_names
from beatd.cli.installation import installation, no_entry
from beatd.cli.output import print_json, print_line, print_refused, print_table, read_moment
from beatd.client.entries import has_tags
from beatd.client.moments import moment_text
from beatd.clock import SystemClock
from beatd.config import Config
from beatd.exceptions import StoreError
from beatd.model import Entry, EntryState, run_id
from beatd.planning.preview import NOTHING_WAITS, Upcoming, all_upcoming, caveats, new_state, state_at
from beatd.schedules import dst_note, duration_text
from beatd.store.pipeline import joint_reads
from beatd.store.runtime_entries import Pause, read_pause

PATIENCE_MS = 2_000
"""The store is asked for what it adds; a person who previews a file is not kept waiting for it."""
_PAUSED_SHOWN = 10
_NO_PAUSES: Mapping[str, Pause] = MappingProxyType({})


class EntriesInForce(NamedTuple):
    """Entries in force, also those that are paused; the pauses, and the states in the store, by name."""

    entries: Sequence[Entry]
    pauses: Mapping[str, Pause]
    states: Mapping[str, EntryState]
    waiting: Mapping[str, int] = NOTHING_WAITS
    """Due times (ms) of runs that wait for the run before."""


@click.command("next")
@click.argument("entry", required=False, shell_complete=entry_names)
@click.option("-n", "count", type=click.IntRange(1, 100_000), default=10, show_default=True, help="Number of runs.")
@click.option("--from", "since", metavar="TIME", default="now", help='Runs after TIME: "2026-12-24 18:00", +1d, now.')
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the entries that this app registers.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only entries with all given tags (repeatable).")
@click.option("--offline", is_flag=True, help="Do not query the state store.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def next_runs(
    *,
    entry: str | None,
    count: int,
    since: str,
    config_file: str | None,
    app: str | None,
    tags: tuple[str, ...],
    offline: bool,
    as_json: bool,
) -> None:
    """Show the next runs of ENTRY, or of all entries: due times, and send times with jitter.

    Runs in a blackout are shown and marked; they are not sent. Overdue runs come first: they leave as soon as a daemon
    leads, and one that waits (overlap = "queue_one") as soon as the run before has ended. Runs of an entry that is
    paused for some time begin when the pause ends. A TIME without an offset is in the time zone of the entry, or of the
    file. The state store supplies last runs, pauses, runtime entries and the first-seen times of intervals without an
    anchor; without it, such an interval counts from TIME.
    """
    loaded = sources.load(sources.find(config_file, app).path, app=app)
    print_refused(loaded.refused)
    in_force = EntriesInForce(loaded.entries, _NO_PAUSES, {}) if offline else ask_store(loaded, config_file, app)
    entries = in_force.entries if entry is None else (named(entry, in_force.entries),)
    entries = tuple(each for each in entries if has_tags(each, tags))
    timezone = loaded.settings.timezone if entry is None or not entries else entries[0].timezone
    now_ms = SystemClock().now_ms()
    after_ms = read_moment(since, option="--from", timezone=timezone, base_ms=now_ms, now_ms=now_ms)
    _, pauses, states, waiting = in_force
    runs = list(islice(planned_runs(entries, states, after_ms, now_ms, pauses, waiting=waiting), count))
    if as_json:
        print_json([facts(run) for run in runs])
    elif runs:
        _print(runs)
        unseen = [run.entry for run in runs if run.entry.name not in in_force.states]
        for line in caveats(unseen, "now" if after_ms == now_ms else since):
            print_line(line)
        if paused := sorted(_paused(entries, in_force.pauses)):
            more = f" and {len(paused) - _PAUSED_SHOWN} more" if paused[_PAUSED_SHOWN:] else ""
            print_line(f"note: paused: {', '.join(paused[:_PAUSED_SHOWN])}{more}")
    else:
        print_line(_why_none(entries, in_force.pauses))


def planned_runs(
    entries: Sequence[Entry],
    states: Mapping[str, EntryState],
    after_ms: int,
    now_ms: int,
    pauses: Mapping[str, Pause] = _NO_PAUSES,
    *,
    waiting: Mapping[str, int] = NOTHING_WAITS,
) -> Iterator[Upcoming]:
    """The runs to come; from another time than now as if everything up to then had been sent.

    Those of a paused entry begin when its pause ends, if it does so by itself.
    """

    def state_of(entry: Entry) -> EntryState:
        state, pause = states.get(entry.name), pauses.get(entry.name)
        if pause is not None:
            state = _resumed(state or new_state(now_ms), pause, now_ms)
        if state is None or after_ms != now_ms:
            state = state_at(entry, state, after_ms, now_ms)
        return state if pause is None else _resumed(state, pause, now_ms)

    going_on = [each for each in entries if each.name not in pauses or pauses[each.name].until_ms is not None]
    held = {name: ms for name, ms in waiting.items() if name not in pauses} if after_ms == now_ms else NOTHING_WAITS
    return all_upcoming(going_on, after_ms, state_of=state_of, on_error=_say_error, waiting=held)


def _resumed(state: EntryState, pause: Pause, now_ms: int) -> EntryState:
    """The state of an entry when its pause ends: nothing that was due before is made."""
    return state._replace(last_due_ms=max(state.last_due_ms, pause.until_ms or 0, now_ms))


def _say_error(entry: Entry, error: Exception) -> None:
    print_line(f"! {entry.name}: error: {str(error) or type(error).__name__}", err=True)


def ask_store(loaded: Config, config_file: str | None, app: str | None) -> EntriesInForce:
    """The entries in force, with the pauses and the states that the store has; those of the files if it is away."""
    try:
        with installation(config_file, app, timeout_ms=PATIENCE_MS) as place:
            with joint_reads() as read:
                merged, members = read(place.schedule, loaded, as_if_resumed=True), read(place.fleet)
            schedule, now_ms = merged.result(), SystemClock().now_ms()
            entries = tuple(schedule.entries)
            states = place.states(entries, now_ms)
            waiting = place.waiting(entries, states, members.result(), now_ms)
    except StoreError as error:
        print_line(f"note: from the files only, without the state store: {error}", err=True)
        return EntriesInForce(loaded.entries, _NO_PAUSES, {})
    seen = {entry.name: state for entry, state in zip(entries, states, strict=True) if state is not None}
    return EntriesInForce(entries, {name: read_pause(raw) for name, raw in schedule.pauses.items()}, seen, waiting)


def named(name: str, entries: Iterable[Entry]) -> Entry:
    """The entry of that name; raises click.UsageError that names the near ones."""
    names = {entry.name: entry for entry in entries}
    if name not in names:
        raise no_entry(name, names)
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


def _paused(entries: Sequence[Entry], pauses: Mapping[str, Pause]) -> Iterator[str]:
    """The names of the paused entries, with the ends of pauses that end by themselves."""
    for entry in entries:
        if (pause := pauses.get(entry.name)) is not None:
            until = "" if pause.until_ms is None else f" until {moment_text(pause.until_ms, entry.timezone)}"
            yield f"{entry.name}{until}"


def _why_none(entries: Sequence[Entry], pauses: Mapping[str, Pause]) -> str:
    if not entries:
        return "There are no entries."
    if all(entry.name in pauses for entry in entries):
        return "Paused."
    if not any(entry.policies.enabled for entry in entries):
        return "Not enabled."
    return "No run is left."
