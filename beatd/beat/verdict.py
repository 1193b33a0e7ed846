"""What becomes of a run that is due: sent, skipped for a reason, or kept waiting. A pure decision about known facts."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from beatd.beat.messages import expires_at_ms
from beatd.model import Entry, Run
from beatd.timeline import hidden

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
    """What the outside knows at the moment of the decision."""

    now_ms: int
    unfinished: frozenset[str]
    """Entries whose last run is not over yet."""
    depths: dict[str, int]
    """Messages in the queues that somebody asked about."""
    failed: Mapping[str, Exception] = MappingProxyType({})
    """Entries of which something cannot be found out, and why."""


class Verdict(NamedTuple):
    """``skip`` says why a run is not sent; ``wait`` that it is to be judged again later; neither: send it."""

    expires_ms: int | None = None
    skip: Skip | None = None
    wait: bool = False


def judge(run: Run, queue: str, facts: Facts) -> Verdict:
    """The verdict on ``run``, whose message would go to ``queue``."""
    policies = run.entry.policies
    expires_ms = expires_at_ms(run)
    if hidden(run.entry, run.due_ms):
        return Verdict(skip=Skip.BLACKOUT)
    if expires_ms is not None and expires_ms <= facts.now_ms:
        return Verdict(skip=Skip.EXPIRED)
    if run.entry.name in facts.unfinished:
        return Verdict(skip=Skip.OVERLAP) if policies.overlap == "skip" else Verdict(wait=True)
    if policies.max_queue_depth is not None and facts.depths.get(queue, 0) >= policies.max_queue_depth:
        return Verdict(skip=Skip.QUEUE_FULL)
    return Verdict(expires_ms)


def runtime_ms(entry: Entry) -> int:
    """How long a run of the entry may take at most, as far as overlaps are concerned."""
    return entry.policies.max_runtime_ms or RUNTIME_MS
