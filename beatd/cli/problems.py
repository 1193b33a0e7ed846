"""Problems of an installation, each in one line: since when, and what to do.

Health means that runs leave. A problem that keeps runs from leaving makes ``beatd status`` and ``/readyz`` fail; any
other is for people to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from beatd.beat.shard_assignment import SKEW_MS, why_aside
from beatd.cli.output import plural
from beatd.schedules import duration_text
from beatd.store.daemon_registry import LATE_MS, Member, Status
from beatd.timestamps import from_ms

if TYPE_CHECKING:
    from beatd.cli.status import Overview

STUCK_MS = 20_000
"""A loop that has not turned for so long is worth a word."""
DEAF_MS = 15_000
"""So is it that runtime entries have not been read for so long."""
HELD_SHOWN = 10
"""Entries that are held back, shown one by one."""


class Problem(NamedTuple):
    """One problem in words. ``blocks``: it keeps runs from leaving."""

    text: str
    blocks: bool = False


def problems(seen: Overview) -> Iterator[Problem]:
    """The problems of an installation, those first that keep runs from leaving."""
    found = [*_leadership(seen), *_daemons(seen), *map(Problem, seen.foreign_keys), *_held_back(seen)]
    yield from sorted(found, key=lambda one: not one.blocks)


def _leadership(seen: Overview) -> Iterator[Problem]:
    alive = {one.status.id for one in seen.alive}
    if not alive:
        yield Problem("no daemon is alive", blocks=True)
    free = [shard for shard in range(len(seen.outboxes)) if shard not in seen.roll.leases]
    if alive and free:
        yield Problem(
            "nobody leads" if len(free) == len(seen.outboxes) else f"nobody leads {shards(free)}", blocks=True
        )
    for shard, holder in seen.roll.leases.items():
        if holder.is_foreign:
            key = seen.lease_keys[shard]
            text = f"nobody can lead shard {shard}: the key {key} holds something that is not beatd's; delete the key"
            yield Problem(text, blocks=True)
        elif alive and holder.daemon_id not in alive:
            left = duration_text(-(-max(holder.left_ms, 0) // 1000) * 1000)
            text = f"shard {shard} is led by {holder.daemon_id}, which is gone; a standby takes over within {left}"
            yield Problem(text, blocks=True)


def _daemons(seen: Overview) -> Iterator[Problem]:
    statuses = [one.status for one in seen.alive]
    digests = {each.digest for each in statuses}
    if len(digests) > 1:
        yield Problem(f"the daemons have {len(digests)} different schedules")
    for one in seen.roll.daemons.values():
        if not one.alive:
            yield Problem(f"{one.status.id} was heard of {duration_text(rounded(one.age_ms))} ago and not since")
    for one in seen.alive:
        if why := why_aside(one.status, statuses):
            yield Problem(f"{one.status.id} stands aside: {why}")
        if seen.led_by(one.status.id):
            yield from _runs_that_wait(one, seen)
        yield from _ailments(one.status)


def _runs_that_wait(one: Member, seen: Overview) -> Iterator[Problem]:
    """The runs of the shards that a daemon leads do not leave."""
    each = one.status
    late = f"; runs are {duration_text(rounded(each.late_ms))} late" if each.late_ms > LATE_MS else ""
    if each.problem:
        since = _clock(seen.roll.now_ms - one.age_ms - each.problem_ms)
        text = f"{each.id}: no run leaves since {since}: {each.problem}{late}; it goes on by itself once that is mended"
        yield Problem(text, blocks=max(each.problem_ms, each.late_ms) > LATE_MS)
    elif late:
        since = _clock(seen.roll.now_ms - one.age_ms - each.late_ms)
        yield Problem(f"{each.id}: no run leaves in time since {since}{late}; its log says more", blocks=True)


def _ailments(each: Status) -> Iterator[Problem]:
    """The problems of one daemon that keep no run from leaving, or not yet."""
    if each.config == "broken":
        yield Problem(f"{each.id}: its files have faults; the last good schedule is in force; run beatd check")
    if each.faults:
        more = f" and {each.faults - len(each.faulty):,} more" if each.faults > len(each.faulty) else ""
        wrong = f"{plural(each.faults, 'runtime entry')} not in force: {', '.join(each.faulty)}{more}"
        yield Problem(f"{each.id}: {wrong}; see beatd list")
    if each.clock_offset_ms is not None and abs(each.clock_offset_ms) > SKEW_MS:
        ahead = "ahead of" if each.clock_offset_ms > 0 else "behind"
        yield Problem(f"{each.id}: its clock is {abs(each.clock_offset_ms) / 1000:.1f} s {ahead} the state store's")
    if each.read_ms_ago is not None and each.read_ms_ago > DEAF_MS:
        ago = duration_text(rounded(each.read_ms_ago))
        yield Problem(f"{each.id}: it has not read runtime entries for {ago}")
    if each.turned_ms_ago is not None and each.turned_ms_ago > STUCK_MS:
        yield Problem(f"{each.id}: its loop has not turned for {duration_text(rounded(each.turned_ms_ago))}")


def _held_back(seen: Overview) -> Iterator[Problem]:
    for name, held in islice(sorted(seen.held.items()), HELD_SHOWN):
        again = f"tried again at {_clock(held.again_ms)}"
        yield Problem(f"{name} is held back since {_clock(held.since_ms)}: {held.reason}; {again}")
    if seen.held_count > HELD_SHOWN:
        yield Problem(f"and {plural(seen.held_count - HELD_SHOWN, 'entry')} more held back; see beatd list --held")


def _clock(ms: int) -> str:
    try:
        return f"{from_ms(ms):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError):
        return "an unknown time"


def shards(numbers: list[int]) -> str:
    """``shard 3``, ``shards 1, 2``."""
    return f"shard{'s' if numbers[1:] else ''} {', '.join(map(str, numbers))}"


def rounded(ms: int) -> int:
    """To what people say: seconds up to an hour, then minutes."""
    unit = 1_000 if ms < 3_600_000 else 60_000
    return ms // unit * unit
