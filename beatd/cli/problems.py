"""Health problems of an installation, each in one line: since when, and what to do.

Health means that runs are sent. A problem that blocks them makes ``beatd status`` and ``/readyz`` fail; any other is a
warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from beatd.beat.shard_assignment import REMEDY, SKEW_MS, why_aside
from beatd.cli.output import plural
from beatd.client.outcomes import failing_text
from beatd.store.daemon_registry import LATE_MS, Member, Status
from beatd.timestamps import span_text, utc_text

if TYPE_CHECKING:
    from beatd.cli.status import Overview

STUCK_MS = 20_000
"""A loop without progress for longer than this is a problem."""
UNREAD_MS = 15_000
"""Runtime entries that were not read for longer than this are a problem."""
HELD_SHOWN = FAILING_SHOWN = 10
"""Entries that are held back, that fail, and that are overdue: so many of each are shown one by one."""


class Problem(NamedTuple):
    """One problem as a sentence. ``blocks``: it keeps runs from being sent."""

    text: str
    blocks: bool = False


def problems(seen: Overview) -> Iterator[Problem]:
    """The problems of an installation, blocking ones first."""
    found = [Problem(f"state store {seen.place}: {text}", blocks=True) for text in seen.refuses]
    if not seen.refuses:  # else no daemon can write its heartbeat: nobody knows which are alive
        found += [*_leadership(seen), *_daemons(seen)]
    found += [*map(Problem, seen.foreign_keys), *_held_back(seen), *_failing(seen), *_undelivered(seen)]
    found += [Problem(f"state store {seen.place}: {text}") for text in seen.warnings]
    yield from sorted(found, key=lambda one: not one.blocks)


def _leadership(seen: Overview) -> Iterator[Problem]:
    alive = {one.status.id for one in seen.alive}
    if not alive:
        yield Problem("no daemon is alive; start one: beatd run", blocks=True)
    for shard, reason in seen.fleet.away.items():
        yield Problem(f"the node of shard {shard} does not answer, and its runs wait: {reason}", blocks=True)
    led = seen.fleet.leases.keys() | seen.fleet.away.keys()
    free = [shard for shard in range(len(seen.outboxes)) if shard not in led]
    if alive and free:
        yield Problem(
            "nobody leads" if len(free) == len(seen.outboxes) else f"nobody leads {shards(free)}", blocks=True
        )
    for shard, holder in seen.fleet.leases.items():
        if holder.is_foreign:
            key = seen.lease_keys[shard]
            text = f"nobody can lead shard {shard}: the key {key} does not hold a lease of beatd; delete the key"
            yield Problem(text, blocks=True)
        elif alive and holder.daemon_id not in alive:
            left = span_text(-(-max(holder.left_ms, 0) // 1000) * 1000)
            text = f"shard {shard} is led by {holder.daemon_id}, which is gone; a standby takes over within {left}"
            yield Problem(text, blocks=True)


def _daemons(seen: Overview) -> Iterator[Problem]:
    statuses = [one.status for one in seen.alive]
    digests = {each.digest for each in statuses}
    if len(digests) > 1:
        yield Problem(f"the daemons have {len(digests)} different schedules: {REMEDY}; then run beatd reload")
    for one in seen.fleet.daemons.values():
        if not one.alive:
            yield Problem(f"{one.status.id} is gone: its last heartbeat was {span_text(one.age_ms)} ago")
    for one in seen.alive:
        if why := why_aside(one.status, statuses):
            yield Problem(f"{one.status.id} is not eligible to lead: {why}")
        if seen.led_by(one.status.id):
            yield from _blocked_runs(one, seen)
        yield from _warnings(one.status)


def _blocked_runs(one: Member, seen: Overview) -> Iterator[Problem]:
    """Report a leader whose runs are not sent, or late."""
    each = one.status
    late = f"; runs are {span_text(each.late_ms)} late" if each.late_ms > LATE_MS else ""
    if each.problem:
        since = utc_text(seen.fleet.now_ms - one.age_ms - each.problem_ms)
        text = f"{each.id}: no run is sent since {since}: {each.problem}{late}; it resumes by itself once that is fixed"
        yield Problem(text, blocks=max(each.problem_ms, each.late_ms) > LATE_MS)
    elif late:
        since = utc_text(seen.fleet.now_ms - one.age_ms - each.late_ms)
        yield Problem(f"{each.id}: no run is sent in time since {since}{late}; see its log", blocks=True)


def _warnings(each: Status) -> Iterator[Problem]:
    """Warnings about one daemon, which block no run or not yet."""
    if each.config == "broken":
        more = f" (and {plural(each.more_file_faults, 'error')} more)" if each.more_file_faults else ""
        faults = "; ".join(each.file_faults) + more
        told = f": {faults}" if faults else ""
        yield Problem(f"{each.id}: its files have errors; it keeps the last valid schedule; run beatd check{told}")
    for fault in each.calendar_faults:
        yield Problem(f"{each.id}: {fault}")
    if each.task_faults:
        more = f" (and {each.more_task_faults:,} more)" if each.more_task_faults else ""
        yield Problem(f"{each.id}: {'; '.join(each.task_faults)}{more}; run beatd check")
    if each.faults:
        more = f" and {each.faults - len(each.faulty):,} more" if each.faults > len(each.faulty) else ""
        wrong = f"{plural(each.faults, 'runtime entry')} not in force: {', '.join(each.faulty)}{more}"
        yield Problem(f"{each.id}: {wrong}; see beatd list")
    if each.slow:
        yield Problem(f"{each.id}: the state store answers slowly, and runs are late: {each.slow}")
    if each.clock_offset_ms is not None and abs(each.clock_offset_ms) > SKEW_MS:
        ahead = "ahead of" if each.clock_offset_ms > 0 else "behind"
        yield Problem(f"{each.id}: its clock is {span_text(abs(each.clock_offset_ms))} {ahead} the state store's")
    if each.read_ms_ago is not None and each.read_ms_ago > UNREAD_MS:
        ago = span_text(each.read_ms_ago)
        yield Problem(f"{each.id}: it has not read runtime entries for {ago}; see its log")
    if each.turned_ms_ago is not None and each.turned_ms_ago > STUCK_MS:
        yield Problem(f"{each.id}: its loop has made no progress for {span_text(each.turned_ms_ago)}; see its log")


def _held_back(seen: Overview) -> Iterator[Problem]:
    for name, held in islice(sorted(seen.held.items()), HELD_SHOWN):
        again = f"next try at {utc_text(held.again_ms)}"
        yield Problem(f"{name} is held back since {utc_text(held.since_ms)}: {held.reason}; {again}")
    if seen.held_count > HELD_SHOWN:
        yield Problem(f"and {plural(seen.held_count - HELD_SHOWN, 'entry')} more held back; see beatd list --held")


def _failing(seen: Overview) -> Iterator[Problem]:
    """Report entries whose last runs failed, and those of which a run is overdue or takes too long."""
    for name, one in islice(seen.failing.items(), FAILING_SHOWN):
        yield Problem(failing_text(name, one.since_ms, one.failures, one.error))
    if len(seen.failing) > FAILING_SHOWN:
        yield Problem(f"and {plural(len(seen.failing) - FAILING_SHOWN, 'entry')} more failing; see beatd list --failed")
    for late, is_late, advice in (
        (seen.overdue, "is overdue", ", and whether workers run"),
        (seen.too_long, "has a run that takes too long", "; beatd stop-run RUN ends it"),
    ):
        ordered = sorted(late.items(), key=lambda item: (item[1], item[0]))
        for name, since_ms in ordered[:FAILING_SHOWN]:
            yield Problem(f"entry {name} {is_late} since {utc_text(since_ms)}; see beatd describe {name}{advice}")
        if len(ordered) > FAILING_SHOWN:
            what = f"{plural(len(ordered) - FAILING_SHOWN, 'entry')} more"
            yield Problem(f"and {what} that {is_late.replace('has', 'have', 1)}; see beatd list --overdue")


def _undelivered(seen: Overview) -> Iterator[Problem]:
    """Report targets that get no notifications."""
    for name, one in islice(seen.undelivered.items(), FAILING_SHOWN):
        kind, _, host = name.partition(":")
        what, advice = f"to {name}", f"; try it: beatd notify test {name}"
        if host:
            what, advice = (f"as {kind.replace('_', '-')}s to {host}", "; see the leader's log")
        lost = f", {plural(one.given_up, 'notice')} given up" if one.given_up else ""
        tries = f"{plural(one.attempts, 'attempt')}{lost}"
        text = f"no notification {what} is delivered since {utc_text(one.since_ms)} ({tries}): {one.error}{advice}"
        yield Problem(text)
    if len(seen.undelivered) > FAILING_SHOWN:
        yield Problem(
            f"and {len(seen.undelivered) - FAILING_SHOWN:,} more targets get no notifications; see the leader's log"
        )


def shards(numbers: list[int]) -> str:
    """``shard 3``, ``shards 1, 2``."""
    return f"shard{'s' if numbers[1:] else ''} {', '.join(map(str, numbers))}"
