"""Policies: the decision for a due run: sent, skipped for a reason, or kept waiting; and when its message expires."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from beatd.model import Entry, Run
from beatd.planning.timeline import hidden
from beatd.schedules import period_ms
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


class Facts(NamedTuple):
    """Facts from outside at the moment of the decision."""

    now_ms: int
    unfinished: frozenset[str]
    """Entries whose last run is not over yet."""
    depths: dict[str, int]
    """Messages in the queues that somebody asked about."""
    failed: Mapping[str, Exception] = MappingProxyType({})
    """Entries of which something cannot be found out, and why."""


class Decision(NamedTuple):
    """``skip`` says why a run is not sent; ``wait`` that it is to be judged again later; neither: send it."""

    expires_ms: int | None = None
    skip: Skip | None = None
    wait: bool = False


def decide(run: Run, queue: str, facts: Facts) -> Decision:
    """The verdict on ``run``, whose message would go to ``queue``."""
    policies = run.entry.policies
    expires_ms = expires_at_ms(run)
    if hidden(run.entry, run.due_ms):
        return Decision(skip=Skip.BLACKOUT)
    if expires_ms is not None and expires_ms <= facts.now_ms:
        return Decision(skip=Skip.EXPIRED)
    if run.entry.name in facts.unfinished:
        return Decision(skip=Skip.OVERLAP) if policies.overlap == "skip" else Decision(wait=True)
    if policies.max_queue_depth is not None and facts.depths.get(queue, 0) >= policies.max_queue_depth:
        return Decision(skip=Skip.QUEUE_FULL)
    return Decision(expires_ms)


def runtime_ms(entry: Entry) -> int:
    """Return how long (ms) a run of the entry may take at most, for its overlap policy."""
    return entry.policies.max_runtime_ms or RUNTIME_MS


def manual_expires_at_ms(run: Run, now_ms: int) -> int | None:
    """The instant after which a run that leaves now by hand is not worth starting; ``None`` for never.

    As for any run, but ``"auto"`` is one period from now: the next run has nothing to do with when this one leaves.
    """
    match run.entry.options.expires:
        case None:
            return None
        case "auto":
            period = period_ms(run.timeline, from_ms(now_ms))
            return None if period is None else now_ms + period
        case datetime() as instant:
            return to_ms(instant)
        case duration_ms:
            return now_ms + duration_ms
