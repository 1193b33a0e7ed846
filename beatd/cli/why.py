"""``beatd why``: whether a run of an entry was or is due at a time, by which rule, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import click

from beatd import sources
from beatd.cli.completion import entry_names
from beatd.cli.installation import Installation, installation
from beatd.cli.output import plural, print_colored, print_json, print_line, print_table, read_moment
from beatd.client.entries import waiting_run
from beatd.client.history import facts, held_facts, pause_facts
from beatd.client.moments import local_text, local_time, moment_text
from beatd.client.outcomes import OutcomeReader, RunDetail
from beatd.client.workers import WorkerClient
from beatd.clock import SystemClock
from beatd.exceptions import BeatdError
from beatd.model import Entry, EntryState, Policies, run_id
from beatd.planning.policies import runtime_ms
from beatd.planning.reason import Reasons, Rule, reasons
from beatd.state_store import running_store
from beatd.store.entry_state import Running, UnfinishedRun
from beatd.store.held_back import HeldBackEntry
from beatd.store.history import Record
from beatd.store.history_reader import Histories
from beatd.store.keys import shard_of
from beatd.store.lease import TermRecord, read_terms
from beatd.store.pipeline import joint_reads
from beatd.store.runtime_entries import Pause
from beatd.timestamps import iso_ms, span_text, utc_text

_PAST = re.compile(r"-\d\S*")
_MINUTES = re.compile(r"(\d{4}-\d\d-\d\d[T ])?\d\d?:\d\d([+-]\d\d:?\d\d|Z)?")
_SECONDS = re.compile(r"(\d{4}-\d\d-\d\d[T ])?\d\d?:\d\d:\d\d([+-]\d\d:?\d\d|Z)?")


class Circumstances(NamedTuple):
    """Facts of the store about an entry and a run: state, pause, why it is held back, its line of history."""

    state: EntryState | None
    pause: Pause | None
    held: HeldBackEntry | None
    records: tuple[Record, ...]
    terms: Sequence[TermRecord] = ()
    """Terms of the entry's shard, the newest first."""
    live: Live | None = None
    unfinished: UnfinishedRun | None = None
    """The last run of an entry that minds overlaps, if it has not ended."""
    blocker: RunDetail | None = None
    """The run that had not ended when this one was skipped."""


class Live(NamedTuple):
    """Facts of the moment: the length of the entry's queue, or why that is not known."""

    queue: str
    depth: int | None
    problem: str = ""


_SKIPPED = {
    "blackout": "a blackout covered it",
    "expired": "its message had expired",
    "overlap": 'the run before had not ended, and overlap = "skip"',
    "queue_full": "its queue held max_queue_depth messages or more",
    "unsendable": "its message could not be made",
}

_NOW = {
    "overlap now": "the run before has not ended",
    "queue now": "its queue is full",
    "first seen": "the entry was not in force",
}
_OF_SCHEDULE = frozenset({"scheduled", "skipped", "backfilled"})
"""Kinds of records of runs of the schedule."""


class _WithDistance(click.Command):
    """A command whose last argument may be a distance into the past: -2h is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" not in args:
            distances = [word for word in args if _PAST.fullmatch(word)]
            args = [word for word in args if word not in distances] + (["--", *distances] if distances else [])
        return super().parse_args(ctx, args)


@click.command("why", cls=_WithDistance)
@click.argument("entry", shell_complete=entry_names)
@click.argument("time")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the entries that this app registers.")
@click.option("--connect", is_flag=True, help="Also ask the broker for the length of the entry's queue.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def why(*, entry: str, time: str, config_file: str | None, app: str | None, connect: bool, as_json: bool) -> None:
    """Explain why ENTRY did, did not, or will run at TIME, rule by rule.

    TIME is "2026-03-29 07:30", 07:30 (today), a date, "now", or a distance such as -2h; without an offset in the time
    zone of the entry. A minute without seconds means any run in that minute, a date any on that day.
    """
    now_ms = SystemClock().now_ms()
    with installation(config_file, app) as place:
        loaded = sources.load(place.path, app=app)
        with joint_reads() as read:
            merged, members = read(place.schedule, loaded, as_if_resumed=True), read(place.fleet)
        schedule, fleet = merged.result(), members.result()
        definition = schedule.entry(entry)
        at_ms = read_moment(time, option="TIME", timezone=definition.timezone, base_ms=now_ms, now_ms=now_ms)
        histories, shard = Histories(place.client, place.keys), shard_of(entry, place.shards(fleet))
        running = Running(place.client, place.keys, shard=shard)
        minds = definition.policies.overlap != "allow"
        with joint_reads() as read:
            states, held = read(place.states, [definition], now_ms), read(place.held_back, [entry], fleet)
            lines = read(lambda: histories.completed(list(histories.of([entry]))))
            terms = read(read_terms, place.client, place.keys, shard)
            unfinished = read(running.unfinished, {entry: runtime_ms(definition)} if minds else {}, now_ms=now_ms)
            live = read(_ask, place, definition) if connect else None
        [state], records = states.result(), tuple(lines.result())
        waiting_ms = None
        if state is not None and entry in unfinished.result() and shard in fleet.leases:
            waiting_ms = waiting_run(definition, state, records, now_ms)
        span = span_ms(time)
        answer = reasons(definition, state, at_ms, now_ms, span_ms=span, waiting_ms=waiting_ms)
        record = record_of(records, answer.on_line_ms, at_ms, at_ms + span)
        if record is not None:  # whatever the rules of now say
            answer = answer._replace(due_ms=answer.on_line_ms if record.kind == "missed" else record.due_ms)
        outcomes = OutcomeReader(place.client, place.keys, histories)
        blocker = next(iter(outcomes.detailed(blockers(records, record), now_ms)), None)
    seen = Circumstances(
        state,
        schedule.pause_of(entry),
        held.result().get(entry),
        records,
        terms.result(),
        live.result() if live else None,
        unfinished.result().get(entry),
        blocker,
    )
    rules = [*answer.rules, *_store_rules(definition, seen, answer, record, now_ms)]
    verdict = _verdict(answer, rules, record, now_ms)
    if as_json:
        print_json(_facts(definition, answer, rules=rules, verdict=verdict, seen=seen, record=record))
    else:
        is_fine = record.sent if record is not None else all(rule.ok is not False for rule in rules)
        _print(definition, answer, rules, verdict, is_fine=is_fine)


def _ask(place: Installation, entry: Entry) -> Live:
    """Ask the broker for what it says now, as a daemon does before it sends."""
    settings = place.head.settings
    queue = entry.options.queue or settings.broker.default_queue
    store_url = running_store(settings)
    try:
        with WorkerClient(settings.broker.url or store_url, store_url) as client:
            lengths = client.lengths([queue])
    except BeatdError as error:
        return Live(queue, None, str(error))
    return Live(queue, lengths[queue].messages)


def span_ms(written: str) -> int:
    """The length of the moment that was written: a day, a minute, a second, or a millisecond."""
    text = written.strip()
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return 86_400_000
    if _MINUTES.fullmatch(text) or text == "now" or text[:1] in {"+", "-"}:
        return 60_000
    return 1_000 if _SECONDS.fullmatch(text) else 1


def record_of(records: Sequence[Record], due_ms: int | None, from_ms: int, before_ms: int) -> Record | None:
    """The line of history of the run that was due then, or of the time without a leader that it fell into.

    Without a due time that of a run in the span: the entry may have had another schedule then.
    """
    runs = [line for line in records if line.kind in _OF_SCHEDULE]
    if due_ms is None:
        return next((line for line in runs if from_ms <= line.due_ms < before_ms), None)
    own = [line for line in runs if line.due_ms == due_ms]
    gaps = [line for line in records if line.kind == "missed" and line.due_ms < due_ms < line.at_ms]
    return next(iter([*own, *gaps]), None)


def blockers(records: Sequence[Record], record: Record | None) -> list[Record]:
    """The run that kept a skipped one from being sent because it had not ended: the last that was sent before."""
    if record is None or record.reason != "overlap":
        return []
    return [one for one in records if one.sent and one.at_ms <= record.at_ms][:1]


def _store_rules(
    entry: Entry, seen: Circumstances, answer: Reasons, record: Record | None, now_ms: int
) -> Iterator[Rule]:
    if seen.pause is not None:
        after_begin = answer.due_ms is None or answer.due_ms >= seen.pause.since_ms
        before_end = answer.due_ms is None or seen.pause.until_ms is None or answer.due_ms < seen.pause.until_ms
        yield Rule("pause", not (after_begin and before_end and record is None), seen.pause.note)
    is_open = record is None and answer.due_ms is not None and answer.due_ms <= now_ms
    if seen.state is not None and answer.due_ms is not None:
        is_open = is_open and answer.due_ms > seen.state.last_due_ms
    begun_ms = now_ms if seen.state is None else seen.state.first_seen_ms
    if seen.held is not None and record is None:
        since, again = utc_text(seen.held.since_ms), utc_text(seen.held.again_ms)
        yield Rule("held back", _passes(is_open, True), f"since {since}: {seen.held.reason}; next try at {again}")
    if record is None and (answer.due or seen.live) and entry.policies.overlap != "allow":
        yield _overlap_rule(entry.policies, seen.unfinished, is_open=is_open)
    if seen.live is not None:
        yield _queue_rule(entry.policies, seen.live, is_open=is_open)
    if record is not None:
        if record.kind != "missed":
            yield _term_rule(term_of(seen.terms, record))
        yield Rule("history", record.sent, _record_text(record, seen.blocker))
    elif answer.due_ms is not None and answer.due_ms <= begun_ms:
        yield Rule("first seen", False, _first_seen(seen.state))
    elif answer.due_ms is not None and seen.state is not None and answer.due_ms <= seen.state.last_due_ms:
        known = f"the history of {len(seen.records)} records begins later" if seen.records else "the history is empty"
        yield Rule("history", None, f"no record of this run: {known}, or the entry was not in force then")


def _first_seen(state: EntryState | None) -> str:
    if state is None:
        return "no daemon has seen the entry yet"
    return f"the entry is in force, or has this schedule, since {utc_text(state.first_seen_ms)}"


def _overlap_rule(policies: Policies, unfinished: UnfinishedRun | None, *, is_open: bool) -> Rule:
    """The rule of the moment. It prevents a run only if it ``is_open``: due, and neither sent nor skipped yet."""
    if unfinished is None:
        return Rule("overlap now", _passes(is_open, False), "the run before has ended")
    then = "waits for that" if policies.overlap == "queue_one" else "is skipped"
    text = f"the run before, {unfinished.run_id[:8]}, has not ended: one that is due now {then}"
    bound = f"it counts as ended at {utc_text(unfinished.until_ms)} at the latest (max_runtime)"
    return Rule("overlap now", _passes(is_open, True), f"{text}; {bound}")


def _queue_rule(policies: Policies, live: Live, *, is_open: bool) -> Rule:
    """The rule of the moment; likewise."""
    if live.depth is None:
        return Rule("queue now", None, f"the length of {live.queue} is not known: {live.problem}")
    most = policies.max_queue_depth
    limit = "no limit" if most is None else f"at most {most:,}"
    is_full = most is not None and live.depth >= most
    return Rule("queue now", _passes(is_open, is_full), f"{plural(live.depth, 'message')} in {live.queue}, {limit}")


def _passes(is_open: bool, blocks: bool) -> bool | None:
    return not blocks if is_open else None


def term_of(terms: Sequence[TermRecord], record: Record) -> TermRecord | None:
    """The term in which a run was claimed: the last that had begun then, as each ends those before it."""
    return next((term for term in terms if term.began_ms <= record.at_ms), None)


def _term_rule(term: TermRecord | None) -> Rule:
    if term is None:
        return Rule("term", None, "the term that claimed it is not remembered")
    began = f"which began at {utc_text(term.began_ms)}"
    return Rule("term", None, f"claimed by {term.daemon_id} in term {term.token} of shard {term.shard}, {began}")


def _record_text(record: Record, blocker: RunDetail | None) -> str:
    """A line of history in words."""
    if record.kind == "missed":
        gap = f"from {utc_text(record.due_ms)} to {utc_text(record.at_ms)}"
        return f"missed: nobody led {gap}, and catch-up did not make it"
    if record.kind == "skipped":
        reason = _SKIPPED.get(record.reason or "", record.reason)
        return f"skipped at {utc_text(record.at_ms)}: {reason}{_blocked_by(blocker)}"
    ended = record.outcome or "no outcome is known"
    took = "" if record.runtime_ms is None else f" after {span_text(record.runtime_ms)}"
    reason = f": {record.reason}" if record.reason else ""
    late = f", {span_text(record.late_ms)} late" if record.late_ms and record.kind == "scheduled" else ""
    return f"{record.kind}, sent at {utc_text(record.at_ms)}{late}; {ended}{took}{reason}"


def _blocked_by(blocker: RunDetail | None) -> str:
    if blocker is None:
        return ""
    sent = f"run {(blocker.record.run_id or '')[:8]}, sent at {utc_text(blocker.record.at_ms)}"
    is_over = blocker.word not in ("queued", "running")
    ended = f", ended at {utc_text(blocker.last.end_ms)}" if is_over and blocker.last else f", is {blocker.word}"
    return f"; {sent}{ended}"


def _verdict(answer: Reasons, rules: list[Rule], record: Record | None, now_ms: int) -> str:
    """The answer in one sentence."""
    if record is not None:
        if record.sent:
            return "It ran: a message was sent."
        if record.kind == "missed":
            return "It was due and was missed: nobody led."
        return f"It was due and was skipped: {_SKIPPED.get(record.reason or '', record.reason)}."
    cause = next((rule for rule in rules if rule.ok is False), None)
    if not answer.due:
        return f"No run is due then: {cause.name}." if cause else "No run is due then."
    is_past = answer.due_ms is not None and answer.due_ms <= now_ms
    if cause is not None:
        why_not = _NOW.get(cause.name, cause.name)
        return f"A run {'was due then and has not been' if is_past else 'is due then and is not'} sent: {why_not}."
    if is_past:
        return "A run was due then."
    if any(rule.name == "held back" for rule in rules):
        return "A run is due then; the entry is held back now."
    return "A run is due then, and will be sent."


def _print(entry: Entry, answer: Reasons, rules: list[Rule], verdict: str, *, is_fine: bool) -> None:
    print_colored(verdict, "green" if is_fine else "red")
    if answer.due_ms is not None:
        print_line(f"Due at {_local(entry, answer.due_ms)}, run id {run_id(entry.name, answer.due_ms)}.")
    click.echo()
    marks = {True: "yes", False: "NO", None: ""}
    rows = [(rule.name, marks[rule.ok], local_text(rule.text, entry.timezone)) for rule in rules]
    print_table(["rule", "passes", "detail"], rows)
    click.echo()
    if answer.before_ms is not None:
        print_line(f"The run before was due at {_local(entry, answer.before_ms)}.")
    if answer.after_ms is not None:
        print_line(f"The run after it is due at {_local(entry, answer.after_ms)}.")


def _local(entry: Entry, ms: int) -> str:
    return f"{local_time(ms, entry.timezone):%a} {moment_text(ms, entry.timezone)}"


def _facts(
    entry: Entry, answer: Reasons, *, rules: list[Rule], verdict: str, seen: Circumstances, record: Record | None
) -> dict[str, Any]:
    due_ms = answer.due_ms
    return {
        "entry": entry.name,
        "due": answer.due,
        "sent": record.sent if record is not None else answer.due and all(rule.ok is not False for rule in rules),
        "due_at": None if due_ms is None else iso_ms(due_ms),
        "run_id": None if due_ms is None else run_id(entry.name, due_ms),
        "verdict": verdict,
        "rules": [{"rule": rule.name, "passes": rule.ok, "detail": rule.text} for rule in rules],
        "before": None if answer.before_ms is None else iso_ms(answer.before_ms),
        "after": None if answer.after_ms is None else iso_ms(answer.after_ms),
        "pause": seen.pause and pause_facts(seen.pause),
        "held_back": seen.held and held_facts(seen.held),
        "term": None if record is None or record.kind == "missed" else _term_facts(term_of(seen.terms, record)),
        "unfinished": seen.unfinished and _unfinished_facts(seen.unfinished),
        "live": seen.live and {"is_unfinished": seen.unfinished is not None, **seen.live._asdict()},
        "history": record and facts(record),
    }


def _unfinished_facts(run: UnfinishedRun) -> dict[str, Any]:
    return {"run_id": run.run_id, "until": iso_ms(run.until_ms)}


def _term_facts(term: TermRecord | None) -> dict[str, Any] | None:
    if term is None:
        return None
    return {
        "shard": term.shard,
        "term": term.token,
        "daemon": term.daemon_id,
        "began_at": iso_ms(term.began_ms),
    }
