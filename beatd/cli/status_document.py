"""The document of ``beatd status --json``."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from beatd.cli.problems import problems
from beatd.client.history import held_facts, pause_facts
from beatd.client.outcomes import error_facts
from beatd.planning.problems import problem_facts
from beatd.store.daemon_registry import Member
from beatd.timestamps import iso_ms

if TYPE_CHECKING:
    from beatd.cli.status import Changes, Failing, Overview

ENTRIES_TOLD = 1_000
"""Entries that are held back, that fail, and that are late: so many of each are in the document."""


def facts(seen: Overview) -> dict[str, Any]:
    """The document of ``--json``."""
    found = list(problems(seen))
    return {
        "state_store": {"place": seen.place, "server": seen.server, "prefix": seen.prefix},
        "daemons": [_daemon(one, seen) for one in seen.fleet.daemons.values()],
        "shards": [_shard(shard, waiting, seen) for shard, waiting in enumerate(seen.outboxes)],
        "outbox": sum(seen.outboxes),
        "dead_letters": seen.dead_letters,
        "runtime": _runtime(seen.runtime),
        "same_schedule": len({one.status.digest for one in seen.alive}) <= 1,
        "ready": not any(problem.blocks for problem in found),
        "not_ready": [problem.text for problem in found if problem.blocks],
        "problems": [problem.text for problem in found],
        "problem_details": [*map(problem_facts, found)],
        "held_back": [{"entry": name, **held_facts(held)} for name, held in sorted(seen.held.items())],
        "held_back_count": seen.held_count,
        "failing": [_failing_facts(name, one) for name, one in islice(seen.failing.items(), ENTRIES_TOLD)],
        "failing_count": len(seen.failing),
        "overdue": _since_facts(seen.overdue),
        "overdue_count": len(seen.overdue),
        "undelivered": [
            {
                "target": name,
                "since": iso_ms(one.since_ms),
                "attempts": one.attempts,
                "given_up": one.given_up,
                "error": one.error,
            }
            for name, one in seen.undelivered.items()
        ],
        "too_long": _since_facts(seen.too_long),
        "too_long_count": len(seen.too_long),
    }


def _since_facts(since: Mapping[str, int]) -> list[dict[str, str]]:
    return [{"entry": name, "since": iso_ms(since_ms)} for name, since_ms in islice(since.items(), ENTRIES_TOLD)]


def _failing_facts(name: str, one: Failing) -> dict[str, Any]:
    return {
        "entry": name,
        "since": None if one.since_ms is None else iso_ms(one.since_ms),
        "failures": one.failures,
        "last_error": one.error and error_facts(one.error),
    }


def _daemon(one: Member, seen: Overview) -> dict[str, Any]:
    each = one.status
    return {
        "id": each.id,
        "host": each.host,
        "pid": each.pid,
        "version": each.version,
        "alive": one.alive,
        "eligible": one.alive and seen.is_eligible(each),
        "seen_ms_ago": one.age_ms,
        "started_at": iso_ms(each.started_ms),
        "entries": each.entries,
        "digest": each.digest,
        "runtime_entries": each.runtime,
        "paused": each.paused,
        "revision": each.revision,
        "resting_ms": each.resting_ms,
        "config": each.config,
        "calendar_faults": each.calendar_faults,
        "task_faults": each.task_faults,
        "more_task_faults": each.more_task_faults,
        "file_faults": each.file_faults,
        "more_file_faults": each.more_file_faults,
        "clock_offset_ms": each.clock_offset_ms,
        "turned_ms_ago": each.turned_ms_ago,
        "late_ms": each.late_ms,
        "held_back": each.held,
        "problem": each.problem or None,
        "shards": [{"shard": shard, "term": term} for shard, term in seen.led_by(each.id).items()],
    }


def _runtime(changes: Changes) -> dict[str, Any]:
    noted = {name: pause_facts(pause) for name, pause in changes.paused.items()}
    return {"revision": changes.revision, "entries": changes.entries, "pauses": changes.pauses, "paused": noted}


def _shard(shard: int, waiting: int, seen: Overview) -> dict[str, Any]:
    holder = seen.fleet.leases.get(shard)
    if holder and holder.is_foreign:
        holder = None
    return {
        "shard": shard,
        "leader": holder.daemon_id if holder else None,
        "term": holder.token if holder else None,
        "lease_ms": holder.left_ms if holder else None,
        "outbox": waiting,
    }
