"""Reasons: why an entry runs, or does not, at a moment, rule by rule. The answer is that of the preview.

A run is *due* if it is one of the timeline's (schedule, start, end) of an entry that is enabled and has runs left, from
the entry's resume point on. It is *sent* if no policy keeps it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from itertools import takewhile
from typing import NamedTuple

from beatd.model import Entry, EntryState
from beatd.planning.catchup import ResumePoints
from beatd.planning.phrase import MONTHS, WEEKDAYS, in_words
from beatd.planning.preview import Upcoming, new_state, planned_run, upcoming
from beatd.planning.timeline import next_due_ms, timeline
from beatd.schedules import Schedule, dst_note, duration_text, is_chain, latest_ms, zone
from beatd.schedules.cron import Cron
from beatd.schedules.schedule import Union
from beatd.timestamps import from_ms, span_text, to_ms, utc_text

RUNS_WALKED = 100_000
"""Runs that are counted at most, for an entry with ``max_runs``."""


class Rule(NamedTuple):
    """One rule. ``ok``: it allows the run; ``None``: it decides nothing and is shown for information."""

    name: str
    ok: bool | None
    text: str


class Reasons(NamedTuple):
    """``due_ms`` is the run that is due in the span that was asked about, ``None`` if there is none."""

    due_ms: int | None
    sent: bool
    rules: tuple[Rule, ...]
    before_ms: int | None
    """The last due time before."""
    after_ms: int | None
    """The next due time after."""
    on_line_ms: int | None = None
    """The run of the timeline in the span, whether it is due or a rule says that it is not made."""

    @property
    def due(self) -> bool:
        """True if a run is due."""
        return self.due_ms is not None

    @property
    def cause(self) -> Rule | None:
        """The first rule that keeps the run back."""
        return next((rule for rule in self.rules if rule.ok is False), None)


def reasons(
    entry: Entry,
    state: EntryState | None,
    at_ms: int,
    now_ms: int,
    *,
    span_ms: int = 1,
    waiting_ms: int | None = None,
) -> Reasons:
    """Return whether a run of ``entry`` is due from ``at_ms`` on within ``span_ms``, and by which rules.

    ``state`` is that of the entry in the store, ``None`` if no leader has seen it. ``waiting_ms`` is when the run was
    due that waits for the one before it, if there is one.
    """
    known = state or new_state(now_ms)
    line = timeline(entry, known.first_seen_ms)
    resume_ms = ResumePoints(now_ms).of(entry, known).due_ms
    on_line_ms = _due_in(line, known, resume_ms, at_ms, at_ms + span_ms)
    shown_ms = at_ms if on_line_ms is None else on_line_ms
    rules = [*_schedule_rules(entry, line, shown_ms, on_line_ms is not None), *_bounds(entry, shown_ms)]
    run = None
    if on_line_ms is not None:
        run = planned_run(entry, line, on_line_ms, now_ms)
        rules += _resume_rules(entry, known, on_line_ms, now_ms, waiting_ms)
        told = {rule.name for rule in rules}
        rules += (rule for rule in _policy_rules(entry, run) if rule.name not in told)
    lacking = {rule.name for rule in rules if rule.ok is False}
    due_ms = on_line_ms if not lacking - _POLICIES else None
    before_ms, after_ms = _before(line, known, resume_ms, at_ms), _next(line, known, resume_ms, shown_ms)
    return Reasons(due_ms, due_ms is not None and not lacking, tuple(rules), before_ms, after_ms, on_line_ms)


_POLICIES = {"blackout", "expires"}
"""Rules by which a run is due and not sent."""


def _due_in(line: Schedule, state: EntryState, resume_ms: int | None, from_ms: int, before_ms: int) -> int | None:
    """A due time of the timeline in ``[from_ms, before_ms)``: the first, or the last if runs depend on each other."""
    last_ms = _last_of_chain(line, state, resume_ms, before_ms - 1)
    if last_ms is not None:
        return last_ms if last_ms >= from_ms and (last_ms != state.last_due_ms or state.runs) else None
    due_ms = next_due_ms(line, from_ms - 1)
    return due_ms if due_ms is not None and due_ms < before_ms else None


def _before(line: Schedule, state: EntryState, resume_ms: int | None, at_ms: int) -> int | None:
    last_ms = _last_of_chain(line, state, resume_ms, at_ms - 1)
    if last_ms is not None:
        return last_ms if last_ms != state.last_due_ms or state.runs else None
    return latest_ms(line, after_ms=min(state.first_seen_ms, at_ms - 1), until_ms=at_ms - 1)


def _next(line: Schedule, state: EntryState, resume_ms: int | None, at_ms: int) -> int | None:
    last_ms = _last_of_chain(line, state, resume_ms, at_ms)
    return next_due_ms(line, at_ms if last_ms is None else last_ms)


def _last_of_chain(line: Schedule, state: EntryState, resume_ms: int | None, until_ms: int) -> int | None:
    """If the runs of the timeline depend on each other: the last one that is known, or from when the first counts."""
    if not is_chain(line) or until_ms < state.last_due_ms:
        return None
    known_ms = resume_ms if resume_ms is not None and resume_ms <= until_ms else state.last_due_ms
    return latest_ms(line, after_ms=known_ms, until_ms=until_ms) or known_ms


def _schedule_rules(entry: Entry, line: Schedule, at_ms: int, due: bool) -> Iterator[Rule]:
    local = from_ms(at_ms).astimezone(zone(entry.timezone).info)
    yield Rule("schedule", _on_schedule(entry, line, at_ms, due), in_words(entry.schedule))
    parts = entry.schedule.parts if isinstance(entry.schedule, Union) else (entry.schedule,)
    for part in parts:
        if isinstance(part, Cron):
            yield from cron_fields(part, at_ms)
    match dst_note(entry.schedule, from_ms(at_ms)) if due else None:
        case "gap":
            text = f"the clock skips its time in {entry.timezone}; the run is at {local:%H:%M:%S} instead"
            yield Rule("clock change", None, text)
        case "overlap":
            text = f"the clock shows {local:%H:%M} twice in {entry.timezone}; fixed times run the first time only"
            yield Rule("clock change", None, text)
        case None if zone(entry.timezone).is_repeated(at_ms // 1000):
            text = f"the clock shows {local:%H:%M} twice in {entry.timezone}; fixed times run the first time only"
            yield Rule("clock change", None, text)


def _on_schedule(entry: Entry, line: Schedule, at_ms: int, due: bool) -> bool:
    """True if the schedule itself, without start and end, has the run."""
    policies = entry.policies
    if due or (policies.start is None and policies.end is None):
        return due
    inner = getattr(line, "schedule", line)
    return bool(inner.next_after_ms(at_ms - 1) == at_ms)


def cron_fields(cron: Cron, at_ms: int) -> Iterator[Rule]:
    """Each field of a cron schedule with the value that the wall clock of its zone has; for information."""
    local = from_ms(at_ms).astimezone(cron.zone.info)
    day = to_ms(local.replace(tzinfo=UTC)) // 86_400_000
    days = cron.days
    clock = (("second", cron.seconds, local.second), ("minute", cron.minutes, local.minute))
    for name, table, value in (*clock, ("hour", cron.hours, local.hour)):
        yield _field(f"{name} {value:02}", matches=table[value] == value)
    month = f"month {local.month} ({MONTHS[local.month]})"
    yield _field(month, matches=bool(days.months >> local.month & 1))
    weekday = WEEKDAYS[(local.weekday() + 1) % 7]
    yield _field(f"day {local.day}, {weekday}", matches=days.first_from(day) == day)


def _field(text: str, *, matches: bool) -> Rule:
    return Rule("field", None, f"{text}: {'matches' if matches else 'does not match'}")


def _bounds(entry: Entry, at_ms: int) -> Iterator[Rule]:
    policies = entry.policies
    if not policies.enabled:
        yield Rule("enabled", False, "enabled = false")
    if policies.start is not None:
        yield Rule("start", to_ms(policies.start) <= at_ms, f"begins at {utc_text(to_ms(policies.start))}")
    if policies.end is not None:
        yield Rule("end", at_ms <= to_ms(policies.end), f"ends at {utc_text(to_ms(policies.end))}")


def _resume_rules(entry: Entry, state: EntryState, due_ms: int, now_ms: int, waits_ms: int | None) -> Iterator[Rule]:
    """Rules of what is still to come: ``max_runs``, and runs that were missed and are passed over."""
    policies = entry.policies
    if due_ms <= state.last_due_ms or not policies.enabled:
        return
    point = ResumePoints(now_ms).of(entry, state)
    if policies.max_runs is not None:
        left = point.remaining_runs or 0
        ok = _within_max_runs(entry, state, due_ms, now_ms, left)
        yield Rule("max_runs", ok, f"{policies.max_runs} in all, {state.runs} sent so far, {left} left")
    if waits_ms is not None and waits_ms <= due_ms <= now_ms:
        if due_ms > waits_ms:
            yield _dropped_with(waits_ms)
        return
    if point.passes_over if point.due_ms is None else due_ms < point.due_ms:
        window = f" within {duration_text(policies.catch_up_window_ms)}" if policies.catch_up_window_ms else ""
        yield Rule("catch_up", False, f'missed, and not caught up: catch_up = "{policies.catch_up}"{window}')
    elif due_ms < now_ms:
        yield Rule("catch_up", True, "overdue: it leaves as soon as a daemon leads and the other rules allow it")
    skipped_by = _dropped(entry, state, due_ms, now_ms)
    if skipped_by is not None:
        yield _dropped_with(skipped_by.due_ms)


def _dropped_with(due_ms: int) -> Rule:
    return Rule("overlap", False, f'overlap = "queue_one": dropped with the run of {utc_text(due_ms)}')


def _dropped(entry: Entry, state: EntryState, due_ms: int, now_ms: int) -> Upcoming | None:
    """The overdue run that is dropped together with this run."""
    if entry.policies.overlap != "queue_one" or due_ms > now_ms:
        return None
    for run in takewhile(lambda run: run.due_ms < due_ms, upcoming(entry, state, ResumePoints(now_ms))):
        if run.decision.passed_ms is not None and run.decision.passed_ms >= due_ms:
            return run
    return None


def _within_max_runs(entry: Entry, state: EntryState, due_ms: int, now_ms: int, left: int) -> bool:
    """True unless the runs that are left are sent before."""
    sent = 0
    for number, run in enumerate(upcoming(entry, state, ResumePoints(now_ms))):
        if run.due_ms >= due_ms or number >= RUNS_WALKED:
            return True
        sent += run.skip is None
    return sent < left


def _policy_rules(entry: Entry, run: Upcoming) -> Iterator[Rule]:
    """Rules that keep a due run from being sent, as :func:`beatd.planning.policies.decide` has them."""
    policies, options, skip = entry.policies, entry.options, run.skip and run.skip.value
    if policies.blackout is not None:
        covered = skip == "blackout"
        end = f"; it ends at {utc_text(policies.blackout.end_ms(run.due_ms))}" if covered else ""
        yield Rule("blackout", not covered, f"{'covers it' if covered else 'does not cover it'}{end}")
    if options.expires is not None and skip != "blackout":
        text = "its message has expired" if skip == "expired" else "its message is not expired when it leaves"
        yield Rule("expires", skip != "expired", text)
    if policies.jitter_ms:
        late = span_text(run.fire_ms - run.due_ms)
        yield Rule("jitter", None, f"leaves {late} after it is due, at {utc_text(run.fire_ms)}")
    if policies.overlap != "allow":
        yield Rule("overlap", None, f'overlap = "{policies.overlap}": decided when it leaves')
    if policies.max_queue_depth is not None:
        yield Rule("queue depth", None, f"skipped if its queue holds {policies.max_queue_depth:,} messages or more")
