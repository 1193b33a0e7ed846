"""Problems of an installation: their kinds, and one as all surfaces show it.

Status, page, API and metrics are made from the same list of problems. A kind has one name in ``beatd status --json``,
the API and the metric ``beatd_problems``. docs/troubleshooting.md has a table of them.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from beatd.exceptions import StoreError
from beatd.timestamps import iso_ms

Kind = Literal[
    "store_unavailable",
    "store_refused",
    "store_at_risk",
    "store_slow",
    "store_unreplicated",
    "key_foreign",
    "no_daemon",
    "nobody_leads",
    "leader_gone",
    "lease_foreign",
    "shard_away",
    "runs_blocked",
    "runs_late",
    "daemon_gone",
    "stands_aside",
    "loop_stuck",
    "clock_skew",
    "config_mismatch",
    "version_mismatch",
    "config_broken",
    "task_fault",
    "calendar_unreadable",
    "runtime_entry_broken",
    "runtime_unreadable",
    "entry_held_back",
    "entry_failing",
    "entry_overdue",
    "entry_too_long",
    "notifications_undelivered",
    "page_file_broken",
    "page_schedule_unknown",
]


class Problem(NamedTuple):
    """One problem as a sentence. Health means that runs are sent: ``blocks`` is true if it keeps runs from that."""

    kind: Kind
    text: str
    blocks: bool = False
    subject: str = ""
    """The entry, daemon, shard or target that it is about; empty for the installation."""
    since_ms: int | None = None
    """Since when, as far as that is known."""


def problem_facts(problem: Problem) -> dict[str, Any]:
    """A problem for programs."""
    since = None if problem.since_ms is None else iso_ms(problem.since_ms)
    return {
        "kind": problem.kind,
        "subject": problem.subject or None,
        "since": since,
        "blocks": problem.blocks,
        "text": problem.text,
    }


def store_problem(error: StoreError, since_ms: int | None = None) -> Problem:
    """The problem that the state store does not answer, or refuses."""
    return Problem(error.word, str(error), blocks=True, since_ms=since_ms)
