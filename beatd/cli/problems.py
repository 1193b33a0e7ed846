"""Health problems of an installation, each in one line: since when, and what to do.

Health means that runs are sent. A problem that blocks them makes ``beatd status`` and ``/readyz`` fail; any other is a
warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from beatd.beat.problems import fleet_problems
from beatd.cli.output import plural
from beatd.client.outcomes import failing_text
from beatd.planning.problems import Kind, Problem
from beatd.timestamps import utc_text

if TYPE_CHECKING:
    from beatd.cli.status import Overview

HELD_SHOWN = FAILING_SHOWN = 10
"""Entries that are held back, that fail, and that are overdue: so many of each are shown one by one."""


def problems(seen: Overview) -> Iterator[Problem]:
    """The problems of an installation, blocking ones first."""
    found = [Problem("store_refused", f"state store {seen.place}: {text}", blocks=True) for text in seen.refuses]
    if not seen.refuses:  # else no daemon can write its heartbeat: nobody knows which are alive
        found += fleet_problems(seen.fleet, len(seen.outboxes), seen.lease_keys.__getitem__)
    found += [Problem("key_foreign", text) for text in seen.foreign_keys]
    found += [*_held_back(seen), *_failing(seen), *_undelivered(seen)]
    found += [Problem("store_at_risk", f"state store {seen.place}: {text}") for text in seen.warnings]
    yield from sorted(found, key=lambda one: not one.blocks)


def _held_back(seen: Overview) -> Iterator[Problem]:
    for name, held in islice(sorted(seen.held.items()), HELD_SHOWN):
        again = f"next try at {utc_text(held.again_ms)}"
        text = f"entry {name} is held back since {utc_text(held.since_ms)}: {held.reason}; {again}"
        yield Problem("entry_held_back", text, subject=name, since_ms=held.since_ms)
    if seen.held_count > HELD_SHOWN:
        text = f"and {plural(seen.held_count - HELD_SHOWN, 'entry')} more held back; see beatd list --held"
        yield Problem("entry_held_back", text)


def _failing(seen: Overview) -> Iterator[Problem]:
    """Report entries whose last runs failed, and those of which a run is overdue or takes too long."""
    for name, one in islice(seen.failing.items(), FAILING_SHOWN):
        text = failing_text(name, one.since_ms, one.failures, one.error)
        yield Problem("entry_failing", text, subject=name, since_ms=one.since_ms)
    if len(seen.failing) > FAILING_SHOWN:
        text = f"and {plural(len(seen.failing) - FAILING_SHOWN, 'entry')} more failing; see beatd list --failed"
        yield Problem("entry_failing", text)
    kinds: tuple[tuple[Kind, dict[str, int], str, str, str], ...] = (
        ("entry_overdue", seen.overdue, "is overdue", "are overdue", ", and whether workers run"),
        (
            "entry_too_long",
            seen.too_long,
            "has a run that takes too long",
            "have runs that take too long",
            "; beatd stop-run RUN ends it",
        ),
    )
    for kind, late, is_late, are_late, advice in kinds:
        ordered = sorted(late.items(), key=lambda item: (item[1], item[0]))
        for name, since_ms in ordered[:FAILING_SHOWN]:
            text = f"entry {name} {is_late} since {utc_text(since_ms)}; see beatd describe {name}{advice}"
            yield Problem(kind, text, subject=name, since_ms=since_ms)
        if len(ordered) > FAILING_SHOWN:
            more = len(ordered) - FAILING_SHOWN
            late_too = is_late if more == 1 else are_late
            text = f"and {plural(more, 'entry')} more that {late_too}; see beatd list --overdue"
            yield Problem(kind, text)


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
        yield Problem("notifications_undelivered", text, subject=name, since_ms=one.since_ms)
    if len(seen.undelivered) > FAILING_SHOWN:
        count = len(seen.undelivered) - FAILING_SHOWN
        text = f"and {plural(count, 'target')} more without notifications; see the leader's log"
        yield Problem("notifications_undelivered", text)
