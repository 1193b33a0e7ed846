"""Entries for programs: the documents of ``beatd list --json``, ``beatd describe --json`` and of the status page."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from beatd.client.history import counts, facts, held_facts, pause_facts
from beatd.client.outcomes import (
    LAST,
    EntryOutcome,
    RunDetail,
    Statistics,
    bounds_facts,
    detail_facts,
    outcome_facts,
    statistics,
)
from beatd.config.writer import Unwritable, entry_table
from beatd.model import Entry, EntryState
from beatd.planning.notation import schedule_phrase
from beatd.planning.overdue import Bounds
from beatd.planning.policies import runtime_ms
from beatd.planning.preview import Outlook, Upcoming
from beatd.planning.timeline import next_due_ms, timeline
from beatd.redaction import redacted
from beatd.store.entry_state import Running
from beatd.store.history import Record
from beatd.store.history_reader import Histories, Totals
from beatd.store.keys import Keys, shard_of
from beatd.store.runtime_entries import Pause
from beatd.store.runtime_entries import place as runtime_place
from beatd.timestamps import iso_ms

if TYPE_CHECKING:
    import redis

NEXT = 5
"""Runs to come that a description has."""


class Description(NamedTuple):
    """An entry in force with its state, and its runs that are remembered, the newest first."""

    look: Outlook
    pause: Pause | None
    outcome: EntryOutcome
    runs: Sequence[RunDetail]
    following: Sequence[Upcoming]
    totals: Totals
    bounds: Bounds

    @property
    def entry(self) -> Entry:
        return self.look.entry

    @property
    def statistics(self) -> Statistics:
        """Durations and lateness of its runs that are remembered."""
        return statistics(run.record for run in self.runs)

    @property
    def state(self) -> str:
        """The state of the entry in words."""
        if self.pause is not None:
            return self.pause.note
        return self.look.note or "in force"

    @property
    def table(self) -> dict[str, Any] | None:
        """Its table as in a file, with secrets hidden; None if TOML cannot carry it."""
        try:
            table: dict[str, Any] = redacted(entry_table(self.entry, ""))
        except Unwritable:
            return None
        return table


def entry_facts(look: Outlook, outcome: EntryOutcome, pause: Pause | None) -> dict[str, Any]:
    """An entry of a list. Arguments are left out: they may be nobody's business."""
    entry = look.entry
    return {
        "name": entry.name,
        "task": entry.task,
        "schedule": entry.schedule.notation,
        "schedule_text": schedule_phrase(entry.schedule).text,
        "timezone": entry.timezone,
        "source": kind_of(entry),
        "place": entry.source,
        "enabled": entry.policies.enabled,
        "tags": list(entry.policies.tags),
        "paused": pause and pause_facts(pause),
        "runs": outcome.runs,
        "last_due_at": _iso(look.last_due_ms),
        "next_due_at": _iso(look.next_due_ms),
        "next_fires_at": _iso(look.next_fire_ms),
        "note": look.note or None,
        "held_back": look.held and held_facts(look.held),
        **outcome_facts(outcome),
        "statistics": statistics(outcome.records)._asdict(),
    }


def description_facts(seen: Description) -> dict[str, Any]:
    """All that is known of one entry; secrets in its table are hidden."""
    return {
        **entry_facts(seen.look, seen.outcome, seen.pause),
        "table": seen.table,
        "next": [upcoming_facts(run) for run in seen.following],
        "runs": [{**facts(run.record), **detail_facts(run)} for run in seen.runs[:LAST]],
        "totals": counts(seen.totals),
        "statistics": {**seen.statistics._asdict(), **bounds_facts(seen.bounds)},
    }


def upcoming_facts(run: Upcoming) -> dict[str, Any]:
    """A run to come, for programs."""
    return {"due_at": iso_ms(run.due_ms), "fires_at": iso_ms(run.fire_ms), "note": run.note or None}


def kind_of(entry: Entry) -> str:
    """The source of an entry as a word; only an entry of a file has a line number."""
    if entry.source == runtime_place(entry.name):
        return "runtime"
    return "file" if entry.source.rpartition(":")[2].isdigit() else "app"


def has_tags(entry: Entry, tags: Sequence[str]) -> bool:
    """True if the entry has all of these tags."""
    return all(tag in entry.policies.tags for tag in tags)


def is_of(entry: Entry, source: str | None) -> bool:
    """True if the entry comes from there: a kind of source, or the name of a file or module."""
    if source is None or source == kind_of(entry):
        return True
    named = entry.source.rpartition(":")[0] or entry.source
    return named == source or named.endswith(f"/{source}")


def waiting_runs(
    client: redis.Redis,
    keys: Keys,
    entries: Sequence[Entry],
    states: Sequence[EntryState | None],
    *,
    shards: int,
    led: Container[int],
    now_ms: int,
) -> dict[str, int]:
    """Due times (ms) of the runs that a leader holds back until the run before has ended, by entry.

    ``led`` are the shards that somebody leads: else such a run counts as missed. Of most schedules nothing is read.
    """
    by_shard: dict[int, list[tuple[Entry, EntryState]]] = {}
    for entry, state in zip(entries, states, strict=True):
        if state is not None and _may_wait(entry, state, now_ms) and (shard := shard_of(entry.name, shards)) in led:
            by_shard.setdefault(shard, []).append((entry, state))
    return {
        name: due_ms
        for shard, some in by_shard.items()
        for name, due_ms in _waiting_in(Running(client, keys, shard=shard), Histories(client, keys), some, now_ms)
    }


def _waiting_in(
    running: Running, histories: Histories, some: Sequence[tuple[Entry, EntryState]], now_ms: int
) -> Iterator[tuple[str, int]]:
    unfinished = running.unfinished({entry.name: runtime_ms(entry) for entry, _ in some}, now_ms=now_ms)
    records: dict[str, list[Record]] = {name: [] for name in unfinished}
    for record in histories.of(list(unfinished)):
        records[record.entry].append(record)
    for entry, state in some:
        if entry.name in unfinished:
            due_ms = waiting_run(entry, state, records[entry.name], now_ms)
            if due_ms is not None:
                yield entry.name, due_ms


def waiting_run(entry: Entry, state: EntryState, records: Sequence[Record], now_ms: int) -> int | None:
    """Due time (ms) of the run that waits for the one before it to end: the first that was not passed over."""
    if entry.policies.overlap != "queue_one":
        return None
    passed = [line.at_ms - 1 for line in records if line.kind == "missed" and line.due_ms >= state.last_due_ms]
    due_ms = next_due_ms(timeline(entry, state.first_seen_ms), max([state.last_due_ms, *passed]))
    return due_ms if due_ms is not None and due_ms <= now_ms else None


def _may_wait(entry: Entry, state: EntryState, now_ms: int) -> bool:
    try:
        return entry.policies.enabled and waiting_run(entry, state, (), now_ms) is not None
    except Exception:  # noqa: BLE001 - told where its next run is computed
        return False


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso_ms(ms)
