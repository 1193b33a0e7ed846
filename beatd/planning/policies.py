"""Policies: the decision for a due run: sent, skipped for a reason, or decided again later; when its message expires.

The rule, in this order: a run in a ``blackout`` is skipped; so is one whose message has expired (``expires``). While
the run before has not ended, ``overlap`` decides: ``"skip"`` skips, ``"allow"`` sends; ``"queue_one"`` lets one run
wait, which is sent when the one before has ended, and drops those that came due meanwhile. At last, a run is skipped
while its queue holds ``max_queue_depth`` messages.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import datetime
from enum import Enum
from types import MappingProxyType

import msgspec

from beatd.model import Entry, Run
from beatd.planning.timeline import hidden
from beatd.schedules import latest_ms, period_ms
from beatd.timestamps import from_ms, to_ms


def expires_at_ms(run: Run) -> int | None:
    """The instant (ms) after which a run is not worth starting; ``None`` for never.

    ``"auto"`` is one period: the run expires when the next one is due. A duration counts from when the run leaves.
    """
    match run.entry.options.expires:
        case None:
            return None
        case "auto":
            return run.timeline.next_after_ms(run.due_ms)
        case datetime() as instant:
            return to_ms(instant)
        case duration_ms:
            return run.fire_ms + duration_ms


RUNTIME_MS = 3_600_000
"""How long a run may take at most, as far as overlaps are concerned, unless its entry says ``max_runtime``."""


class Skip(Enum):
    """Why a run is not sent. The values are what logs, history and metrics say."""

    BLACKOUT = "blackout"
    EXPIRED = "expired"
    OVERLAP = "overlap"
    QUEUE_FULL = "queue_full"
    UNSENDABLE = "unsendable"


class Facts(msgspec.Struct, frozen=True):
    """Facts from outside at the moment of the decision."""

    now_ms: int
    unfinished: Container[str]
    """Entries whose last run is not over yet."""
    depths: dict[str, int]
    """Messages in the queues that somebody asked about."""
    failed: Mapping[str, Exception] = MappingProxyType({})
    """Entries of which something cannot be found out, and why."""


RETRY_MS = 500
"""How long a run that waits for the one before it is left alone before it is decided again."""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Decision for a due run: it is sent, unless ``skip``, ``retry_ms`` or ``hold`` says otherwise."""

    expires_ms: int | None = None
    """The instant at which its message expires."""
    skip: Skip | None = None
    """The reason why it is not sent."""
    retry_ms: int | None = None
    """It waits: it is decided again at this instant."""
    passed_ms: int | None = None
    """The runs after it up to this due time are dropped with it."""
    claimed_before: bool = False
    """The store says that it was claimed before: it may have been sent, whatever is decided now."""
    hold: bool = False
    """It failed: its entry leaves the heap, held back until it is tried again."""


SEND, HOLD = Decision(), Decision(hold=True)


def decide(run: Run, queue: str, facts: Facts) -> Decision:
    """Return the decision for ``run``, whose message would go to ``queue``."""
    policies = run.entry.policies
    expires_ms = expires_at_ms(run)
    if hidden(run.entry, run.due_ms):
        return Decision(skip=Skip.BLACKOUT)
    if expires_ms is not None and expires_ms <= facts.now_ms:
        return Decision(skip=Skip.EXPIRED)
    if run.entry.name in facts.unfinished:
        if policies.overlap == "skip":
            return Decision(skip=Skip.OVERLAP)
        return Decision(retry_ms=facts.now_ms + RETRY_MS)
    if policies.max_queue_depth is not None and facts.depths.get(queue, 0) >= policies.max_queue_depth:
        return Decision(skip=Skip.QUEUE_FULL)
    if policies.overlap == "queue_one":
        return _queue_one(run, expires_ms, facts.now_ms)
    return SEND if expires_ms is None else Decision(expires_ms)


def decide_ahead(run: Run) -> Decision | None:
    """The decision for a coming run that asks for no facts: it is sent, if it leaves before its message expires.

    ``None`` if it is to be decided when it is due.
    """
    policies = run.entry.policies
    if policies.overlap != "allow" or policies.max_queue_depth is not None:
        return None
    decision = decide(run, "", Facts(run.fire_ms, (), {}))
    return decision if decision.skip is None else None


def _queue_one(run: Run, expires_ms: int | None, now_ms: int) -> Decision:
    """``queue_one``: send the run that waited, and drop the runs that came due while it waited."""
    return Decision(expires_ms, passed_ms=latest_ms(run.timeline, after_ms=run.due_ms, until_ms=now_ms))


def runtime_ms(entry: Entry) -> int:
    """Return how long (ms) a run of the entry may take at most, for its overlap policy."""
    return entry.policies.max_runtime_ms or RUNTIME_MS


def manual_expires_at_ms(run: Run) -> int | None:
    """The instant after which a run that leaves by hand is not worth starting; ``None`` for never.

    As :func:`expires_at_ms`, but ``"auto"`` is one period from when it leaves: the next run may be due at any time.
    """
    if run.entry.options.expires != "auto":
        return expires_at_ms(run)
    period = period_ms(run.timeline, from_ms(run.fire_ms))
    return None if period is None else run.fire_ms + period
